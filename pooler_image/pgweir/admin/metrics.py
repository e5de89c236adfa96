"""Prometheus metrics on an HTTP port of their own, and the log's line of totals.

What is shown stands in `families` (under a prefix of the user's choice) and `own_families` (under `pgweir_`). All of it is read
from the running pooler at the moment of the scrape: nothing is counted twice.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from pgweir.admin.families import SCRAPES, Moment, Scrapes
from pgweir.admin.http import Room, open_room
from pgweir.admin.samples import metric, metrics
from pgweir.admin.service import Service
from pgweir.config import Config, ConfigError
from pgweir.pool.stats import COUNTERS
from pgweir.session.pooler import Pooler

DEFAULT_PREFIX: Final = "cnp_pgbouncer"

log = logging.getLogger(__name__)


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
    """The pooler's families. A scrape that fails says so, and shows nothing that is half true."""

    def __init__(self, service: Service, prefix: str = DEFAULT_PREFIX) -> None:
        self._service = service
        self._prefix = prefix
        self._scrapes = Scrapes()

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not collect

    def collect(self) -> Iterator[Metric]:
        started = time.perf_counter()
        seen = self._scrapes
        seen.count += 1
        try:
            found = metrics(Moment(self._service, time.time()), self._prefix)
            seen.last_failed = False
        except Exception:
            log.exception("metrics: a scrape failed")
            found = []
            seen.failed += 1
            seen.last_failed = True
        yield from found
        seen.seconds = time.perf_counter() - started
        for family in SCRAPES:
            yield metric(self._prefix, family, seen)


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
