"""Prometheus metrics on an HTTP port of their own, and the log's line of totals.

The families under `prefix` have the names, types and labels of the exporter that people's dashboards were made for; those
under `pgweir_` are ours. All are read from the running pooler at the moment of the scrape: nothing is counted twice.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from pgweir import compiled
from pgweir.admin import tables
from pgweir.admin.http import Room, open_room
from pgweir.admin.service import Service
from pgweir.admin.tables import Table, View
from pgweir.config import Config, ConfigError
from pgweir.pool.stats import COUNTERS
from pgweir.session.pooler import Pooler

DEFAULT_PREFIX: Final = "cnp_pgbouncer"

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
_STATS: Final = {
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


_Of = Callable[[tables.Usage], float | None]
_USAGE_GAUGES: Final[tuple[tuple[str, str, _Of], ...]] = (
    ("active_connections", "Servers that a client holds.", lambda usage: usage.active),
    ("cached_connections", "Servers that wait for their next client.", lambda usage: usage.cached),
    ("wait_queue_length", "Clients that wait for a server.", lambda usage: usage.waiting),
    ("hit_ratio", "Hits per hit or miss, since the start; absent before the first.", lambda usage: usage.hit_ratio),
)


def _counter(name: str) -> _Of:
    return lambda usage: float(getattr(usage.stats, name))


_USAGE_COUNTERS: Final[tuple[tuple[str, str, _Of], ...]] = (
    ("hits", "Times that a client was given a server which was there already.", lambda usage: usage.hits),
    ("misses", "Times that a server was opened because a client asked, and used.", lambda usage: usage.misses),
    *(
        (
            f"{name}_seconds" if name.endswith("_time") else name,
            f"Since the start: {text.replace('microseconds', 'seconds')}.",
            _counter(name),
        )
        for name, text in {**_STATS, "client_login_count": "clients that logged in"}.items()
    ),
)


def tls(config: Config) -> ssl.SSLContext:
    """With the certificate that clients are shown. Raises ConfigError where there is none, or none that can be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    renew(context, config)
    return context


def renew(context: ssl.SSLContext, config: Config) -> None:
    """The next handshake shows the certificate of this configuration; connections that are open stay."""
    settings = config.settings
    for key in ("client_tls_cert_file", "client_tls_key_file"):
        if not getattr(settings, key):
            raise ConfigError("pgbouncer.ini", 0, key, None, "--metrics-tls needs it; name the file")
    base = config.base_dir or Path()
    try:
        context.load_cert_chain(base / settings.client_tls_cert_file, base / settings.client_tls_key_file)
    except (OSError, ssl.SSLError) as error:
        sentence = f"the metrics cannot be shown with it: {error}"
        raise ConfigError("pgbouncer.ini", 0, "client_tls_cert_file", settings.client_tls_cert_file, sentence) from None


