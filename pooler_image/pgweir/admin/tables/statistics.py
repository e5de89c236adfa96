"""SHOW STATS and its kin: counters with PgBouncer's meanings, one row per database; times in microseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pgweir.admin.tables.form import Table, View, numerics, texts
from pgweir.config import CONSOLE_DATABASE
from pgweir.pool.stats import COUNTERS, Stats

_STATS_WORDS: Final = {"received": "bytes_received", "sent": "bytes_sent"}
_TOTALS_WORDS: Final = {
    "received": "client_bytes",
    "sent": "server_bytes",
    "client_parse_count": "ps_client_parse_count",
    "server_parse_count": "ps_server_parse_count",
    "bind_count": "ps_bind_count",
}
_AVG_ONLY: Final = COUNTERS[-4:]  # these four carry avg_ in SHOW STATS_AVERAGES, too
_TIMES: Final = ("xact_time", "query_time", "wait_time")


def total_values(stats: Stats) -> list[int]:
    """In the order of COUNTERS; times in microseconds."""
    return [int(getattr(stats, name) * (1_000_000 if name in _TIMES else 1)) for name in COUNTERS]


def _average_values(averages: Mapping[str, float]) -> list[int]:
    return [int(averages.get(name, 0.0) * (1_000_000 if name in _TIMES else 1)) for name in COUNTERS]


def _stats_rows(view: View) -> Iterator[tuple[str, list[int], list[int]]]:
    for name, database in sorted(view.pooler.databases.items()):
        yield name, total_values(view.pooler.stats(database)), _average_values(database.averages.values())
    yield CONSOLE_DATABASE, total_values(view.consoles.stats), _average_values({})


STATS_COLUMNS: Final = (
    *texts("database"),
    *numerics(f"total_{name}" for name in COUNTERS),
    *numerics("avg_" + {"received": "recv"}.get(name, name) for name in COUNTERS),
)


def stats(view: View) -> Table:
    return Table(STATS_COLUMNS, [(name, *totals, *averages) for name, totals, averages in _stats_rows(view)])


def stats_totals(view: View) -> Table:
    columns = (*texts("database"), *numerics(_STATS_WORDS.get(name, name) for name in COUNTERS))
    return Table(columns, [(name, *totals) for name, totals, _ in _stats_rows(view)])


def stats_averages(view: View) -> Table:
    names = (f"avg_{name}" if name in _AVG_ONLY else _STATS_WORDS.get(name, name) for name in COUNTERS)
    return Table((*texts("database"), *numerics(names)), [(name, *avg) for name, _, avg in _stats_rows(view)])


def totals(view: View) -> Table:
    rows = list(_stats_rows(view))
    names = [_TOTALS_WORDS.get(name, name) for name in COUNTERS]
    summed = [(f"total_{name}", sum(row[1][at] for row in rows)) for at, name in enumerate(names)]
    averaged = [(f"avg_{name}", sum(row[2][at] for row in rows)) for at, name in enumerate(names)]
    return Table((*texts("name"), *numerics(["value"])), [*summed, *averaged])
