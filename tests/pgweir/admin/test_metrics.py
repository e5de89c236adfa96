"""Metrics, read with Prometheus' own parser. The names, types and labels are those that dashboards were made for."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.pgweir.admin.world import HandService
from tests.pgweir.session.world import World

from pgweir.admin import metrics, shown, tables
from pgweir.admin.metrics_reference import metrics_reference
from pgweir.admin.nodes import Nodes
from pgweir.admin.own_families import OWN
from pgweir.admin.service import Consoles, Reloads
from pgweir.net.descriptors import Descriptors
from pgweir.pool.records import ServerState
from pgweir.pool.stats import Timings
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
# What an exporter of that prefix prints for a pooler that only its console has used: name, labels, type.
SAMPLE = """
collection_duration_seconds{collector} gauge
collections_total counter
last_collection_error gauge
lists_databases gauge
lists_dns_names gauge
lists_dns_pending gauge
lists_dns_queries gauge
lists_dns_zones gauge
lists_free_clients gauge
lists_free_servers gauge
lists_login_clients gauge
lists_pools gauge
lists_used_clients gauge
lists_used_servers gauge
lists_users gauge
pools_cl_active{database,user} gauge
pools_cl_cancel_req{database,user} gauge
pools_cl_waiting{database,user} gauge
pools_maxwait{database,user} gauge
pools_maxwait_us{database,user} gauge
pools_pool_mode{database,user} gauge
pools_sv_active{database,user} gauge
pools_sv_idle{database,user} gauge
pools_sv_login{database,user} gauge
pools_sv_tested{database,user} gauge
pools_sv_used{database,user} gauge
stats_avg_query_count{database} gauge
stats_avg_query_time{database} gauge
stats_avg_recv{database} gauge
stats_avg_sent{database} gauge
stats_avg_wait_time{database} gauge
stats_avg_xact_count{database} gauge
stats_avg_xact_time{database} gauge
stats_total_query_count{database} gauge
stats_total_query_time{database} gauge
stats_total_received{database} gauge
stats_total_sent{database} gauge
stats_total_wait_time{database} gauge
stats_total_xact_count{database} gauge
stats_total_xact_time{database} gauge
"""

SHELVES = ("idle", "used", "tested", "login", "wait_cancels")
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


def test_every_series_of_an_exporter_that_only_looked_at_itself_is_there(service: HandService) -> None:
    """E38. In the text itself, as a scraper of old reads it: a counter's name ends in _total."""
    registry = CollectorRegistry()
    registry.register(metrics.PoolerCollector(service))
    lines = generate_latest(registry).decode().splitlines()
    for each in SAMPLE.split("\n")[1:-1]:
        series, kind = each.split()
        name, _, labels = series.rstrip("}").partition("{")
        name = f"cnp_pgbouncer_{name}"
        assert f"# TYPE {name} {kind}" in lines
        found = [line for line in lines if re.match(rf"{name}[ {{]", line)]
        assert found, name
        shown = {tuple(re.findall(r'(\w+)="', line)) for line in found}
        assert shown == {tuple(labels.split(",")) if labels else ()}, name
    console = [line for line in lines if 'database="pgbouncer"' in line]
    assert 'cnp_pgbouncer_pools_cl_active{database="pgbouncer",user="pgbouncer"} 0.0' in console


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
    assert value(service, "cnp_pgbouncer_pools_cl_active", **labels) == 1
    server.cancel_waiters = [lambda: None]
    assert value(service, "cnp_pgbouncer_pools_cl_cancel_req", **labels) == 1
    other = service.server(user="bob")
    for state, name in (
        (ServerState.USED, "used"),
        (ServerState.TESTED, "tested"),
        (ServerState.LOGIN, "login"),
        (ServerState.IDLE, "idle"),
        (ServerState.BEING_CANCELED, "wait_cancels"),
    ):
        other.pool.place(other, state)
        shown = {each: value(service, f"cnp_pgbouncer_pools_sv_{each}", **labels) for each in SHELVES}
        assert shown == {each: float(each == name) for each in SHELVES}


def test_reasons_and_failures_are_counted_by_name(service: HandService) -> None:
    service.pooler.closed_counts[CloseReason.EVICTED] = 3
    service.pooler.auth_failures["hba"] = 2
    service.pooler.server_login_errors["28P01"] = 1
    assert value(service, "pgweir_closed_connections", reason="evicted") == 3
    assert value(service, "pgweir_auth_failures", stage="hba") == 2
    assert value(service, "pgweir_server_login_errors", sqlstate="28P01") == 1
    service.descriptors.shortages = 5
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
    "descriptors": Descriptors(), "reloads": Reloads(), "loop_lag": Timings(), "started_at": 0.0,
}  # fmt: skip


def samples(world: World, name: str) -> list[tuple[str, dict[str, str], float]]:
    families = metrics.PoolerCollector(cast(Any, SimpleNamespace(pooler=world.pooler, **_PROCESS))).collect()
    return [
        (each.name, each.labels, each.value) for family in families if family.name == name for each in family.samples
    ]


def usage(world: World, name: str) -> float:
    """A metric of the only pool there is."""
    ((_, labels, found),) = samples(world, name)
    assert {"database", "user"} == labels.keys()
    return found


def spread(world: World, name: str) -> dict[str, float]:
    """A histogram of the only database there is: its buckets by bound, `sum` and `count`."""
    found = samples(world, name)
    values = {labels["le"]: value for each, labels, value in found if each.endswith("_bucket")}
    return values | {each.rpartition("_")[2]: value for each, _, value in found if not each.endswith("_bucket")}


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


