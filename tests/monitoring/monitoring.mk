# What people see, with the programs they see it through: a real Prometheus and a real browser, both Debian's. They are unpacked (not
# installed) under ${PGWEIR_CACHE:-~/.cache/pgweir}/debian; one that cannot be had skips its tests (CI=true: fails).
monitoring: venv ## Metrics, alerts and dashboards with a real Prometheus, the pooler's page in a real browser
	$(BIN)/python -m pytest tests/monitoring $(MONITORING_ARGS)

screenshots: venv ## Look at the pooler's page again, for docs/images
	PGWEIR_SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/monitoring/test_page.py -k every_size

.PHONY: monitoring screenshots
