"""pgpool's views over our pools (T19, T20, B18), and why a pool is not reused (B25)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.pgweir.admin.world import ConsoleTalk, HandService

from pgweir.admin.nodes import Nodes
from pgweir.protocol.messages import parse_row_description


def rows(console: ConsoleTalk, text: str) -> list[dict[str, Any]]:
    found = console.ask(text)
    assert [each.type for each in found[-2:]] == ["C", "Z"], found
    names = [name for name, _ in parse_row_description(found[0].body)]
    values = [[None if v is None else v.decode() for v in each.values] for each in found if each.type == "D"]
    return [dict(zip(names, row, strict=True)) for row in values]


@pytest.mark.parametrize("text", ["SHOW POOL_NODES", "show pool_nodes;", "Show Pool Nodes", "SHOW pool  NODES ;"])
def test_every_spelling_of_a_view_is_understood(console: ConsoleTalk, text: str) -> None:
    assert [row["hostname"] for row in rows(console, text)] == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]


def test_nodes_are_the_hosts_of_all_databases(service: HandService, console: ConsoleTalk) -> None:
    service.pooler.standbys["10.0.0.2", 5432] = True
    service.pooler.standbys["10.0.0.1", 5433] = False
    app, first, second = rows(console, "SHOW POOL_NODES")
    assert (app["node_id"], app["port"], app["lb_weight"], app["role"]) == ("0", "5433", "1.000000", "primary")
    assert (first["node_id"], first["port"], first["lb_weight"], first["role"]) == ("1", "5432", "0.500000", "unknown")
    assert (second["status"], second["pg_status"], second["role"], second["pg_role"]) == (
        *("up", "up"),
        *("standby", "standby"),
    )


def test_a_node_goes_down_and_comes_up_without_anybody_attaching_it(service: HandService, console: ConsoleTalk) -> None:
    before = rows(console, "SHOW POOL_NODES")[2]
    service.nodes.down.add("10.0.0.2")
    service.nodes.now += 60
    down = rows(console, "SHOW POOL_NODES")[2]
    service.nodes.down.clear()
    up = rows(console, "SHOW POOL_NODES")[2]
    assert [row["status"] for row in (before, down, up)] == ["up", "down", "up"]
    assert before["last_status_change"] < down["last_status_change"] == up["last_status_change"]


def test_a_look_sees_what_listens_and_a_name_that_breaks_changes_nothing(tmp_path: Path) -> None:
    """One failed lookup decides nothing (T24)."""

    async def story() -> list[str]:
        nodes, told = Nodes(), asyncio.Event()
        tcp = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        unix = await asyncio.start_unix_server(lambda reader, writer: writer.close(), tmp_path / ".s.PGSQL.5432")
        nodes.note(("no-such-name.invalid", 1), True, 1.0)
        addresses = [("127.0.0.1", port), (str(tmp_path), 5432), ("no-such-name.invalid", 1)]

        async def look() -> list[str]:
            told.clear()
            nodes.look(addresses, told.set)
            await told.wait()
            return [nodes.seen(address).status for address in addresses]

        first = await look()
        for server in (tcp, unix):
            server.close()
            await server.wait_closed()
        return first + await look()

    assert asyncio.run(story()) == ["up", "up", "up", "down", "down", "up"]


def test_a_client_goes_through_pgpools_four_states(service: HandService, console: ConsoleTalk) -> None:
    server = service.server(user="bob", pid=77)
    client, rival = service.client(user="bob"), service.client(user="bob")

    def process() -> dict[str, Any]:
        return next(row for row in rows(console, "SHOW POOL_PROCESSES") if row["pool_pid"] == str(client.id))

    assert (process()["status"], process()["backend_connection_time"]) == ("Idle", "")
    service.begin(client)
    assert process()["status"] == "Idle in transaction"
    server.query_open = True
    assert process()["status"] == "Execute command"
    assert (process()["database"], process()["username"], process()["pool_counter"]) == ("app", "bob", "1")
    assert process()["backend_connection_time"]
    server.query_open = False
    server.release(service.edge.now)
    service.begin(rival)
    client.data_received(b"Q\0\0\0\x05\0")
    assert process()["status"] == "Wait for connection"


def test_pools_are_the_server_connections_that_exist(service: HandService, console: ConsoleTalk) -> None:
    service.server(pid=77)
    holder = service.client()
    service.begin(holder)
    service.server(pid=78)
    service.edge.now += 5
    held, free = rows(console, "SHOW POOL POOLS")
    assert (held["pool_pid"], held["pool_backendpid"], held["pool_connected"]) == (str(holder.id), "77", "1")
    assert (held["status"], held["client_host"], held["client_port"]) == ("Idle in transaction", "10.9.9.9", "4444")
    assert (held["database"], held["username"], held["majorversion"], held["backend_id"]) == ("app", "alice", "3", "0")
    assert (free["pool_pid"], free["pool_backendpid"], free["pool_connected"], free["status"]) == (
        "0",
        "78",
        "0",
        "Idle",
    )
    assert free["client_disconnection_time"]
    assert not held["client_disconnection_time"]


def test_a_pool_that_is_not_reused_names_the_field_that_differs(service: HandService, console: ConsoleTalk) -> None:
    """B25: change one startup parameter, and that is the field."""
    one, two, bob = service.client(), service.client(application_name="shop"), service.client(user="bob")
    assert [row["differs_in"] for row in rows(console, f"SHOW REUSE {bob.id}")] == ["user"]
    entry = service.pooler.database("app")
    assert entry is not None
    two.pool.clients.discard(two)
    two.pool = service.pooler.pool(entry, "alice", {"search_path": "shop"})
    two.pool.clients.add(two)
    (row,) = rows(console, f"SHOW REUSE {two.id}")
    assert (row["differs_in"], row["client_value"], row["other_value"]) == ("search_path", "shop", None)
    assert (row["other_pool"], row["application_name"], row["startup_parameters"]) == (
        *("app/alice", "shop"),
        "search_path=shop",
    )
    assert {row["client_id"] for row in rows(console, "SHOW REUSE")} == {str(each.id) for each in (one, two, bob)}
    assert console.error("SHOW REUSE abc") == ("22023", "invalid client pointer supplied")


def test_a_client_whose_pool_is_the_only_one_has_nothing_to_be_compared_with(
    service: HandService, console: ConsoleTalk
) -> None:
    service.client()
    assert [row["differs_in"] for row in rows(console, "SHOW REUSE")] == [None]