def test_histograms_have_every_query_and_transaction_in_its_bucket() -> None:
    world = World(default_pool_size=2)
    client = world.client()
    client.says(query("SELECT 1"))
    world.edge.now += 0.003
    world.run()
    queries, transactions = spread(world, "pgweir_query_seconds"), spread(world, "pgweir_transaction_seconds")
    assert (queries["0.002"], queries["0.004"], queries["+Inf"], queries["count"]) == (0, 1, 1, 1)
    assert queries["sum"] == pytest.approx(0.003)
    assert (transactions["0.002"], transactions["0.004"], transactions["count"]) == (0, 1, 1)
    assert len(queries) == 21 + 2


def test_the_histogram_of_waits_counts_those_who_did_not_wait_too() -> None:
    world = World(default_pool_size=1)
    holder, waiter = world.client(), world.client()
    holder.query("BEGIN")
    waiter.says(query("SELECT 1"))
    world.edge.now += 1.5
    holder.query("COMMIT")
    world.run()
    waits = spread(world, "pgweir_wait_seconds")
    given = usage(world, "pgweir_pool_server_assignment_count")
    assert (waits["count"], waits["1.024"], waits["2.048"]) == (given, given - 1, given)
    assert waits["sum"] == pytest.approx(1.5)


def test_logins_of_clients_and_servers_are_timed() -> None:
    world = World(default_pool_size=1)
    client = world.client()
    client.query("SELECT 1")
    for name in ("pgweir_client_login_seconds", "pgweir_server_login_seconds"):
        assert spread(world, name)["count"] == 1


def test_who_waits_is_counted_by_what_keeps_them() -> None:
    world = World(default_pool_size=1)
    holder = world.client()
    holder.query("BEGIN")
    for _ in range(3):
        world.client().says(query("SELECT 1"))
    ((_, labels, found),) = samples(world, "pgweir_pool_waiting")
    assert (labels["cause"], found) == ("pool_size", 3)
    world.operations.pause()
    ((_, labels, found),) = samples(world, "pgweir_pool_waiting")
    assert (labels["cause"], found) == ("paused", 3)


def test_a_refused_configuration_shows_until_one_is_taken(service: HandService) -> None:
    service.reloads.refuse("pgbouncer.ini:3: no")
    assert value(service, "pgweir_configuration_refused") == 1
    service.reloads.took(1_700_000_000.0)
    assert value(service, "pgweir_configuration_refused") == 0
    assert value(service, "pgweir_configuration_applied_timestamp_seconds") == 1_700_000_000
    assert [value(service, "pgweir_reloads", outcome=outcome) for outcome in ("applied", "refused")] == [1, 1]


def test_a_hold_shows_its_age_and_its_ceiling(service: HandService) -> None:
    switchover.hold(service.pooler, "one", 60.0, ReleaseWhen.TOLD)
    service.edge.now += 2.0
    assert value(service, "pgweir_hold_age_seconds") == 2
    assert value(service, "pgweir_hold_ceiling_seconds") == 60


def test_tls_failures_are_counted_by_side_and_stage(service: HandService) -> None:
    service.pooler.tls_failures["client", "certificate"] = 2
    assert value(service, "pgweir_tls_failures", side="client", stage="certificate") == 2


def test_every_label_of_ours_is_one_that_is_bounded() -> None:
    bounded = {
        "database", "user", "cause", "reason", "stage", "side", "sqlstate", "ended_by", "outcome",
        "version", "form", "revision", "digest",
    }  # fmt: skip
    assert {label for family in OWN for label in family.labels} <= bounded


def test_a_scrape_that_fails_says_so_and_the_next_one_is_whole(
    service: HandService, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = metrics.PoolerCollector(service)
    with monkeypatch.context() as broken:
        broken.setattr(tables, "stats", lambda view: 1 / 0)
        found = {family.name: family.samples[0].value for family in collector.collect() if family.samples}
    assert found["cnp_pgbouncer_last_collection_error"] == found["cnp_pgbouncer_collection_errors"] == 1
    assert "pgweir_paused" not in found
    found = {family.name: family.samples[0].value for family in collector.collect() if family.samples}
    assert (found["cnp_pgbouncer_last_collection_error"], found["cnp_pgbouncer_collection_errors"]) == (0, 1)
    assert found["pgweir_paused"] == 0


def test_the_page_of_metrics_is_the_one_that_the_code_writes() -> None:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    fix = "run `python -m pgweir.admin.metrics_reference > docs/metrics.md`"
    assert page.read_text() == metrics_reference(), fix


def test_the_page_names_every_family_of_a_scrape(service: HandService) -> None:
    page = metrics_reference()
    registry = CollectorRegistry()
    registry.register(metrics.PoolerCollector(service))
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert f"| `{name}` | {kind}" in page, name


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


def test_the_console_shows_every_sample_of_a_scrape(service: HandService) -> None:
    """E40: for whoever has a console and no curl."""
    service.client()
    service.pooler.tls_failures["client", "certificate"] = 2
    told = [
        (sample.name, sorted(f'{name}="{value}"' for name, value in sample.labels.items()), sample.value)
        for name, family in families(service).items()
        if not name.startswith(tuple(f"cnp_pgbouncer_{each}" for each in ("collection", "last_collection", "up")))
        for sample in family.samples
    ]
    found = shown.table(service, "METRICS")
    assert found is not None
    rows = [
        (name, sorted(filter(None, str(labels).split(","))), float(str(value))) for name, labels, value in found.rows
    ]
    assert sorted(rows, key=repr) == sorted(told, key=repr)
    assert len(told) > 200


def test_the_log_line_of_totals_is_pgbouncers(service: HandService) -> None:
    service.client()
    line = metrics.stats_line(service.pooler)
    assert line.startswith("stats: 0 xacts/s, 0 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, ")
    assert line.endswith("in 0 B/s, out 0 B/s, xact 0 us, query 0 us, wait 0 us")
