bench: venv ## CPU per transaction beside PgBouncer's, interleaved (BENCH_ARGS=--quick: under three minutes)
	@$(BIN)/python -m bench.compare $(BENCH_ARGS)

.PHONY: bench
