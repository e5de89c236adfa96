"""`pgweir doctor` at real poolers with one thing wrong at a time: it names that, and nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.pgweir_operator.cli.test_files import pgweir
from tests.pooler.process import ADMIN, FLAVOUR, SECRETS, PoolerProcess, eventually
from tests.postgres.certificates import Certificates
from tests.postgres.server import PostgresServer, free_port

pytestmark = pytest.mark.skipif(FLAVOUR != "pgweir", reason="the doctor is ours")


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    """With nothing wrong; who breaks it mends it."""
    with PoolerProcess(postgres.port, settings={"default_pool_size": 20}) as made:
        yield made
    postgres.terminate_clients()


def doctor(pooler: PoolerProcess | None, *options: object, url: object = "", **login: object) -> tuple[int, Any]:
    """Exit code and what it found, as JSON."""
    words: list[object] = []
    if pooler is not None:
        words = [pooler.conninfo(**login), "--url", url or pooler.directory]  # type: ignore[arg-type]
    # Where a third of a second is slow, a machine that is busy with other tests is.
    code, printed, told = pgweir("doctor", *words, "--json", "--tries", 5, "--threshold", 10_000, *options)
    assert printed, told
    return code, json.loads(printed)


def codes(found: Any) -> list[str]:
    return [finding["code"] for finding in found["findings"]]


def administrator(server: PostgresServer) -> str:
    return server.connection_string("postgres", dbname="postgres", sslmode="disable")


def test_where_nothing_is_wrong_nothing_is_found(postgres: PostgresServer, pooler: PoolerProcess) -> None:
    code, found = doctor(pooler, "--tries", 20, "--burst", 1, "--backend", administrator(postgres))
    assert (code, found["findings"], found["notes"]) == (0, [], [])
    assert list(found["stages_ms"]) == ["dns", "tcp", "tls", "auth", "queue", "backend"]
    assert found["tries"] == 20
    assert found["burst"]["done"] > 0
    rest = f"http://127.0.0.1:{pooler.http_port}"
    assert doctor(pooler, url=rest)[1]["findings"] == []
    code, printed, _ = pgweir(
        "doctor", pooler.conninfo(), "--url", pooler.directory, "--tries", 1, "--threshold", 10_000
    )
    assert code == 0
    assert printed.startswith("nothing is wrong")


def test_without_a_console_waiting_and_postgresql_are_one_stage_and_a_note_says_why(postgres: PostgresServer) -> None:
    """Any PostgreSQL will do, as any pooler does."""
    code, printed, _ = pgweir("doctor", postgres.connection_string(), "--json", "--tries", 3, "--url", "/nowhere")
    found = json.loads(printed)
    assert (code, codes(found)) == (12, ["console-unreachable"])
    assert "answer" in found["stages_ms"]


@contextlib.contextmanager
def sleeper(pooler: PoolerProcess, **login: Any) -> Iterator[None]:
    with pooler.connect(application_name="sleeper", **login) as client:
        thread = threading.Thread(target=_sleep, args=[client], daemon=True)
        thread.start()
        eventually(lambda: any(row["state"] == "active" for row in pooler.console("SHOW SERVERS")))
        try:
            yield
        finally:
            client.cancel()
            thread.join(timeout=60)


def _sleep(client: Any) -> None:
    with contextlib.suppress(Exception):
        client.execute("SELECT pg_sleep(60)")


def test_the_limit_for_which_clients_wait_is_named_with_who_holds(pooler: PoolerProcess) -> None:
    """T03, T13: the queue, and not the backend. A late backend, and max_connections: e2e/scenarios/test_doctor.py."""
    pooler.connect().close()
    # Servers that an earlier test left idle would serve whoever is to wait.
    pooler.console("PAUSE")
    pooler.console("RESUME")
    with sleeper(pooler):
        for setting in ("default_pool_size", "max_db_connections", "max_user_connections", "max_server_connections"):
            (before,) = [row["value"] for row in pooler.console("SHOW CONFIG") if row["key"] == setting]
            pooler.console(f"SET {setting} = 1")
            code, found = doctor(pooler, "--patience", 0.4)
            pooler.console(f"SET {setting} = {before}")
            limit = setting.removeprefix("default_")
            assert (code, codes(found)) == (14, [f"queue-{limit.replace('_', '-')}"])
            said = "\n".join(found["findings"][0]["evidence"])
            assert "stage queue" in said
            assert "sleeper" in said


def test_a_pooler_that_lets_nobody_in_names_max_client_conn(postgres: PostgresServer) -> None:
    """T03."""
    with PoolerProcess(postgres.port, settings={"max_client_conn": 1}) as pooler, pooler.connect():
        code, found = doctor(pooler, url=f"http://127.0.0.1:{pooler.http_port}")
        assert (code, codes(found)) == (14, ["limit-max-client-conn"])
        assert "max_client_conn = 1" in found["findings"][0]["evidence"]


def test_a_backlog_that_runs_over_is_named(postgres: PostgresServer) -> None:
    """T03: the process stands still, and the kernel's queue is full."""
    with PoolerProcess(postgres.port, settings={"listen_backlog": 2}) as pooler, contextlib.ExitStack() as crowd:
        pooler.signal(signal.SIGSTOP)
        for _ in range(6):
            client = crowd.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", pooler.port))
        code, found = doctor(pooler, "--timeout", 0.5, "--patience", 0.5)
        pooler.signal(signal.SIGCONT)
        assert (code, codes(found)) == (14, ["limit-backlog"])


