# What people see, with the programs they see it through: a real Prometheus and a real browser, both Debian's. They are unpacked (not
# installed) under ${PGWEIR_CACHE:-~/.cache/pgweir}/debian; one that cannot be had skips its tests (CI=true: fails).
monitoring: venv ## Metrics, alerts and dashboards with a real Prometheus, the pooler's page in a real browser
	$(BIN)/python -m pytest tests/monitoring $(MONITORING_ARGS)

.PHONY: monitoring
