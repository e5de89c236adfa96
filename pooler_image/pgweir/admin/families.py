"""The exporter's families as data: name, kind, labels, meaning, and where the numbers come from.

Pure: a family reads a `Moment` and changes nothing. Here are those whose names, types and labels dashboards know from other
exporters; `own_families` has the ones beside them. `metrics` serves both, `metrics_reference` writes docs/metrics.md from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Generic, Literal, TypeVar

from pgweir.admin import tables
from pgweir.admin.service import Service
from pgweir.admin.tables import View

Kind = Literal["gauge", "counter", "histogram", "info"]
Row = dict[str, tables.Value]
Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram's value: counts by bucket (of `pool.stats.BOUNDS`, and what took longer), and the sum in seconds."""

    counts: tuple[int, ...]
    seconds: float


Value = float | Spread | Mapping[str, str]
Samples = Iterable[tuple[tuple[str, ...], Value]]


@dataclass(frozen=True, slots=True)
class Family(Generic[Source]):
    """One metric. `of` answers label values and a number each; a kind of info answers a mapping."""

    name: str  # behind its prefix, without a counter's _total
    kind: Kind
    text: str
    of: Callable[[Source], Samples]
    labels: tuple[str, ...] = ()


def number(value: tables.Value) -> float:
    return float(value) if value is not None else 0.0


class Moment:
    """The pooler at one moment; each table is made once, and only if somebody asks."""

    def __init__(self, service: Service, wall: float) -> None:
        self.service = service
        self.view = View.of(service, wall)

    @cached_property
    def lists(self) -> Row:
        return {str(row["list"]): row["items"] for row in tables.lists(self.view).dictionaries()}

    @cached_property
    def pools(self) -> list[Row]:
        return [
            {
                **row,
                "cl_cancel_req": _whole(row["cl_active_cancel_req"]) + _whole(row["cl_waiting_cancel_req"]),
                "sv_wait_cancels": row["sv_being_canceled"],
                "pool_mode": POOL_MODES.get(str(row["pool_mode"]), -1),
                "load_balance_hosts": int(row["load_balance_hosts"] == "round-robin"),
            }
            for row in tables.pools(self.view).dictionaries()
        ]

    @cached_property
    def stats(self) -> list[Row]:
        return tables.stats(self.view).dictionaries()

    @cached_property
    def databases(self) -> list[Row]:
        return [{**row, "database": row["name"]} for row in tables.databases(self.view).dictionaries()]

    @cached_property
    def usage(self) -> list[tables.Usage]:
        return tables.usage(self.view)


def _whole(value: tables.Value) -> int:
    return value if isinstance(value, int) else 0


# --- from the console's tables -------------------------------------------------------------------------------------------

POOL_MODES: Final = {"session": 1, "transaction": 2, "statement": 3}