def test_who_refused_a_login_is_told_from_four_layers(postgres: PostgresServer) -> None:
    """T05: four wrong logins, four auth_stages."""
    lookup = {"auth_user": "bob", "auth_query": "SELECT nothing FROM nowhere WHERE x = $1"}
    users = {"bob": SECRETS["bob"], ADMIN: SECRETS[ADMIN], "alice": "not PostgreSQL's"}
    lines = ["host app bob 127.0.0.1/32 reject", "host all all 127.0.0.1/32 scram-sha-256", "local all all trust"]
    with PoolerProcess(postgres.port, settings=lookup, userlist=users, hba=lines) as pooler:
        stages = [
            doctor(pooler, user="bob"),
            doctor(pooler, password="wrong"),
            doctor(pooler, user="carol", password="unknown"),
            doctor(pooler, password="not PostgreSQL's"),
        ]
    expected = [f"login-refused-{stage}" for stage in ("hba", "password", "auth-query", "server")]
    assert [(code, codes(found)) for code, found in stages] == [(12, [code]) for code in expected]
    postgres.terminate_clients()


def test_transactions_left_open_are_counted_grouped_and_led_back_to_their_clients(
    postgres: PostgresServer, pooler: PoolerProcess
) -> None:
    """T02: twenty that BEGIN and stop, by application, the oldest first. T21: half of the sessions at PostgreSQL itself."""
    pooler.console("RECONNECT")
    postgres.terminate_clients()
    with contextlib.ExitStack() as clients:
        found = []
        for number in range(20):
            name = "month_end" if number < 8 else f"shop-{number}"
            found.append(clients.enter_context(pooler.connect(application_name=name)))
            found[-1].execute("BEGIN")
            time.sleep(1.0 if number == 7 else 0)
        time.sleep(1.1)
        code, seen = doctor(pooler, "--stuck", 1, "--patience", 1)
        assert (code, codes(seen)) == (14, ["leaks"])
        finding = seen["findings"][0]
        assert finding["what"].startswith("20 clients")
        groups = ["month_end at 127.0.0.1: 8 clients", *(f"shop-{n} at 127.0.0.1: 1 clients" for n in range(8, 20))]
        assert [line.partition(",")[0] for line in finding["evidence"]] == groups

        for client in found[:10]:
            client.execute("COMMIT")
        code, seen = doctor(pooler, "--stuck", 1, "--backend", administrator(postgres))
        assert (code, codes(seen)) == (15, ["idle-in-transaction"])
        finding = seen["findings"][0]
        assert finding["what"].startswith("10 of 20 sessions")
        lines = finding["evidence"][1:]
        assert len(lines) == 10
        assert all(any(f"(shop-{number}, id" in line for line in lines) for number in range(10, 20))
        assert codes(doctor(pooler, "--stuck", 60, "--backend", administrator(postgres))[1]) == []


