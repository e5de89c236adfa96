# Trouble on purpose, for as long as you like. The same things run for a few seconds each in `make test`.
SOAK_ARGS  ?= --seconds 600
CROWD_ARGS ?= --clients 5000
FUZZ       ?= 10000

soak: venv ## Checking clients under random kills of either side; SOAK_ARGS="--seconds 600"
	@$(BIN)/python -m tests.robustness.soak $(SOAK_ARGS)

crowd: venv ## What thousands of idle clients cost; CROWD_ARGS="--clients 5000"
	@$(BIN)/python -m tests.robustness.crowd $(CROWD_ARGS)

fuzz: venv ## Noise at every parser and in sessions; FUZZ=10000 inputs for each
	@PGWEIR_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/python -m pytest tests/robustness -k noise -n 2 --timeout 3600 -q

.PHONY: soak crowd fuzz
