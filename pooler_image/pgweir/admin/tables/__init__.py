"""What SHOW shows: one pure builder per table, named for it. Columns, types and words are PgBouncer 1.25's.

A builder reads the running pooler through `View` and changes nothing. `waiting` is ours, `pgpool` has pgpool's views. Called by
`commands` (console), `metrics` and `rest`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pgweir.admin.tables.configured import (
    config,
    databases,
    dns_hosts,
    dns_zones,
    lists,
    mem,
    peer_pools,
    peers,
    state,
    users,
    version,
)
from pgweir.admin.tables.connections import clients, pointer, servers, sockets
from pgweir.admin.tables.failures import failures
from pgweir.admin.tables.form import NUMERIC_OID, Row, Table, Value, View, one_value
from pgweir.admin.tables.pgpool import nodes, pool_nodes, pool_pools, pool_processes
from pgweir.admin.tables.pooling import pools
from pgweir.admin.tables.reuse import reuse
from pgweir.admin.tables.statistics import stats, stats_averages, stats_totals, totals
from pgweir.admin.tables.usage import Usage, stats_pools, usage
from pgweir.admin.tables.waiting import waiters

Builder = Callable[[View], Table]
TABLES: Final[Mapping[str, Builder]] = {
    "CLIENTS": clients,
    "CONFIG": config,
    "DATABASES": databases,
    "DNS_HOSTS": dns_hosts,
    "DNS_ZONES": dns_zones,
    "FAILURES": failures,
    "LISTS": lists,
    "MEM": mem,
    "PEERS": peers,
    "PEER_POOLS": peer_pools,
    "POOLS": pools,
    "SERVERS": servers,
    "SOCKETS": sockets,
    "ACTIVE_SOCKETS": sockets,
    "POOL_NODES": pool_nodes,
    "POOL_POOLS": pool_pools,
    "POOL_PROCESSES": pool_processes,
    "REUSE": reuse,
    "STATE": state,
    "STATS": stats,
    "STATS_AVERAGES": stats_averages,
    "STATS_POOLS": stats_pools,
    "STATS_TOTALS": stats_totals,
    "TOTALS": totals,
    "USERS": users,
    "VERSION": version,
    "WAITERS": waiters,
}

__all__ = [
    "NUMERIC_OID",
    "TABLES",
    "Row",
    "Table",
    "Usage",
    "Value",
    "View",
    "databases",
    "lists",
    "nodes",
    "one_value",
    "pointer",
    "pools",
    "reuse",
    "stats",
    "usage",
]