def test_a_pause_that_was_forgotten_is_found(pooler: PoolerProcess) -> None:
    pooler.connect().close()
    for pause, resume, what in (("PAUSE", "RESUME", "the whole pooler"), ("PAUSE app", "RESUME app", "database app")):
        pooler.console(pause)
        code, found = doctor(pooler, "--patience", 0.4)
        pooler.console(resume)
        assert (code, codes(found)) == (14, ["paused"])
        assert what in found["findings"][0]["what"]


def test_a_closed_port_and_a_name_that_is_none_are_told_apart() -> None:
    code, found = doctor(None, f"host=127.0.0.1 port={free_port()}", "--url", "/nowhere")
    assert (code, codes(found)) == (10, ["tcp-refused"])
    code, found = doctor(None, "host=no-such-host.invalid", "--url", "/nowhere")
    assert (code, codes(found)) == (10, ["dns"])


def test_a_postgresql_that_is_not_there_is_told_once(postgres: PostgresServer) -> None:
    nowhere = free_port()
    with PoolerProcess(nowhere) as pooler:
        code, found = doctor(pooler, "--patience", 0.5)
        assert (code, codes(found)) == (15, ["queue-target"])
        code, found = doctor(pooler, "--patience", 0.5, "--backend", f"host=127.0.0.1 port={nowhere} user=postgres")
        assert (code, codes(found)) == (15, ["target-unreachable"])


def test_tls_that_is_not_offered_not_trusted_or_about_to_expire_is_named(
    postgres: PostgresServer, pooler: PoolerProcess, certificates: Certificates
) -> None:
    """One that has expired: e2e/scenarios/test_doctor.py."""
    code, found = doctor(pooler, sslmode="require")
    assert (code, codes(found)) == (11, ["tls-failed"])
    tls = {
        "client_tls_sslmode": "allow",
        "client_tls_cert_file": certificates.server.certificate,
        "client_tls_key_file": certificates.server.key,
    }
    with PoolerProcess(postgres.port, settings=tls) as encrypted:
        trusted = {"sslmode": "verify-ca", "sslrootcert": certificates.ca}
        code, found = doctor(encrypted, **trusted)  # the tests' certificates live for two days
        assert (code, codes(found)) == (11, ["certificate-expires"])
        assert "tls" in found["stages_ms"]
        code, found = doctor(encrypted, sslmode="verify-ca", sslrootcert=certificates.other_ca)
        assert (code, codes(found)) == (11, ["tls-failed", "certificate-expires"])


@pytest.mark.skipif(shutil.which("pgbouncer", path="/usr/sbin:/usr/bin") is None, reason="no PgBouncer on this machine")
def test_a_pgbouncer_is_looked_at_as_far_as_its_console_goes(postgres: PostgresServer) -> None:
    settings = {"default_pool_size": 1}
    with PoolerProcess(postgres.port, settings=settings, flavour="pgbouncer") as pooler:
        url = f"postgresql://{ADMIN}:{SECRETS[ADMIN]}@127.0.0.1:{pooler.port}"
        code, found = doctor(pooler, url=url)
        assert (code, codes(found)) == (0, [])
        assert {"queue", "backend"} <= set(found["stages_ms"])
        with sleeper(pooler):
            code, found = doctor(pooler, "--patience", 0.5, url=url)
        assert (code, codes(found)) == (14, ["queue-server"])
        code, found = doctor(pooler, url=url, password="wrong")
        assert (code, codes(found)) == (12, ["login-refused"])
    postgres.terminate_clients()
