"""SHOW's tables, over a pooler put together by hand."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir.admin.world import HandService

from pgweir.admin import tables
from pgweir.admin.tables import TABLES, View


def rows(service: HandService, name: str) -> list[dict[str, Any]]:
    return TABLES[name](View.of(service, wall=1_700_000_000.0)).dictionaries()


def pool(service: HandService, database: str = "app") -> dict[str, Any]:
    (row,) = [row for row in rows(service, "POOLS") if row["database"] == database]
    return row


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_as_many_values_as_the_table_has_columns(service: HandService, name: str) -> None:
    service.server()
    service.begin(service.client())
    service.client().data_received(b"Q\0\0\0\x05\0")
    service.console()
    table = TABLES[name](View.of(service, wall=1_700_000_000.0))
    for row in table.rows:
        assert len(row) == len(table.columns)
        for (_, oid), value in zip(table.columns, row, strict=True):
            assert value is None or isinstance(value, str if oid == 25 else int)


def test_clients_and_servers_are_counted_by_state(service: HandService) -> None:
    service.server()
    holder, waiter, _idle = service.client(), service.client(), service.client()
    assert (pool(service)["sv_idle"], pool(service)["cl_active"]) == (1, 3)
    service.begin(holder)
    waiter.data_received(b"Q\0\0\0\x05\0")
    service.edge.now += 2.5
    row = pool(service)
    assert (row["cl_active"], row["cl_waiting"], row["sv_active"], row["sv_idle"]) == (2, 1, 1, 0)
    assert (row["maxwait"], row["maxwait_us"]) == (2, 500_000)
    assert row["pool_mode"] == "transaction"


def test_the_console_is_a_pool_of_its_own(service: HandService) -> None:
    service.console()
    row = pool(service, "pgbouncer")
    assert (row["user"], row["cl_active"], row["pool_mode"]) == ("pgbouncer", 1, "statement")


def test_client_and_server_point_at_each_other(service: HandService) -> None:
    service.server(pid=77)
    service.begin(service.client(application_name="shop"))
    (client,) = rows(service, "CLIENTS")
    (server,) = rows(service, "SERVERS")
    assert (client["link"], client["ptr"]) == (server["ptr"], server["link"])
    assert (client["state"], client["application_name"], client["addr"]) == ("active", "shop", "10.9.9.9")
    assert (server["state"], server["remote_pid"], server["port"]) == ("active", 77, 5433)


def test_who_waits_sees_which_limit_and_which_backend(service: HandService) -> None:
    """The question that everybody asks, answered in one row."""
    service.server(pid=77)
    service.begin(service.client(application_name="report"))
    service.edge.now += 30
    service.client(application_name="shop").data_received(b"Q\0\0\0\x05\0")
    service.edge.now += 3
    (row,) = rows(service, "WAITERS")
    assert (row["application_name"], row["wait"], row["database"]) == ("shop", 3, "app")
    assert (row["holder_pid"], row["holder_application_name"], row["holder_seconds"]) == (77, "report", 33)
    assert row["holder_state"] == "idle in transaction"
    assert "login is in progress" in row["reason"]  # alice may have four


def test_a_full_pool_a_pause_and_a_failed_login_are_told_apart(service: HandService) -> None:
    service.server(user="bob")
    service.begin(service.client(user="bob"))
    service.client(user="bob").data_received(b"Q\0\0\0\x05\0")
    assert rows(service, "WAITERS")[0]["reason"] == "pool_size=1: all 1 servers are taken"
    service.operations.pause()
    assert rows(service, "WAITERS")[0]["reason"] == "paused"
    service.operations.resume()
    carol = service.client(user="carol")
    carol.data_received(b"Q\0\0\0\x05\0")
    carol.pool.proven = True
    service.pooler.opening.failed(service.edge.connects[-1], "no route", "08006", answered=False)
    reasons = {row["user"]: row["reason"] for row in rows(service, "WAITERS")}
    assert reasons["carol"].startswith("the last server login failed, next try in 0.2s: no route")


def test_databases_show_what_counts_for_them(service: HandService) -> None:
    found = {row["name"]: row for row in rows(service, "DATABASES")}
    assert list(found) == ["app", "two", "pgbouncer"]
    assert (found["app"]["host"], found["app"]["port"], found["app"]["pool_size"]) == ("10.0.0.1", 5433, 1)
    assert (found["two"]["database"], found["two"]["force_user"]) == ("other", "forced")
    assert found["two"]["load_balance_hosts"] == "round-robin"
    assert found["app"]["load_balance_hosts"] is None
    service.operations.pause("two")
    assert [row["paused"] for row in rows(service, "DATABASES")] == [0, 1, 0]


def test_users_show_their_own_limits(service: HandService) -> None:
    found = {row["name"]: row for row in rows(service, "USERS")}
    assert (found["alice"]["pool_size"], found["alice"]["max_user_connections"]) == ("        4", 7)
    assert {"admin", "stats", "forced", "pgbouncer"} <= set(found)


def test_times_are_microseconds_in_stats(service: HandService) -> None:
    stats = service.client().pool.stats
    stats.query_count, stats.query_time = 4, 0.25
    (row,) = [row for row in rows(service, "STATS") if row["database"] == "app"]
    assert (row["total_query_count"], row["total_query_time"], row["total_client_login_count"]) == (4, 250_000, 1)
    assert {row["name"]: row["value"] for row in rows(service, "TOTALS")}["total_query_time"] == 250_000


def test_config_has_every_setting_with_its_default(service: HandService) -> None:
    found = {row["key"]: row for row in rows(service, "CONFIG")}
    assert found["max_client_conn"] == {"key": "max_client_conn", "value": "50", "default": "100", "changeable": "yes"}
    assert found["listen_port"]["changeable"] == "no"
    assert found["conffile"]["value"] == str(service.config_path)


def test_pools_that_differ_in_relayed_parameters_are_one_row(service: HandService) -> None:
    entry = service.pooler.database("app")
    assert entry is not None
    service.client()
    service.pooler.pool(entry, "alice", {"options": "-c x=1"})
    assert pool(service)["user"] == "alice"


def test_view_turns_the_monotonic_clock_into_the_calendar(service: HandService) -> None:
    view = View.of(service, wall=1_700_000_000.0)
    assert view.time(view.now - 60)[:4] == "2023"
    assert tables.pointer(255) == "0xff"


def test_of_twenty_that_began_and_stopped_the_oldest_comes_first_with_its_name(service: HandService) -> None:
    """T02. They log in in another order than they begin, and who is in no transaction stands behind."""
    service.client(application_name="idle")
    clients = [service.client(application_name=f"leak-{number}") for number in range(20)]
    for client in reversed(clients):
        service.server()
        service.begin(client)
        service.edge.now += 10
    found = [(row["application_name"], row["addr"], row["transaction_seconds"]) for row in rows(service, "CLIENTS")]
    assert found == [
        *((f"leak-{number}", "10.9.9.9", (number + 1) * 10) for number in reversed(range(20))),
        ("idle", "10.9.9.9", None),
    ]


def test_failures_are_counted_by_kind(service: HandService) -> None:
    service.pooler.auth_failures["hba"] = 2
    service.pooler.server_login_errors["28P01"] = 1
    service.server()
    assert [tuple(row.values()) for row in rows(service, "FAILURES")] == [
        ("auth_stage", "hba", 2),
        ("server_login", "28P01", 1),
    ]
