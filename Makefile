# Everything a person does with this tree. `make help` lists it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Tests wait more than they compute: three at a time are right for two cores.
PYTEST_ARGS ?= -n 3 --dist loadfile

# What runs once more with the plain form of the hot rooms, where the first run had the compiled one.
BOTH_FORMS := tests/pgweir/protocol tests/pgweir/pool tests/pgweir/session tests/pgweir/test_compiled.py tests/pgweir/net/test_transports.py

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 20

$(VENV)/.installed: pyproject.toml
	@echo "setting up $(VENV) (first time: about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# The compiled form of the hot rooms. A build of other sources is never used: this only brings it up to date.
HOT := $(wildcard pooler_image/pgweir/*/*.pxd pooler_image/pgweir/*/*/*.pxd)
$(VENV)/.compiled: $(VENV)/.installed setup.py pooler_image/pgweir/compiled.py $(HOT) $(HOT:.pxd=.py)
	@$(BIN)/python -m pgweir.compiled >/dev/null || { echo "compiling the hot rooms"; \
	  $(BIN)/python -m pip install -v --disable-pip-version-check --no-deps -e . >$(VENV)/compiled.log 2>&1 && \
	  $(BIN)/python -m pgweir.compiled || echo "$(VENV)/compiled.log says why; the tests run with the plain form"; }
	@touch $@

venv: $(VENV)/.compiled ## Make the virtual environment with everything the tests need

check: venv ## Format, lint, strict types, import rules, generated files, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory test

test: venv ## Unit, wire and operator tests on Python alone (real PostgreSQL from a wheel); PYTEST_ARGS=…
	$(BIN)/python -m pytest tests --ignore tests/drivers --ignore tests/monitoring $(PYTEST_ARGS)
	PGWEIR_PLAIN=1 $(BIN)/python -m pytest $(BOTH_FORMS) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory both-forms

differential: venv ## The data plane's scenes against Debian's PgBouncer, held to docs/differences-by-scene.md
	$(BIN)/python -m tests.pooler.differential $(PYTEST_ARGS)

format: venv ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: venv ## Build the documentation into build/site, strictly and offline, with every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

demo: venv ## See the main job: a Pooler on an embedded PostgreSQL, under load, paused and resumed
	@$(BIN)/pgweir demo $(DEMO_ARGS)

clean: ## Remove what was made here (not the caches outside the tree)
	rm -rf $(VENV) pooler_image/pgweir/_compiled build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

-include operator/operator.mk
-include e2e/cluster/cluster.mk
-include e2e/e2e.mk
-include bench/bench.mk
-include tests/drivers/drivers.mk
-include tests/monitoring/monitoring.mk
-include tests/robustness/robustness.mk

.PHONY: help venv check test differential format docs demo clean
