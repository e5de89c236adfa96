"""How a client proves itself, by the methods that need somebody else: a directory, the socket, a certificate, a look-up. And
what the log knows that the client does not."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.pooler.directory import ADMIN_DN, ADMIN_PASSWORD, PEOPLE, small_directory
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import WireClient, message, say_to_the_end, ssl_request, startup
from tests.postgres.certificates import Certificates
from tests.postgres.server import AUTH_QUERY

MakePooler = Callable[..., PoolerProcess]


def refusal(pooler: PoolerProcess, user: str, database: str = "app", secret: str = "wrong") -> dict[str, str]:
    with WireClient(pooler.port) as client:
        client.say(startup(user=user, database=database))
        return client.login_error(user, secret)


def test_a_directory_knows_the_password_and_it_opens_the_server_too(make_pooler: MakePooler) -> None:
    """bob's password in the directory is the one that PostgreSQL has; the pooler itself knows none."""
    with small_directory(bob=SECRETS["bob"]) as directory:
        options = f'ldapbasedn="{PEOPLE}" ldapbinddn="{ADMIN_DN}" ldapbindpasswd={ADMIN_PASSWORD}'
        rule = f"host all all 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={directory.port} {options}"
        pooler = make_pooler(hba=["host pgbouncer all all md5", rule], userlist={"admin": SECRETS["admin"]})
        with pooler.connect("bob") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("bob",)
        told = refusal(pooler, "bob")
        assert (told["C"], told["M"]) == ("28000", 'LDAP authentication failed for user "bob"')
        assert refusal(pooler, "nobody")["M"] == 'LDAP authentication failed for user "nobody"'
        asked = len(directory.asked)
        assert refusal(pooler, "bob", secret="")["M"] == "empty password returned by client"
        assert len(directory.asked) == asked
        pooler.wait_for_log("no such user in the directory auth_stage=ldap")


def test_auth_type_ldap_and_a_directory_that_is_slow_delays_nobody_else(make_pooler: MakePooler) -> None:
    with small_directory(bob=SECRETS["bob"]) as directory:
        simple = f'ldapprefix="cn=" ldapsuffix=",{PEOPLE}"'
        pooler = make_pooler(
            auth_type="ldap", auth_ldap_options=f"ldapserver=127.0.0.1 ldapport={directory.port} {simple}",
            databases={"*": "host=127.0.0.1 port={port} user=alice"},
        )  # fmt: skip
        directory.may_answer.clear()
        with WireClient(pooler.port) as waiting:
            waiting.say(startup(user="person 1", database="app"))
            waiting.expect("R")
            waiting.say(message("p", SECRETS["bob"].encode() + b"\0"))
            with WireClient(pooler.port) as other:  # the process serves meanwhile
                other.say(startup(user="person 0", database="app"))
                other.expect("R")
            directory.may_answer.set()
            assert waiting.until("Z")[-1].body == b"I"


