"""`pgweir doctor` at real poolers with one thing wrong at a time: it names that, and nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.pgweir_operator.cli.test_files import pgweir
from tests.pooler.process import ADMIN, FLAVOUR, SECRETS, PoolerProcess, eventually
from tests.postgres.certificates import Certificates
from tests.postgres.server import PostgresServer, free_port

pytestmark = pytest.mark.skipif(FLAVOUR != "pgweir", reason="the doctor is ours")


class LatePath:
    """A way to a server on which every answer is late."""

    def __init__(self, target: int, seconds: float) -> None:
        self._target, self._seconds = target, seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> LatePath:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        for each in self._sockets:
            each.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                self._start(self._carry, near, far, 0.0)
                self._start(self._carry, far, near, self._seconds)

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, seconds: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(seconds)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


def doctor(pooler: PoolerProcess | None, *options: object, url: object = "", **login: object) -> tuple[int, Any]:
    """Exit code and what it found, as JSON."""
    words: list[object] = []
    if pooler is not None:
        words = [pooler.conninfo(**login), "--url", url or pooler.directory]  # type: ignore[arg-type]
    code, printed, told = pgweir("doctor", *words, "--json", "--tries", 5, *options)
    assert printed, told
    return code, json.loads(printed)


def codes(found: Any) -> list[str]:
    return [finding["code"] for finding in found["findings"]]


def administrator(server: PostgresServer) -> str:
    return server.connection_string("postgres", dbname="postgres", sslmode="disable")


def test_where_nothing_is_wrong_nothing_is_found(postgres: PostgresServer) -> None:
    with PoolerProcess(postgres.port) as pooler:
        code, found = doctor(pooler, "--tries", 20, "--burst", 0.3, "--backend", administrator(postgres))
        assert (code, found["findings"], found["notes"]) == (0, [], [])
        assert list(found["stages_ms"]) == ["dns", "tcp", "tls", "auth", "queue", "backend"]
        assert found["tries"] == 20
        assert found["burst"]["done"] > 8
        rest = f"http://127.0.0.1:{pooler.http_port}"
        assert doctor(pooler, url=rest)[1]["findings"] == []
        code, printed, _ = pgweir("doctor", pooler.conninfo(), "--url", pooler.directory, "--tries", 1)
        assert code == 0
        assert printed.startswith("nothing is wrong")
    postgres.terminate_clients()


def test_without_a_console_waiting_and_postgresql_are_one_stage_and_a_note_says_why(postgres: PostgresServer) -> None:
    """Any PostgreSQL will do, as any pooler does."""
    code, printed, _ = pgweir("doctor", postgres.connection_string(), "--json", "--tries", 3, "--url", "/nowhere")
    found = json.loads(printed)
    assert (code, codes(found)) == (12, ["console-unreachable"])
    assert "answer" in found["stages_ms"]


def test_a_late_backend_is_not_taken_for_the_queue(postgres: PostgresServer) -> None:
    """T13."""
    with LatePath(postgres.port, 0.4) as path, PoolerProcess(path.port) as pooler:
        pooler.connect().close()
        code, found = doctor(pooler, "--tries", 3)
        assert (code, codes(found)) == (13, ["slow-backend"])
        assert found["stages_ms"]["backend"]["p50"] > 300
        assert found["stages_ms"]["queue"]["p50"] < 100


@contextlib.contextmanager
def sleeper(pooler: PoolerProcess, **login: Any) -> Iterator[None]:
    with pooler.connect(application_name="sleeper", **login) as client:
        thread = threading.Thread(target=_sleep, args=[client], daemon=True)
        thread.start()
        eventually(lambda: any(row["state"] == "active" for row in pooler.console("SHOW SERVERS")))
        yield
        client.cancel()
        thread.join(timeout=10)


def _sleep(client: Any) -> None:
    with contextlib.suppress(Exception):
        client.execute("SELECT pg_sleep(60)")


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"default_pool_size": 1}, "pool_size"),
        ({"max_db_connections": 1}, "max_db_connections"),
        ({"max_user_connections": 1}, "max_user_connections"),
        ({"max_server_connections": 1}, "max_server_connections"),
    ],
)
def test_the_limit_for_which_clients_wait_is_named_with_who_holds(
    postgres: PostgresServer, settings: dict[str, object], limit: str
) -> None:
    """T03, T13: the queue, and not the backend."""
    with PoolerProcess(postgres.port, settings=settings) as pooler:
        pooler.connect().close()
        with sleeper(pooler):
            code, found = doctor(pooler, "--patience", 0.4)
        assert (code, codes(found)) == (14, [f"queue-{limit.replace('_', '-')}"])
        said = "\n".join(found["findings"][0]["evidence"])
        assert "stage queue" in said
        assert "sleeper" in said
    postgres.terminate_clients()


def test_a_pooler_that_lets_nobody_in_names_max_client_conn(postgres: PostgresServer) -> None:
    """T03."""
    with PoolerProcess(postgres.port, settings={"max_client_conn": 1}) as pooler, pooler.connect():
        code, found = doctor(pooler, url=f"http://127.0.0.1:{pooler.http_port}")
        assert (code, codes(found)) == (14, ["limit-max-client-conn"])
        assert "max_client_conn = 1" in found["findings"][0]["evidence"]


def test_max_connections_that_others_took_is_named(make_postgres: Callable[..., PostgresServer]) -> None:
    """T03, T01."""
    server = make_postgres(
        settings={"max_connections": "6", "superuser_reserved_connections": "2", "max_wal_senders": "0"}
    )
    server.start()
    with PoolerProcess(server.port) as pooler, contextlib.ExitStack() as others:
        for _ in range(4):
            others.enter_context(psycopg.connect(server.connection_string(application_name="hog")))
        code, found = doctor(pooler, "--patience", 0.5)
        assert (code, codes(found)) == (15, ["queue-max-connections"])
        code, found = doctor(pooler, "--patience", 0.5, "--backend", administrator(server))
        assert (code, codes(found)) == (15, ["queue-max-connections"])
    with PoolerProcess(server.port) as pooler, contextlib.ExitStack() as others:
        for _ in range(4):
            others.enter_context(psycopg.connect(server.connection_string(application_name="hog")))
        code, found = doctor(None, "--backend", administrator(server), server.connection_string("postgres"))
        assert (code, codes(found)) == (15, ["limit-max-connections"])
        assert any("4 of alice" in line and "hog" in line for line in found["findings"][0]["evidence"])


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
    """T05: four wrong set-ups, four auth_stages."""
    stages = []
    with PoolerProcess(postgres.port, hba=["host all bob 127.0.0.1/32 scram-sha-256", "local all all trust"]) as pooler:
        stages.append(doctor(pooler))
    with PoolerProcess(postgres.port) as pooler:
        stages.append(doctor(pooler, password="wrong"))
    lookup = {"auth_user": "bob", "auth_query": "SELECT nothing FROM nowhere WHERE x = $1"}
    with PoolerProcess(
        postgres.port, settings=lookup, userlist={"bob": SECRETS["bob"], ADMIN: SECRETS[ADMIN]}
    ) as pooler:
        stages.append(doctor(pooler))
    with PoolerProcess(postgres.port, userlist={**SECRETS, "alice": "not PostgreSQL's"}) as pooler:
        stages.append(doctor(pooler, password="not PostgreSQL's"))
    expected = [f"login-refused-{stage}" for stage in ("hba", "password", "auth-query", "server")]
    assert [(code, codes(found)) for code, found in stages] == [(12, [code]) for code in expected]


def test_idle_transactions_are_counted_with_their_ages_and_the_clients_behind_them(
    make_postgres: Callable[..., PostgresServer],
) -> None:
    """T21, T02: five of ten. A server of its own, so that ten are all there are."""
    server = make_postgres()
    server.start()
    with PoolerProcess(server.port, settings={"default_pool_size": 12}) as pooler, contextlib.ExitStack() as clients:
        found = []
        for number in range(10):
            client = clients.enter_context(pooler.connect(application_name=f"shop-{number}"))
            found.append(client)
            client.execute("BEGIN")
        for client in found[5:]:
            client.execute("COMMIT")
        time.sleep(1.1)
        code, seen = doctor(pooler, "--stuck", 1, "--backend", administrator(server))
        assert (code, codes(seen)) == (15, ["idle-in-transaction"])
        finding = seen["findings"][0]
        assert finding["what"].startswith("5 of 10 sessions")
        lines = finding["evidence"][1:]
        assert len(lines) == 5
        assert all(any(f"(shop-{number}, id" in line for line in lines) for number in range(5))
        code, seen = doctor(pooler, "--stuck", 1)
        assert (code, codes(seen)) == (14, ["leaks"])
        assert [line.split(" at ")[0] for line in seen["findings"][0]["evidence"]] == [f"shop-{n}" for n in range(5)]
        assert codes(doctor(pooler, "--stuck", 60, "--backend", administrator(server))[1]) == []


def test_twenty_that_begin_and_stop_are_grouped_by_application_the_oldest_first(postgres: PostgresServer) -> None:
    """T02."""
    with PoolerProcess(postgres.port, settings={"default_pool_size": 20}) as pooler, contextlib.ExitStack() as clients:
        for number in range(20):
            name = "month_end" if number < 8 else "shop"
            clients.enter_context(pooler.connect(application_name=name)).execute("BEGIN")
            time.sleep(1.0 if number == 7 else 0)
        time.sleep(1.1)
        code, seen = doctor(pooler, "--stuck", 1, "--patience", 1)
        assert (code, codes(seen)) == (14, ["leaks"])
        finding = seen["findings"][0]
        assert finding["what"].startswith("20 clients")
        assert [line.partition(",")[0] for line in finding["evidence"]] == [
            "month_end at 127.0.0.1: 8 clients",
            "shop at 127.0.0.1: 12 clients",
        ]
    postgres.terminate_clients()


def test_a_pause_that_was_forgotten_is_found(postgres: PostgresServer) -> None:
    with PoolerProcess(postgres.port) as pooler:
        pooler.connect().close()
        pooler.console("PAUSE")
        code, found = doctor(pooler, "--patience", 0.4)
        assert (code, codes(found)) == (14, ["paused"])
        pooler.console("RESUME")
        pooler.console("PAUSE app")
        code, found = doctor(pooler, "--patience", 0.4)
        assert (code, codes(found)) == (14, ["paused"])
        assert "database app" in found["findings"][0]["what"]


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


def test_tls_that_is_not_offered_not_trusted_or_expired_is_named(
    postgres: PostgresServer, certificates: Certificates
) -> None:
    with PoolerProcess(postgres.port) as pooler:
        code, found = doctor(pooler, sslmode="require")
        assert (code, codes(found)) == (11, ["tls-failed"])
    tls = {
        "client_tls_sslmode": "allow",
        "client_tls_cert_file": certificates.server.certificate,
        "client_tls_key_file": certificates.server.key,
    }
    with PoolerProcess(postgres.port, settings=tls) as pooler:
        trusted = {"sslmode": "verify-ca", "sslrootcert": certificates.ca}
        code, found = doctor(pooler, **trusted)  # the tests' certificates live for two days
        assert (code, codes(found)) == (11, ["certificate-expires"])
        assert "tls" in found["stages_ms"]
        code, found = doctor(pooler, sslmode="verify-ca", sslrootcert=certificates.other_ca)
        assert (code, codes(found)) == (11, ["tls-failed", "certificate-expires"])
    tls |= {"client_tls_cert_file": certificates.expired.certificate, "client_tls_key_file": certificates.expired.key}
    with PoolerProcess(postgres.port, settings=tls) as pooler:
        for mode in ({"sslmode": "require"}, trusted):
            code, found = doctor(pooler, **mode)
            assert (code, codes(found)) == (11, ["certificate-expired"])


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
