"""SHOW STATS_POOLS, which is ours: PgBouncer's totals per database and user, and how often a client found a server ready.

A miss is a server connection that was opened because a client asked, counted with its first use; a hit is any other time that
a client was given a server. `metrics` and `rest` show the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgweir.admin.tables.form import Row, Table, View, numerics, texts
from pgweir.admin.tables.statistics import total_values
from pgweir.pool.stats import COUNTERS, Stats
from pgweir.session.holder import SessionPool

STATS_POOLS_COLUMNS: Final = (
    *texts("database user"),
    *numerics(f"total_{name}" for name in COUNTERS),
    *numerics(("hits", "misses")),
    *texts("hit_ratio"),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the pools of one database and user have done, and are doing."""

    database: str
    user: str
    stats: Stats
    hits: int
    misses: int
    active: int  # servers that a client holds
    cached: int  # servers that wait for their next client
    waiting: int  # clients in the queue

    @property
    def hit_ratio(self) -> float | None:
        """None: no client has been given a server yet."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


def usage(view: View) -> list[Usage]:
    groups: dict[tuple[str, str], list[SessionPool]] = {}
    for pool in view.pooler.pools.values():
        groups.setdefault((pool.database, pool.user), []).append(pool)
    return [_usage(*key, group) for key, group in sorted(groups.items())]


def _usage(database: str, user: str, group: list[SessionPool]) -> Usage:
    return Usage(
        database,
        user,
        stats=Stats.total(pool.stats for pool in group),
        hits=sum(pool.hits for pool in group),
        misses=sum(pool.misses for pool in group),
        active=sum(len(pool.active) for pool in group),
        cached=sum(len(pool.idle) + len(pool.used) for pool in group),
        waiting=sum(pool.waiting_count for pool in group),
    )


def stats_pools(view: View) -> Table:
    return Table(STATS_POOLS_COLUMNS, [_row(each) for each in usage(view)])


def _row(each: Usage) -> Row:
    ratio = None if each.hit_ratio is None else f"{each.hit_ratio:.4f}"
    return (each.database, each.user, *total_values(each.stats), each.hits, each.misses, ratio)
