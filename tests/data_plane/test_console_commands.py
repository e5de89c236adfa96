"""The console's tables and answers beside PgBouncer 1.18's own, and through drivers that speak the extended protocol alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import asyncpg
import psycopg
import pytest
from tests.pooler.console_columns import COLUMNS, OURS_BEHIND, RENAMED
from tests.pooler.process import ADMIN, SECRETS, PoolerProcess, eventually
from tests.pooler.wire import WireClient, query

from pgweir.protocol.messages import parse_row_description

MakePooler = Callable[..., PoolerProcess]

DATABASES = {"app": "host=127.0.0.1 port={port}", "two": "host=127.0.0.1 port={port} dbname=app"}


@pytest.fixture
def pooler(make_pooler: MakePooler) -> PoolerProcess:
    return make_pooler(databases=DATABASES)


@pytest.fixture
def console(pooler: PoolerProcess) -> Iterator[WireClient]:
    with WireClient(pooler.port) as client:
        yield client.log_in(ADMIN, "pgbouncer", SECRETS[ADMIN])


def answer(console: WireClient, text: str) -> str:
    """The tag, or the error's text."""
    console.say(query(text))
    (found,) = [each for each in console.until("Z") if each.type in "CE"]
    return found.fields["M"] if found.type == "E" else found.body.rstrip(b"\0").decode()


def test_every_table_has_pgbouncers_columns_in_order_and_with_their_types(
    pooler: PoolerProcess, console: WireClient
) -> None:
    """What 1.25 has beyond 1.18 is marked in the list, and checked to be the only difference."""
    for name, columns in COLUMNS.items():
        console.say(query(f"SHOW {name}"))
        heard = console.until("Z")
        expected = [*columns, *OURS_BEHIND.get(name, ())]
        if pooler.flavour == "pgbouncer":
            expected = [column for column in columns if column.since_118]
            if not expected:
                assert heard[0].type == "E", name
                continue
        found = parse_row_description(heard[0].body)
        if pooler.flavour == "pgbouncer":
            found = [(word, oid) for word, oid in found if word not in RENAMED]
        assert found == [(column.name, column.oid) for column in expected], name
        assert heard[-2].body == b"SHOW\0"


# In this order: each command's answer depends on those before it. Where 1.18 is another, it stands in 1.18's column.
SCENE: list[tuple[str, str, str | None]] = [
    ("FROB", "invalid command 'FROB', use SHOW HELP;", None),
    ("SHOW nosuch", "invalid command 'SHOW nosuch', use SHOW HELP;", None),
    ("SHOW POOLS x", "invalid command 'SHOW POOLS x', use SHOW HELP;", None),
    ("RELOAD x", "invalid command 'RELOAD x', use SHOW HELP;", None),
    ("SHUTDOWN foo", "invalid command 'SHUTDOWN foo', use SHOW HELP;", None),
    ("PAUSE app 30", "invalid command 'PAUSE app 30', use SHOW HELP;", None),
    ("PAUSE pgbouncer", "cannot pause admin db: pgbouncer", None),
    ("RESUME pgbouncer", "database pgbouncer is not paused", None),
    ("KILL pgbouncer", "cannot kill admin db: pgbouncer", None),
    ("RECONNECT pgbouncer", "cannot reconnect admin db: pgbouncer", None),
    ("DISABLE pgbouncer", "cannot disable admin db: pgbouncer", None),
    ("ENABLE pgbouncer", "cannot disable admin db: pgbouncer", None),
    ("WAIT_CLOSE pgbouncer", "cannot wait in admin db: pgbouncer", None),
    ("PAUSE nosuch", "no such database: nosuch", None),
    ("RESUME nosuch", "no such database: nosuch", None),
    ("KILL nosuch", "no such database: nosuch", None),
    ("RECONNECT nosuch", "no such database: nosuch", None),
    ("WAIT_CLOSE nosuch", "no such database: nosuch", None),
    ("DISABLE nosuch", "no such database: nosuch", None),
    ("DISABLE", "a database is required", None),
    ("ENABLE", "a database is required", None),
    ("RESUME", "pooler is not paused/suspended", None),
    ("RESUME app", "database app is not paused", None),
    ("PAUSE app", "PAUSE", None),
    ("pause  app ;", "PAUSE", None),
    ("PAUSE", "PAUSE", None),
    ("PAUSE", "already suspended/paused", None),
    ("PAUSE app", "already suspended/paused", None),
    ("KILL app", "already suspended/paused", None),
    ("RESUME", "RESUME", None),
    ('RESUME "app"', "RESUME", None),
    ("RESUME app", "database app is not paused", None),
    ("KILL app", "KILL", None),
    ("RESUME", "pooler is not paused/suspended", None),
    ("RESUME app", "RESUME", None),
    ("DISABLE app", "DISABLE", None),
    ("DISABLE app", "DISABLE", None),
    ("ENABLE app", "ENABLE", None),
    ("RECONNECT", "RECONNECT", None),
    ("RECONNECT app", "RECONNECT", None),
    ("WAIT_CLOSE", "WAIT_CLOSE", None),
    ("WAIT_CLOSE app", "WAIT_CLOSE", None),
    ("RELOAD", "RELOAD", None),
    ("SET query_wait_timeout = 5", "SET query_wait_timeout=5", None),
    ("set query_wait_timeout to '6'", "SET query_wait_timeout=6", None),
    ("SET nosuch = 1", "SET failed", None),
    ("SET client_encoding to 'UTF8'", "SET", None),
    ("KILL_CLIENT abc", "invalid client pointer supplied", "invalid command 'KILL_CLIENT abc', use SHOW HELP;"),
    ("KILL_CLIENT 99999", "client not found", "invalid command 'KILL_CLIENT 99999', use SHOW HELP;"),
    ("KILL", "KILL", "a database is required"),
    ("RESUME app", "RESUME", "database app is not paused"),
    ("SUSPEND", "SUSPEND is not supported: it serves PgBouncer's online restart alone", "SUSPEND"),
]


