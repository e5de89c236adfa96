# End-to-end tests. E2E_CONTEXT=name runs `make e2e` on a context of your kubeconfig (its nodes must have the images); without
# it the local cluster is brought up, and left running for the next time (`make cluster-down`).
E2E_TESTS := $(wildcard e2e/data_plane e2e/scenarios)
# Every worker has an API server of its own, and waits half of the time.
CONTROL_PLANE_ARGS ?= -n 2 --dist loadfile

e2e: venv ## End-to-end tests on a real Kubernetes: E2E_CONTEXT=… or the local one
ifndef E2E_CONTEXT
	@$(MAKE) --no-print-directory cluster
	@$(MAKE) --no-print-directory images
endif
	$(BIN)/python -m pytest $(E2E_TESTS) --timeout=900 $(E2E_ARGS)

control-plane: venv ## The operator at a real API server, with fake pods: no node, no images, any user
	$(BIN)/python -m pytest e2e/control_plane --timeout=900 $(CONTROL_PLANE_ARGS)

# The table in e2e/results.md, from a whole run or, with E2E_TESTS=…, from a part of it.
e2e-results: export E2E_RESULTS := $(CURDIR)/e2e/results.md
e2e-results: e2e ## The end-to-end tests, and their numbers into e2e/results.md

fleet: venv ## 300 Poolers under one operator, a real API server and no node: how long, how much, printed
	PGWEIR_FLEET=$${PGWEIR_FLEET:-300} $(BIN)/python -m pytest e2e/control_plane/test_fleet.py

.PHONY: e2e control-plane e2e-results fleet
