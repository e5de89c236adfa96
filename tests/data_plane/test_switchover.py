"""PostgreSQL moves or restarts, and no client fails: real servers with replication, a pod, and the operator's orders to it."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.pooler.pod import Pod
from tests.pooler.process import eventually
from tests.pooler.wire import query
from tests.postgres.pair import SECOND, PostgresPair
from tests.postgres.server import PostgresServer

MakePod = Callable[[int], Pod]
MAKE_LEDGER = "CREATE TABLE ledger (client int, entry int); GRANT ALL ON ledger TO alice"
LEDGER = "SELECT client, count(*), count(DISTINCT entry) FROM ledger GROUP BY client ORDER BY client"
NOBODY = "127.0.0.9"  # where nobody listens


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with PostgresPair() as made:
        made.primary.execute(MAKE_LEDGER, "app")
        yield made


@pytest.fixture
def alone(fresh_postgres: PostgresServer) -> PostgresServer:
    """A primary without a standby."""
    fresh_postgres.execute(MAKE_LEDGER, "app")
    return fresh_postgres


@pytest.fixture
def make_pod(tmp_path: Path) -> Iterator[MakePod]:
    made: list[Pod] = []

    def make(port: int) -> Pod:
        pod = Pod(tmp_path, f"* = host=localhost port={port}", target_session_attrs="primary")
        made.append(pod)
        return pod

    yield make
    for pod in made:
        pod.stop()


class Writers:
    """Clients that write one line after another, each a transaction, and remember what was committed."""

    def __init__(self, pod: Pod, clients: int = 20) -> None:
        self._pod = pod
        self.errors: list[BaseException] = []
        self.committed = [0] * clients
        self.longest = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        eventually(lambda: all(self.committed) or self.errors, "everybody writes")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def everybody_writes_again(self) -> None:
        before = list(self.committed)
        eventually(
            lambda: self.errors or all(now > then for now, then in zip(self.committed, before, strict=True)),
            "everybody writes again",
        )
        assert not self.errors

    def _run(self, number: int) -> None:
        try:
            with self._pod.connect() as connection:
                while not self._stop.is_set():
                    began = time.monotonic()
                    self._write(connection, number)
                    self.committed[number] += 1
                    self.longest = max(self.longest, time.monotonic() - began)
                    time.sleep(0.01)
        except BaseException as error:
            self.errors.append(error)

    def _write(self, connection: psycopg.Connection[Any], number: int) -> None:
        entry = self.committed[number]
        if entry % 2:
            connection.execute("INSERT INTO ledger VALUES (%s, %s)", (number, entry))
            return
        with connection.transaction():
            connection.execute("SELECT count(*) FROM ledger WHERE client = %s", (number,))
            connection.execute("INSERT INTO ledger VALUES (%s, %s)", (number, entry))

    def in_the_ledger(self, rows: list[tuple[Any, ...]]) -> bool:
        """Every line that was committed is there, once."""
        return rows == [(number, count, count) for number, count in enumerate(self.committed)]


def hold_everybody(pod: Pod, id_: str, **more: Any) -> None:
    pod.hold(id_, **more)
    eventually(lambda: (pod.status()["hold"] or {}).get("drained"), "the pod is drained")


def test_a_planned_switchover_fails_no_transaction_of_20_clients(make_pod: MakePod, pair: PostgresPair) -> None:
    pod = make_pod(pair.port)
    with Writers(pod) as writers:
        began = time.monotonic()
        answer = pod.hold("one")
        assert answer["hold"]["id"] == "one"
        acknowledged = time.monotonic()
        eventually(lambda: pod.status()["hold"]["drained"])
        eventually(lambda: pod.status()["waitingClients"] == 20)
        pair.primary.stop("fast")
        pair.promote()
        promoted = time.monotonic()
        assert pod.route("one", SECOND)["lastHold"]["endedBy"] == "route"
        writers.everybody_writes_again()
        served = time.monotonic()
        writers.stop()
        assert writers.errors == []
        print(
            f"acknowledged after {acknowledged - began:.3f} s, promoted after {promoted - began:.3f} s,"
            f" everybody wrote again {served - promoted:.3f} s later; the longest transaction took {writers.longest:.3f} s"
        )
    assert writers.in_the_ledger(pair.standby.execute(LEDGER, "app")), "nothing that was committed is lost or twice"
    status = pod.status()
    assert (status["hold"], status["lastHold"]["clientsHeld"]) == (None, 20)
    assert status["route"]["address"] == SECOND
    log = pod.process.log_tail(1000)
    assert log.count("hold one begins, for a switchover") == 1
    assert log.count("hold one ended after") == 1


def test_an_operator_that_vanishes_leaves_a_pod_that_goes_on_at_its_ceiling(
    make_pod: MakePod, pair: PostgresPair
) -> None:
    pod = make_pod(pair.port)
    with Writers(pod, 5) as writers:
        hold_everybody(pod, "one")
        pair.primary.stop("fast")
        pair.promote()
        eventually(lambda: pod.status()["waitingClients"] == 5)
        pod.hold("two", ceiling=0.5)  # in place of the first, and its time begins where the primary has gone for sure
        # Nobody says where the new primary is: the pod goes on by itself, and finds nobody where the name leads.
        eventually(lambda: (pod.status()["lastHold"] or {}).get("endedBy") == "ceiling")
        eventually(lambda: pod.status()["target"]["reachable"] is False)
        assert pod.status()["lastHold"]["clientsHeld"] == 5
        assert writers.errors == [], "they wait"
        pod.route("late", SECOND)  # the next leader
        writers.everybody_writes_again()
        writers.stop()
    assert writers.in_the_ledger(pair.standby.execute(LEDGER, "app"))
    assert '"level": "warning"' in next(
        line for line in pod.process.log_tail(1000).splitlines() if "hold two ended" in line
    )


def test_a_route_that_refuses_leads_to_where_the_resolver_says(make_pod: MakePod, alone: PostgresServer) -> None:
    pod = make_pod(alone.port)
    with Writers(pod, 5) as writers:
        hold_everybody(pod, "one")
        pod.route("one", NOBODY)
        writers.everybody_writes_again()
        writers.stop()
    assert writers.errors == []
    assert pod.status()["route"]["address"] == NOBODY


def test_a_standby_is_never_written_to_and_everybody_waits_until_it_is_promoted(
    make_pod: MakePod, pair: PostgresPair
) -> None:
    pod = make_pod(pair.port)
    with Writers(pod, 10) as writers:
        hold_everybody(pod, "one")
        pair.primary.stop("fast")
        pod.route("one", SECOND)  # too early: it is a standby
        eventually(lambda: _closed(pod, "server_standby") >= 2, "it is tried, and refused")
        before = list(writers.committed)
        time.sleep(0.3)
        assert (writers.committed, writers.errors) == (before, [])
        assert pod.console("SHOW WAITERS")[0]["limit"] == "target"
        assert "hot standby" in pod.console("SHOW WAITERS")[0]["reason"]
        promoted = time.monotonic()
        pair.promote()
        writers.everybody_writes_again()
        assert time.monotonic() - promoted < 10
        writers.stop()
    assert writers.errors == []
    assert writers.in_the_ledger(pair.standby.execute(LEDGER, "app"))
    assert not pair.standby.log_contains("read-only transaction")


def test_a_restart_in_place_finds_nobody_connected_and_nobody_fails(make_pod: MakePod, alone: PostgresServer) -> None:
    pod = make_pod(alone.port)
    with Writers(pod, 20) as writers:
        hold_everybody(pod, "one", release_when="restarted")
        began = time.monotonic()
        alone.restart("smart")  # which waits for every session to end
        eventually(lambda: pod.status()["hold"] is None, "the pod has seen it")
        assert time.monotonic() - began < 30
        writers.everybody_writes_again()
        writers.stop()
    assert writers.errors == []
    assert pod.status()["lastHold"]["endedBy"] == "restarted"
    assert writers.in_the_ledger(alone.execute(LEDGER, "app"))


def test_a_pause_and_a_hold_end_each_for_itself_and_the_waiters_are_told_which_it_is(
    make_pod: MakePod, alone: PostgresServer
) -> None:
    pod = make_pod(alone.port)
    with pod.client(application_name="busy") as busy, pod.client() as waiting:
        busy.ask("BEGIN")
        pod.hold("one")
        waiting.say(query("SELECT 42"))
        eventually(lambda: pod.console("SHOW WAITERS"))
        (row,) = pod.console("SHOW WAITERS")
        assert row["limit"] == "hold"
        assert row["reason"].startswith("held for a switchover: ")
        assert row["holder_application_name"] == "busy"
        assert busy.ask("SELECT 1") == [[b"1"]], "a transaction goes on until its end"
        assert pod.status()["hold"]["drained"] is False
        busy.ask("COMMIT")
        eventually(lambda: pod.status()["hold"]["drained"])
        pod.push(2, paused=True)
        assert pod.console("SHOW WAITERS")[0]["limit"] == "paused"
        assert pod.release("one")["hold"] is None
        waiting.expect_silence()
        pod.hold("two")
        pod.push(3, paused=False)
        waiting.expect_silence()
        assert pod.console("SHOW WAITERS")[0]["limit"] == "hold"
        pod.release("two")
        waiting.expect("TDCZ")


def test_a_lost_primary_costs_who_waits_nothing_but_time(make_pod: MakePod, pair: PostgresPair) -> None:
    """Unplanned: no hold comes before it, and the route when there is one to give."""
    pod = make_pod(pair.port)
    with pod.connect() as idle:
        idle.execute("SELECT 1")
        eventually(pair.caught_up)
        pair.primary.kill9()
        with Waiting(lambda: idle) as waiting, Waiting(pod.connect) as late:
            time.sleep(0.3)
            assert (waiting.outcome, late.outcome) == (None, None)
            pair.promote()
            pod.route("none", SECOND)
        assert (waiting.outcome, late.outcome) == ((False,), (False,))


class Waiting:
    """A client that connects, or is connected, and asks in a thread of its own."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self.outcome: object = None
        self._thread = threading.Thread(target=self._ask, args=(connect,), daemon=True)

    def _ask(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        try:
            with connect() as connection:
                self.outcome = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        except psycopg.Error as error:
            self.outcome = error

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)


def _closed(pod: Pod, reason: str) -> float:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{pod.process.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    line = f'pgweir_closed_connections_total{{reason="{reason}"}} '
    return sum(float(each.removeprefix(line)) for each in text.splitlines() if each.startswith(line))
