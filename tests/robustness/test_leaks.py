"""Whatever comes and goes, nothing of it stays: objects by type return to what they were, and without the collector's help.

What holds itself in a circle waits for the collector with its buffers and its TLS state; that costs memory and pauses.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.pooler.process import SECRETS, eventually
from tests.pooler.wire import LoginRefused, WireClient, cancel_request, query, ssl_request, startup, sync
from tests.postgres.certificates import Certificates
from tests.postgres.server import PostgresServer
from tests.robustness.probe import Probed

from pgweir.session.startups import MAX_KNOWN_STARTUPS

SETTINGS: dict[str, object] = {
    "auth_type": "trust",
    "default_pool_size": 4,
    "server_login_retry": 0.1,
    "autodb_idle_timeout": 1,
    "client_login_timeout": 2,
    "log_connections": 0,
    "log_disconnections": 0,
    "log_pooler_errors": 0,
}


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer, certificates: Certificates) -> Iterator[Probed]:
    tls = {
        "client_tls_sslmode": "allow",
        "client_tls_cert_file": certificates.server.certificate,
        "client_tls_key_file": certificates.server.key,
    }
    with Probed(postgres.port, settings={**SETTINGS, **tls}) as running:
        yield running


# What is kept to be used again, up to a bound: a startup packet with what it led to.
KEPT = {
    "pgweir.protocol.startup.StartupPlan": MAX_KNOWN_STARTUPS,
    "pgweir.session.startups.KnownStartup": MAX_KNOWN_STARTUPS,
    "pgweir.settings.entries.DatabaseSettings": MAX_KNOWN_STARTUPS,
}

Round = Callable[[Probed, int], None]


def come_and_go(pooler: Probed, number: int) -> None:
    with WireClient(pooler.port) as client:
        client.log_in("alice", "app", application_name=f"leak {number}")
        client.ask(f"SELECT {number}")


def leave_rudely(pooler: Probed, number: int) -> None:
    """In the middle of a query, a transaction, a login."""
    with WireClient(pooler.port) as client:
        if number % 3 == 0:
            client.say(startup(user="alice", database="app")[: number % 30])
            return
        client.log_in("alice", "app")
        client.say(query("BEGIN" if number % 3 == 1 else "SELECT pg_sleep(0.001)"), sync()[: number % 5])


def fail_to_log_in(pooler: Probed, number: int) -> None:
    user, database = [("nobody", "app"), ("mallory", "pgbouncer")][number % 2]
    with WireClient(pooler.port) as client, pytest.raises(LoginRefused):
        client.log_in(user, database)


def break_off_tls(pooler: Probed, number: int) -> None:
    with WireClient(pooler.port) as client:
        client.say(ssl_request())
        assert client.read(1) == b"S"
        client.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: number % 12])
        if number % 2:
            client.say(secrets.token_bytes(number % 700))


def use_tls(pooler: Probed, number: int) -> None:
    with WireClient(pooler.port) as client:
        client.start_tls()
        client.log_in("alice", "app")
        client.ask("SELECT 1")


def cancel(pooler: Probed, number: int) -> None:
    if number % 10:
        with WireClient(pooler.port) as client:
            client.say(cancel_request(number, number))
            client.expect_closed()
        return
    with WireClient(pooler.port) as client, WireClient(pooler.port) as canceling:
        client.log_in("alice", "app")
        client.say(query("SELECT pg_sleep(0.002)"))
        canceling.say(cancel_request(client.pid, client.key))
        client.until("Z")


def reload(pooler: Probed, number: int) -> None:
    pooler.settings["default_pool_size"] = 3 + number % 2
    pooler.write_files()
    with WireClient(pooler.port) as client:
        client.log_in("admin", "pgbouncer", SECRETS["admin"])
        client.ask("RELOAD")


def new_database(pooler: Probed, number: int) -> None:
    """A name that the `*` template takes; PostgreSQL has no such database, and says so."""
    with WireClient(pooler.port) as client:
        client.say(startup(user="alice", database=f"database {number}"))
        client.until_closed()


@pytest.mark.parametrize(
    ("round_", "count"),
    [
        (come_and_go, 2000),
        (leave_rudely, 500),
        (fail_to_log_in, 500),
        (break_off_tls, 500),
        (use_tls, 100),
        (cancel, 500),
        (reload, 200),
        (new_database, 100),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_nothing_stays(pooler: Probed, round_: Round, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(count // 10):  # what is made once is there from now on
        round_(pooler, number)
    before = settled(pooler, round_)
    memory = pooler.rss()
    pooler.look("reset")
    for number in range(count):
        round_(pooler, number)
    after = settled(pooler, round_)
    grown = pooler.rss() - memory
    with capsys.disabled():
        objects = after["objects"] - before["objects"]
        print(
            f"\n{count} x {round_.__name__}: {objects:+d} objects, {grown:+d} KiB, {after['cycles']} in cycles", end=" "
        )
    more = {kind: (before["types"].get(kind, 0), found) for kind, found in after["types"].items()}
    assert {kind: pair for kind, pair in more.items() if pair[1] > pair[0] + SLACK + KEPT.get(kind, 0)} == {}
    kept = sum(pair[1] - pair[0] for kind, pair in more.items() if kind in KEPT)
    assert after["objects"] - before["objects"] - kept < count / 4 + 50
    assert after["cycles"] < 50 + count / 10
    assert grown < 4096 + count


SLACK = 5  # a pool of four may have more or fewer servers; the probe has a connection


def settled(pooler: Probed, round_: Round) -> dict[str, Any]:
    """The objects when everybody has left and every deadline has passed."""
    eventually(lambda: pooler.sockets()["clients"] == 0, "no client is left")
    socket.create_connection(("127.0.0.1", pooler.port)).close()
    seen: list[dict[str, Any]] = []

    def steady() -> bool:
        seen.append(pooler.look())
        kinds = {kind: count for kind, count in seen[-1]["types"].items() if kind.startswith("pgweir.session")}
        waiting = kinds.get("pgweir.session.client_login.ClientLogin", 0) + kinds.get(
            "pgweir.session.client.ClientSession", 0
        )
        few = kinds.get("pgweir.session.server.ServerSession", 0) <= 4
        databases = kinds.get("pgweir.session.database.Database", 0) <= 2 or round_ is not new_database
        return waiting == 0 and few and databases and len(seen) > 2

    eventually(steady, "everybody has gone")
    return seen[-1]