def test_the_peer_of_the_socket_is_who_the_map_says(make_pooler: MakePooler, tmp_path: Any) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    ident = tmp_path / "ident.conf"
    ident.write_text(f"staff {me} alice\nstaff /^{me[:-1]}(.)$ carol\\1\n")
    pooler = make_pooler(hba=["local all all peer map=staff"], auth_ident_file=ident)
    folder = str(pooler.directory)
    with psycopg.connect(pooler.conninfo("alice", host=folder, password="")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("alice",)
    with pytest.raises(psycopg.OperationalError, match='Peer authentication failed for user "bob"'):
        psycopg.connect(pooler.conninfo("bob", host=folder, password=""))
    pooler.wait_for_log("auth_stage=peer")


def test_four_wrong_set_ups_have_four_stages_and_the_client_hears_postgresql(make_pooler: MakePooler) -> None:
    """T05: our HBA, our password, our look-up, PostgreSQL."""
    pooler = make_pooler(
        hba=["host nowhere all all md5", "host app all 127.0.0.1/32 md5", "host pgbouncer all all md5"],
        auth_user="pooler_auth", auth_query=AUTH_QUERY,
        databases={"*": "host=127.0.0.1 port={port} auth_dbname=postgres"},
        userlist={"pooler_auth": SECRETS["pooler_auth"], "admin": SECRETS["admin"], "alice": "not-postgresqls"},
    )  # fmt: skip
    told = {
        "hba": refusal(pooler, "bob", "template1"),
        "password": refusal(pooler, "alice"),
        "auth_query": refusal(pooler, "mallory"),
        "server": refusal(pooler, "alice", secret="not-postgresqls"),
    }
    assert told["hba"]["M"] == (
        'no pg_hba.conf entry for host "127.0.0.1", user "bob", database "template1", no encryption'
    )
    assert told["hba"]["C"] == "28000"
    for stage, user in (("password", "alice"), ("auth_query", "mallory"), ("server", "alice")):
        assert (told[stage]["C"], told[stage]["M"]) == ("28P01", f'password authentication failed for user "{user}"')
    for stage in told:
        pooler.wait_for_log(f"auth_stage={stage}")
    counted = {labels["stage"]: count for labels, count in pooler.metrics()["pgweir_auth_failures_total"]}
    assert counted == dict.fromkeys(told, 1.0)


def test_a_look_up_that_cannot_run_is_no_wrong_password(make_pooler: MakePooler) -> None:
    pooler = make_pooler(
        auth_type="md5", auth_user="pooler_auth", auth_query="SELECT 1, 2, 3 WHERE $1 <> ''",
        userlist={"pooler_auth": SECRETS["pooler_auth"], "admin": SECRETS["admin"]},
    )  # fmt: skip
    with WireClient(pooler.port) as client:
        client.say(startup(user="bob", database="app"))
        told = client.hear().fields
    assert (told["C"], told["M"]) == ("F0000", "bouncer config error")
    pooler.wait_for_log("it gives 3")


@pytest.mark.parametrize("auth_type", ["plain", "scram-sha-256"])
def test_a_stranger_takes_as_long_as_a_wrong_password(make_pooler: MakePooler, auth_type: str) -> None:
    """T06. Generous; both in turn, and the quickest of each, so that a busy machine is as slow to the one as to the other."""
    pooler = make_pooler(auth_type=auth_type)
    refusal(pooler, "alice")  # makes the verifier of a plain secret, once

    times: dict[str, list[float]] = {"alice": [], "mallory": []}
    for _ in range(15):
        for user, taken in times.items():
            start = time.perf_counter()
            refusal(pooler, user)
            taken.append(time.perf_counter() - start)
    known, unknown = min(times["alice"]), min(times["mallory"])
    assert abs(known - unknown) < 0.02 + 0.5 * max(known, unknown), (known, unknown)


def test_a_thousand_bare_connects_leave_no_trace(make_pooler: MakePooler) -> None:
    """T10: what `nc -z` does, which is what load balancers do all day."""
    pooler = make_pooler(max_client_conn=10, tcp_defer_accept=0)
    before = pooler.log()
    for _ in range(1000):
        socket.create_connection(("127.0.0.1", pooler.port), timeout=30).close()
    eventually(lambda: {row["list"]: row["items"] for row in pooler.console("SHOW LISTS")}["login_clients"] == 0)
    added = [line for line in pooler.log().removeprefix(before).splitlines() if "pgbouncer/admin" not in line]
    assert [line for line in added if " WARNING " in line or " ERROR " in line or "closing" in line] == []
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_connections_that_say_nothing_take_no_place_and_the_oldest_of_many_goes(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=2, tcp_defer_accept=0)
    with pooler.connect() as connection:
        silent = [socket.create_connection(("127.0.0.1", pooler.port), timeout=10) for _ in range(150)]
        with pooler.connect("bob") as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
        silent[0].settimeout(10)
        assert silent[0].recv(10) == b""  # a hundred may be silent
        assert connection.execute("SELECT 1").fetchone() == (1,)
        for each in silent:
            each.close()


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\x27\x11\0\3\0\0",  # a startup packet of 10,001 bytes
        b"\0\0\0\7\0\3\0\0",
        b"\xff" * 100,
        b"\x16\x03\x01\x02\x00" + bytes(50),
        b"\0\0\0\x08\x04\xd2\x16\x2f" * 3,
    ],
)
def test_noise_at_the_door_is_shown_out(noise: bytes, shared: PoolerProcess) -> None:
    with WireClient(shared.port) as client:
        say_to_the_end(client.socket, noise)
    with WireClient(shared.port) as client:
        client.say(ssl_request())
        assert client.read(1) in (b"N", b"S")
    assert shared.is_running


@pytest.fixture
def shared(make_pooler: MakePooler) -> PoolerProcess:
    return make_pooler()


def test_a_certificate_logs_in_under_the_name_that_a_map_gives(
    make_pooler: MakePooler, certificates: Certificates, tmp_path: Any
) -> None:
    ident = tmp_path / "ident.conf"
    ident.write_text("certs /^al(.*)$ bob\n")
    pooler = make_pooler(
        hba=["hostssl all all all cert map=certs", "hostnossl pgbouncer all all md5"], auth_ident_file=ident,
        client_tls_sslmode="prefer", client_tls_ca_file=certificates.ca,
        client_tls_cert_file=certificates.server.certificate, client_tls_key_file=certificates.server.key,
    )  # fmt: skip
    shown = {"sslmode": "require", "sslcert": certificates.client_alice.certificate}
    shown |= {"sslkey": certificates.client_alice.key}
    with pooler.connect("bob", **shown) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("bob",)
    with pytest.raises(psycopg.OperationalError, match='certificate authentication failed for user "alice"'):
        pooler.connect("alice", **shown)
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry for .* no encryption"):
        pooler.connect("bob", sslmode="disable")
