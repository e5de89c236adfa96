"""pgweir: the data plane. A PostgreSQL session and transaction pooler; start reading at `lifecycle`."""

__version__ = "0.1.0"

# What -V and SHOW VERSION say: exporters and scripts parse the first two words.
PGBOUNCER_VERSION = "1.25.2"
VERSION_LINE = f"PgBouncer {PGBOUNCER_VERSION} (pgweir {__version__})"