_LISTS: Final = {
    "databases": "Databases that are configured or in use, and the console.",
    "users": "Users that are known from configuration or connections.",
    "pools": "Pools: one for each database and user in use, and the console's.",
    "free_clients": "Client connections that max_client_conn still allows.",
    "used_clients": "Client connections that are logged in.",
    "login_clients": "Client connections that are logging in.",
    "free_servers": "Always 0: nothing is kept for servers that do not exist.",
    "used_servers": "Server connections in any state.",
    "dns_names": "Names of servers whose look-up is remembered.",
    "dns_zones": "Always 0: the system's resolver knows no zones.",
    "dns_queries": "Look-ups under way.",
    "dns_pending": "Look-ups under way.",
}
_POOLS: Final = {
    "cl_active": "Clients that hold a server or are free to ask for one.",
    "cl_waiting": "Clients that asked for a server and wait for it.",
    "cl_cancel_req": "Cancel requests that have not reached their server.",
    "cl_active_cancel_req": "Cancel requests that are on their way to a server.",
    "cl_waiting_cancel_req": "Cancel requests that wait for their turn.",
    "sv_active": "Servers that a client holds.",
    "sv_active_cancel": "Server connections that carry a cancel request.",
    "sv_wait_cancels": "Servers that are kept back until a cancel for their last client is over.",
    "sv_idle": "Servers that are free and can be used at once.",
    "sv_used": "Servers that were free for longer than server_check_delay and are checked before their next use.",
    "sv_tested": "Servers that run server_reset_query or server_check_query.",
    "sv_login": "Servers that are being logged in to.",
    "maxwait": "Whole seconds that the first client in the queue has waited. A rising value: too few or too slow servers.",
    "maxwait_us": "Microseconds of that wait beyond its whole seconds.",
    "pool_mode": "Pool mode: 1 session, 2 transaction, 3 statement, -1 unknown.",
    "load_balance_hosts": "1 when several hosts of the database are used in turn.",
}
# Also the counters of `own_families`, where they are per database and user.
STATS: Final = {
    "server_assignment_count": "times that a client was given a server",
    "xact_count": "transactions",
    "query_count": "queries",
    "received": "bytes from clients",
    "sent": "bytes to clients",
    "xact_time": "microseconds that servers spent in transactions",
    "query_time": "microseconds that servers spent on queries",
    "wait_time": "microseconds that clients waited for a server",
    "client_parse_count": "prepared statements that clients made",
    "server_parse_count": "prepared statements that were made on servers",
    "bind_count": "executions of prepared statements",
}
_AVERAGE_TIMES: Final = {
    "xact_time": "Microseconds that a transaction took on average in the last stats_period.",
    "query_time": "Microseconds that a query took on average in the last stats_period.",
}
_DATABASES: Final = {
    "pool_size": "Servers that each pool of the database may have.",
    "max_connections": "Servers that the whole database may have; 0: no limit.",
    "current_connections": "Servers that the database has.",
    "max_client_connections": "Clients that the database may have; 0: no limit.",
    "current_client_connections": "Clients that the database has.",
    "paused": "1 when the database is paused.",
    "disabled": "1 when the database takes no new clients.",
}


def _stats_texts() -> dict[str, str]:
    texts = {f"total_{name}": f"Since the start: {text}." for name, text in STATS.items()}
    for name, text in STATS.items():
        column = "avg_" + {"received": "recv"}.get(name, name)
        texts[column] = _AVERAGE_TIMES.get(name, f"Per second, in the last stats_period: {text}.")
    return texts


def _of_list(name: str, text: str) -> Family[Moment]:
    return Family(f"lists_{name}", "gauge", text, lambda moment: [((), number(moment.lists[name]))])


def _of_rows(
    group: str, name: str, text: str, labels: tuple[str, ...], rows: Callable[[Moment], list[Row]]
) -> Family[Moment]:
    def of(moment: Moment) -> Samples:
        return [(tuple(str(row[label]) for label in labels), number(row[name])) for row in rows(moment)]

    return Family(f"{group}_{name}", "gauge", text, of, labels)


_POOL: Final = ("database", "user")
COMPATIBLE: Final[tuple[Family[Moment], ...]] = (
    *(_of_list(name, text) for name, text in _LISTS.items()),
    *(_of_rows("pools", name, text, _POOL, lambda moment: moment.pools) for name, text in _POOLS.items()),
    *(_of_rows("stats", name, text, _POOL[:1], lambda moment: moment.stats) for name, text in _stats_texts().items()),
    *(
        _of_rows("databases", name, text, _POOL[:1], lambda moment: moment.databases)
        for name, text in _DATABASES.items()
    ),
)


# --- the scrapes themselves -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Scrapes:
    """What the exporter knows of its own work."""

    count: int = 0
    failed: int = 0
    last_failed: bool = False
    seconds: float = 0.0


_COLLECTOR: Final = ("Collect.up",)
SCRAPES: Final[tuple[Family[Scrapes], ...]] = (
    Family("collections", "counter", "Scrapes so far, this one among them.", lambda seen: [((), seen.count)]),
    Family(
        "collection_errors",
        "counter",
        "Scrapes that failed.",
        lambda seen: [(_COLLECTOR, seen.failed)],
        ("collector",),
    ),
    Family("up", "gauge", "1: the pooler serves.", lambda seen: [((), 1)]),
    Family("last_collection_error", "gauge", "1 when this scrape failed.", lambda seen: [((), int(seen.last_failed))]),
    Family(
        "collection_duration_seconds",
        "gauge",
        "How long this scrape took.",
        lambda seen: [(_COLLECTOR, seen.seconds)],
        ("collector",),
    ),
)
