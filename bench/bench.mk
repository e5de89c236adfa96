bench: venv ## CPU per transaction beside PgBouncer and pgpool-II, interleaved, with the goals (BENCH_ARGS=--quick: under three minutes; --list)
	@$(BIN)/python -m bench.compare $(BENCH_ARGS)

bench-path: venv ## User time of one transaction in our own code, plain and compiled, without a network (20 s)
	@PYTHONPATH=operator:pooler_image:. $(BIN)/python -m bench.path

both-forms: venv ## The compiled form held against the plain one on arbitrary bytes, with the debugging allocator (10 s)
	PYTHONMALLOC=debug $(BIN)/python -m pytest -q tests/pgweir/session/test_both_forms.py

.PHONY: bench bench-path both-forms
