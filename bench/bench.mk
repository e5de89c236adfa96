bench: venv ## CPU per transaction beside PgBouncer's, interleaved (BENCH_ARGS=--quick: under three minutes)
	@$(BIN)/python -m bench.compare $(BENCH_ARGS)

bench-path: venv ## User time of one transaction in our own code, plain and compiled, without a network (20 s)
	@PYTHONPATH=operator:pooler_image:. $(BIN)/python -m bench.path

.PHONY: bench bench-path
