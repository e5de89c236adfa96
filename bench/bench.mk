bench: venv ## CPU per transaction beside PgBouncer and pgpool-II, interleaved, with the goals (BENCH_ARGS=--quick: under three minutes; --list)
	@$(BIN)/python -m bench.compare $(BENCH_ARGS)

bench-path: venv ## User time of one transaction in our own code, plain and compiled, without a network (20 s)
	@PYTHONPATH=operator:pooler_image:. $(BIN)/python -m bench.path

both-forms: venv ## The compiled form held against the plain one on arbitrary bytes, with the debugging allocator (10 s)
	PYTHONMALLOC=debug $(BIN)/python -m pytest -q tests/pgweir/session/test_both_forms.py

# Built apart, for this alone. The libraries are preloaded for our own processes and not for others: PostgreSQL's programs hang under them.
SANITIZED := build/sanitized
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZE_SECONDS ?= 20
sanitize: venv ## Both forms, and poolers under an onslaught, with the address and undefined-behaviour sanitizers of gcc (100 s; SANITIZE_SECONDS=900: longer)
	@test -e "$$(gcc -print-file-name=libasan.so)" || { echo "no sanitizers beside this gcc: nothing was looked at"; exit 0; }; \
	  rm -rf $(SANITIZED) && CFLAGS="-O0 $(SANITIZERS)" LDFLAGS="$(SANITIZERS)" \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(SANITIZED) . && \
	  LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=$(SANITIZED):. \
	    $(BIN)/python -m bench.sanitized && \
	  PGWEIR_TEST_SANITIZED=$(SANITIZED) $(BIN)/python -m tests.robustness.onslaught --seconds $(SANITIZE_SECONDS)

.PHONY: bench bench-path both-forms sanitize
