"""pgweir: the data plane. A PostgreSQL session and transaction pooler; start reading at `lifecycle`."""

__version__ = "0.1.0"
