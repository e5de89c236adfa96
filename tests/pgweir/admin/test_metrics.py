"""Metrics, read with Prometheus' own parser. The names, types and labels are those that dashboards were made for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.pgweir.admin.world import HandService
from tests.pgweir.session.world import World

from pgweir.admin import metrics
from pgweir.admin.nodes import Nodes
from pgweir.admin.service import Consoles
from pgweir.protocol.messages import query
from pgweir.protocol.reasons import CloseReason
from pgweir.session import switchover
from pgweir.session.holds import ReleaseWhen

LISTS = (
    "databases users pools free_clients used_clients login_clients free_servers used_servers dns_names dns_zones "
    "dns_queries dns_pending"
)
POOLS = (
    "cl_active cl_waiting cl_cancel_req cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel "
    "sv_wait_cancels sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts"
)
STATS = (
    "total_bind_count total_client_parse_count total_server_assignment_count total_server_parse_count total_xact_count "
    "total_query_count total_received total_sent total_xact_time total_query_time total_wait_time avg_bind_count "
    "avg_client_parse_count avg_server_assignment_count avg_server_parse_count avg_xact_count avg_query_count avg_recv "
    "avg_sent avg_xact_time avg_query_time avg_wait_time"
)
# name -> (type, labels)
EXPECTED = {
    **{f"lists_{name}": ("gauge", ()) for name in LISTS.split()},
    **{f"pools_{name}": ("gauge", ("database", "user")) for name in POOLS.split()},
    **{f"stats_{name}": ("gauge", ("database",)) for name in STATS.split()},
    "collections": ("counter", ()),
    "collection_errors": ("counter", ("collector",)),
    "collection_duration_seconds": ("gauge", ("collector",)),
    "last_collection_error": ("gauge", ()),
    "up": ("gauge", ()),
}


def families(service: HandService, prefix: str = "cnp_pgbouncer") -> dict[str, Metric]:
    registry = CollectorRegistry()
    registry.register(metrics.PoolerCollector(service, prefix))
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.mark.parametrize("prefix", ["cnp_pgbouncer", "cnpg_pgbouncer"])
def test_every_family_has_the_type_and_labels_that_dashboards_expect(service: HandService, prefix: str) -> None:
    service.client()
    found = families(service, prefix)
    for name, (kind, labels) in EXPECTED.items():
        family = found[f"{prefix}_{name}"]
        assert family.type == kind, name
        assert family.documentation
        assert {tuple(sample.labels) for sample in family.samples} == {labels}, name


def test_a_counter_is_named_total_in_the_text(service: HandService) -> None:
    registry = CollectorRegistry()
    registry.register(metrics.PoolerCollector(service))
    text = generate_latest(registry).decode()
    assert "# TYPE cnp_pgbouncer_collections_total counter" in text
    assert 'cnp_pgbouncer_collection_duration_seconds{collector="Collect.up"}' in text
    assert 'cnp_pgbouncer_pools_cl_active{database="pgbouncer",user="pgbouncer"}' in text


def value(service: HandService, name: str, **labels: str) -> float:
    (found,) = [sample.value for sample in families(service)[name].samples if labels.items() <= sample.labels.items()]
    return found


def test_values_follow_the_pool_state_by_state(service: HandService) -> None:
    labels = {"database": "app", "user": "bob"}
    server = service.server(user="bob")
    holder, waiter = service.client(user="bob"), service.client(user="bob")
    assert value(service, "cnp_pgbouncer_pools_sv_idle", **labels) == 1
    service.begin(holder)
    waiter.data_received(b"Q\0\0\0\x05\0")
    service.edge.now += 1.25
    assert value(service, "cnp_pgbouncer_pools_sv_active", **labels) == 1
    assert value(service, "cnp_pgbouncer_pools_cl_waiting", **labels) == 1
    assert value(service, "cnp_pgbouncer_pools_maxwait", **labels) == 1
    assert value(service, "cnp_pgbouncer_pools_maxwait_us", **labels) == 250_000
    assert value(service, "cnp_pgbouncer_pools_pool_mode", **labels) == 2
    server.cancel_waiters = [lambda: None]
    assert value(service, "cnp_pgbouncer_pools_cl_cancel_req", **labels) == 1


def test_reasons_and_failures_are_counted_by_name(service: HandService) -> None:
    service.pooler.closed_counts[CloseReason.EVICTED] = 3
    service.pooler.auth_failures["hba"] = 2
    service.pooler.server_login_errors["28P01"] = 1
    assert value(service, "pgweir_closed_connections", reason="evicted") == 3
    assert value(service, "pgweir_auth_failures", stage="hba") == 2
    assert value(service, "pgweir_server_login_errors", sqlstate="28P01") == 1
    service.descriptor_shortages = 5
    assert value(service, "pgweir_descriptor_shortages") == 5
    assert value(service, "pgweir_paused") == 0
    assert value(service, "pgweir_configuration_info", version="9.9.9", digest=service.pooler.config.digest) == 1


def test_holds_are_counted_by_what_ended_them_and_timed_while_they_stand(service: HandService) -> None:
    assert value(service, "pgweir_hold_seconds") == 0
    switchover.hold(service.pooler, "one", 60.0, ReleaseWhen.TOLD)
    service.edge.now += 2.5
    assert (value(service, "pgweir_held"), value(service, "pgweir_hold_seconds")) == (1, 2.5)
    switchover.route(service.pooler, "one", "c1-rw", "10.0.0.7", 60.0)
    service.edge.now += 2.5
    assert (value(service, "pgweir_held"), value(service, "pgweir_hold_seconds")) == (0, 2.5)
    assert value(service, "pgweir_holds", ended_by="route") == 1


_PROCESS = {
    "consoles": Consoles(), "nodes": Nodes(), "config_path": "", "stopping": False, "bundle": None, "version": "9.9.9",
    "descriptor_shortages": 0,
}  # fmt: skip


def usage(world: World, name: str) -> float:
    """A metric of the only pool there is."""
    families = metrics.PoolerCollector(cast(Any, SimpleNamespace(pooler=world.pooler, **_PROCESS))).collect()
    ((labels, found),) = [
        (each.labels, each.value) for family in families if family.name == name for each in family.samples
    ]
    assert {"database", "user"} == labels.keys()
    return found


def test_ten_connects_with_seven_reuses_are_a_hit_ratio_of_seven_tenths() -> None:
    """B19. What is opened for min_pool_size and what nobody uses is no miss."""
    world = World(pool_mode="session", server_reset_query="", default_pool_size=5)
    together = [world.client() for _ in range(3)]
    for client in together:
        client.query("SELECT 1")
    assert usage(world, "pgweir_pool_active_connections") == 3
    for client in together:
        client.leaves()
    for _ in range(7):
        client = world.client()
        client.query("SELECT 1")
        client.leaves()
    world.run()
    assert usage(world, "pgweir_pool_hits") == 7
    assert usage(world, "pgweir_pool_misses") == 3
    assert usage(world, "pgweir_pool_hit_ratio") == 0.7
    assert usage(world, "pgweir_pool_cached_connections") == 3
    assert usage(world, "pgweir_pool_query_count") == 10


def test_a_server_that_was_opened_and_never_used_is_neither_hit_nor_miss() -> None:
    world = World(default_pool_size=2)
    client = world.client()
    assert (world.pool.hits, world.pool.misses) == (0, 0)
    world.operations.reconnect()
    world.run()
    assert (world.pool.hits, world.pool.misses) == (0, 0)
    client.query("SELECT 1")
    client.query("SELECT 1")
    assert (world.pool.hits, world.pool.misses) == (1, 1)


def test_five_in_the_queue_are_a_queue_of_five() -> None:
    world = World(default_pool_size=1)
    holder = world.client()
    holder.query("BEGIN")
    for _ in range(5):
        world.client().says(query("SELECT 1"))
    assert usage(world, "pgweir_pool_wait_queue_length") == 5


async def scrape(service: HandService) -> tuple[int, str]:
    room = await metrics.start(service, "127.0.0.1:0")
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{room.port}/metrics") as answer:
            return answer.status, await answer.text()
    finally:
        await room.close()


def test_the_endpoint_adds_the_process_and_python(service: HandService) -> None:
    status, text = asyncio.run(scrape(service))
    names = {family.name for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {"process_open_fds", "python_info", "cnp_pgbouncer_up"} <= names


def test_the_log_line_of_totals_is_pgbouncers(service: HandService) -> None:
    service.client()
    line = metrics.stats_line(service.pooler)
    assert line.startswith("stats: 0 xacts/s, 0 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, ")
    assert line.endswith("in 0 B/s, out 0 B/s, xact 0 us, query 0 us, wait 0 us")