async def start(
    service: Service, address: str, prefix: str = DEFAULT_PREFIX, context: ssl.SSLContext | None = None
) -> Room:
    registry = CollectorRegistry()
    registry.register(PoolerCollector(service, prefix))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)

    async def handler(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_get("/metrics", handler)
    room = await open_room(application, address)
    await room.serve(context)
    return room


class PoolerCollector(Collector):
    """The pooler's own families."""

    def __init__(self, service: Service, prefix: str = DEFAULT_PREFIX) -> None:
        self._service = service
        self._prefix = prefix
        self._collections = 0
        self._errors = 0

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not collect

    def collect(self) -> Iterator[Metric]:
        started = time.perf_counter()
        self._collections += 1
        failed = 0
        try:
            families = [*self._compatible(), *self._own()]
        except Exception:
            self._errors += 1
            failed = 1
            families = []
        yield from families
        prefix = self._prefix
        yield CounterMetricFamily(
            f"{prefix}_collections", "Scrapes so far, this one among them.", value=self._collections
        )
        errors = CounterMetricFamily(f"{prefix}_collection_errors", "Scrapes that failed.", labels=["collector"])
        errors.add_metric(["Collect.up"], self._errors)
        yield errors
        yield GaugeMetricFamily(f"{prefix}_up", "1: the pooler serves.", value=1)
        yield GaugeMetricFamily(f"{prefix}_last_collection_error", "1 when this scrape failed.", value=failed)
        duration = GaugeMetricFamily(
            f"{prefix}_collection_duration_seconds", "How long this scrape took.", labels=["collector"]
        )
        duration.add_metric(["Collect.up"], time.perf_counter() - started)
        yield duration

    # --- under the prefix ----------------------------------------------------------------------------------------------

    def _compatible(self) -> Iterator[Metric]:
        view = View.of(self._service, time.time())
        items = {str(row["list"]): row["items"] for row in tables.lists(view).dictionaries()}
        for name, text in _LISTS.items():
            yield GaugeMetricFamily(f"{self._prefix}_lists_{name}", text, value=_number(items[name]))
        yield from self._families("pools", _pool_rows(tables.pools(view)), ("database", "user"), _POOLS)
        yield from self._families("stats", tables.stats(view).dictionaries(), ("database",), _stats_help())
        rows = [{**row, "database": row["name"]} for row in tables.databases(view).dictionaries()]
        yield from self._families("databases", rows, ("database",), _DATABASES)

    def _families(
        self, group: str, rows: list[dict[str, tables.Value]], labels: tuple[str, ...], helps: dict[str, str]
    ) -> Iterator[Metric]:
        for name, text in helps.items():
            family = GaugeMetricFamily(f"{self._prefix}_{group}_{name}", text, labels=labels)
            for row in rows:
                family.add_metric([str(row[label]) for label in labels], _number(row[name]))
            yield family

    # --- ours ------------------------------------------------------------------------------------------------------------

    def _own(self) -> Iterator[Metric]:
        service = self._service
        pooler = service.pooler
        closed = {reason.label: count for reason, count in pooler.closed_counts.items()}
        yield _counts("closed_connections", "Client and server connections that ended, by reason.", "reason", closed)
        yield _counts(
            "auth_failures", "Logins that were refused, by the step that refused.", "stage", pooler.auth_failures
        )
        text = "Server connections or logins that failed, by SQLSTATE."
        yield _counts("server_login_errors", text, "sqlstate", pooler.server_login_errors)
        text = "Looks, three a second, that found no file descriptor left: new clients were turned away meanwhile."
        yield CounterMetricFamily("pgweir_descriptor_shortages", text, value=service.descriptor_shortages)
        yield from self._usage()
        yield GaugeMetricFamily("pgweir_paused", "1 when the whole pooler is paused.", value=int(pooler.paused))
        yield from self._holds()
        yield GaugeMetricFamily("pgweir_draining", "1 when the pooler is shutting down.", value=int(service.stopping))
        limit = pooler.settings.max_client_conn
        yield GaugeMetricFamily("pgweir_max_client_conn", "Client connections that are allowed.", value=limit)
        queue = len(pooler.overflow.waiting)
        text = "Clients beyond max_client_conn that wait for a place (client_overflow = wait)."
        yield GaugeMetricFamily("pgweir_clients_waiting_for_place", text, value=queue)
        bundle = service.bundle
        labels = {
            "version": service.version,
            "form": compiled.FORM,
            "revision": str(bundle.revision) if bundle is not None else "",
            "digest": bundle.digest if bundle is not None else pooler.config.digest,
        }
        yield InfoMetricFamily("pgweir_configuration", "The configuration that runs.", value=labels)

    def _holds(self) -> Iterator[Metric]:
        """A hold of the operator's: for a switchover, or while PostgreSQL restarts."""
        pooler = self._service.pooler
        holds, now = pooler.holds, pooler.clock()
        yield GaugeMetricFamily(
            "pgweir_held",
            "1 while clients are held for a switchover or a restart.",
            value=int(holds.current is not None),
        )
        counts = {str(ended_by): count for ended_by, count in holds.counts.items()}
        yield _counts("holds", "Holds that are over, by what ended them.", "ended_by", counts)
        seconds = holds.seconds + (holds.current.age(now) if holds.current is not None else 0.0)
        yield CounterMetricFamily("pgweir_hold_seconds", "Time spent in holds.", value=seconds)

    def _usage(self) -> Iterator[Metric]:
        """PgBouncer's counters and the pool's hits, per database and user."""
        found = tables.usage(View.of(self._service, time.time()))

        def family(kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, of: _Of) -> Metric:
            metric = kind(f"pgweir_pool_{name}", text, labels=["database", "user"])
            for each in found:
                value = of(each)
                if value is not None:
                    metric.add_metric([each.database, each.user], value)
            return metric

        for name, text, of in _USAGE_GAUGES:
            yield family(GaugeMetricFamily, name, text, of)
        for name, text, of in _USAGE_COUNTERS:
            yield family(CounterMetricFamily, name, text, of)


def _counts(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"pgweir_{name}", text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _pool_rows(table: Table) -> list[dict[str, tables.Value]]:
    return [
        {
            **row,
            "cl_cancel_req": _whole(row["cl_active_cancel_req"]) + _whole(row["cl_waiting_cancel_req"]),
            "sv_wait_cancels": row["sv_being_canceled"],
            "pool_mode": POOL_MODES.get(str(row["pool_mode"]), -1),
            "load_balance_hosts": int(row["load_balance_hosts"] == "round-robin"),
        }
        for row in table.dictionaries()
    ]


def _stats_help() -> dict[str, str]:
    texts = {f"total_{name}": f"Since the start: {text}." for name, text in _STATS.items()}
    for name, text in _STATS.items():
        column = "avg_" + {"received": "recv"}.get(name, name)
        texts[column] = _AVERAGE_TIMES.get(name, f"Per second, in the last stats_period: {text}.")
    return texts


def _number(value: tables.Value) -> float:
    return float(value) if value is not None else 0.0


def _whole(value: tables.Value) -> int:
    return value if isinstance(value, int) else 0


def stats_line(pooler: Pooler) -> str:
    """The log's line of averages, in PgBouncer's words, over all databases."""
    averages = [database.averages for database in pooler.databases.values()]
    values = [average.values() for average in averages]
    summed = {name: sum(each[name] for each in values) for name in COUNTERS}
    # A time per query cannot be added up: weigh each database by its queries.
    for time_name, count_name in (("xact_time", "xact_count"), ("query_time", "query_count")):
        weight = summed[count_name]
        spent = sum(each[time_name] * each[count_name] for each in values)
        summed[time_name] = spent / weight if weight else 0.0
    return (
        "stats: {xact_count:.0f} xacts/s, {query_count:.0f} queries/s, {client_parse_count:.0f} client parses/s,"
        " {server_parse_count:.0f} server parses/s, {bind_count:.0f} binds/s, {client_login_count:.0f} client logins/s,"
        " in {received:.0f} B/s, out {sent:.0f} B/s, xact {xact_us:.0f} us, query {query_us:.0f} us, wait {wait_us:.0f} us"
    ).format(
        **summed,
        xact_us=summed["xact_time"] * 1_000_000,
        query_us=summed["query_time"] * 1_000_000,
        wait_us=summed["wait_time"] * 1_000_000,
    )