def test_each_command_answers_in_pgbouncers_words(pooler: PoolerProcess, console: WireClient) -> None:
    for text, ours, theirs in SCENE:
        expected = theirs if theirs is not None and pooler.flavour == "pgbouncer" else ours
        assert answer(console, text) == expected, text


def test_asyncpg_which_speaks_no_simple_protocol_reads_and_commands(pooler: PoolerProcess) -> None:
    async def story() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=pooler.port, user=ADMIN, password=SECRETS[ADMIN], database="pgbouncer"
        )
        try:
            lists = {row["list"]: row["items"] for row in await connection.fetch("SHOW LISTS")}
            assert lists["databases"] == 3
            totals = await connection.fetch("SHOW STATS")
            assert totals[0]["total_query_count"] >= 0
            assert (await connection.fetchrow("SHOW POOLS"))["pool_mode"]
            assert str(await connection.fetchval("SHOW VERSION")).startswith("PgBouncer")
            assert await connection.execute("PAUSE app") == "PAUSE"
            with pytest.raises(asyncpg.PostgresError, match="no such database: nosuch") as caught:
                await connection.fetch("RESUME $1", "nosuch")
            assert caught.value.sqlstate == "3D000"
            assert await connection.fetch("RESUME $1", "app") == []
            async with connection.transaction():
                assert [row["key"] async for row in connection.cursor("SHOW STATE", prefetch=1)] == [
                    *("active", "paused", "suspended")
                ]
        finally:
            await connection.close()

    asyncio.run(story())


def test_psycopg_with_parameters_and_in_binary(pooler: PoolerProcess) -> None:
    with (
        pooler.wire(application_name="leak") as leak,
        psycopg.connect(pooler.conninfo(ADMIN, "pgbouncer"), autocommit=True) as console,
    ):
        leak.ask("BEGIN")
        cursor = console.cursor(binary=True)
        assert cursor.execute("SHOW LISTS").description is not None
        assert dict(cursor.fetchall())["databases"] == 3
        cursor.execute("SHOW CLIENTS")
        names = [column.name for column in cursor.description or ()]
        (row,) = [row for row in cursor.fetchall() if row[names.index("application_name")] == "leak"]
        assert row[names.index("transaction_seconds")] is not None
        console.execute("KILL_CLIENT %s", [row[names.index("id")]])
        assert leak.until("E")[-1].fields["C"] == "57P01"


def test_a_pause_with_a_deadline_names_the_holder_and_lets_everybody_go_on(
    pooler: PoolerProcess, console: WireClient
) -> None:
    with pooler.wire(application_name="report") as holder, pooler.wire() as other:
        holder.ask("BEGIN")
        console.say(query("PAUSE app TIMEOUT 0.5"))
        other.say(query("SELECT 1"))
        error = console.expect_error("55P03", "PAUSE was not complete after 0.5 s")
        assert "alice, report" in error.fields["D"]
        other.until("Z")
        holder.ask("COMMIT")


def test_a_node_goes_down_with_its_host_and_comes_up_again_by_itself(make_pooler: MakePooler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        pooler = make_pooler(databases={"app": f"host=127.0.0.1 port={port}"})
        eventually(lambda: pooler.console("SHOW POOL_NODES")[0]["status"] == "up")
    assert pooler.console("show pool nodes")[0]["status"] == "down"
    with socket.create_server(("127.0.0.1", port)):
        assert pooler.console("SHOW POOL_NODES")[0]["status"] == "up"


def test_the_role_of_a_node_is_what_its_server_says(pooler: PoolerProcess, console: WireClient) -> None:
    with pooler.connect() as client:
        client.execute("SELECT 1")
        (node,) = pooler.console("SHOW POOL_NODES")
        assert (node["status"], node["role"]) == ("up", "primary")
        (process,) = pooler.console("SHOW POOL_PROCESSES")
        assert (process["username"], process["status"]) == ("alice", "Idle")
        (pool,) = pooler.console("SHOW POOL_POOLS")
        assert (pool["database"], pool["status"], pool["pool_connected"]) == ("app", "Idle", "0")
