# Real drivers through the pooler: Go, Java, JavaScript, Python, Rust, psql and pgbench. What is built is kept under
# ${PGWEIR_CACHE:-~/.cache/pgweir}/drivers; a toolchain that is missing skips its drivers (CI=true: fails).
DRIVERS_ARGS ?= -n 2 --dist loadgroup

drivers: venv ## Real drivers in every world: pool mode, TLS, PostgreSQL version (needs go, mvn, npm, cargo)
	$(BIN)/python -m pytest tests/drivers $(DRIVERS_ARGS)

.PHONY: drivers
