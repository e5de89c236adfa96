"""How many system calls a transaction costs the pooler, counted by strace. Time is noisy, this is not.

One client that takes turns with one server: wait, read, write; wait, read, write. Fewer is not to be had with epoll, neither on
our own transport, which waits in the loop's place, nor on uvloop's. With many clients one wait finds several.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import WireClient, bind, describe, execute, parse, query, startup, sync
from tests.postgres.certificates import Certificates

from pgweir import compiled

CountCalls = Callable[[PoolerProcess, Callable[[], None]], tuple[dict[str, int], float]]

TRANSACTIONS = 200
# Two reads, two writes, and the waits.
BUDGET = 6.1
# What the upkeep's tick costs in a second, three times seven calls, and as much again: on a busy machine strace needs seconds.
UPKEEP = 42

CLIENT_SAYS = {
    "simple": query("SELECT 1"),
    "extended": parse("", "SELECT 1") + bind("") + describe("", "P") + execute() + sync(),
    "prepared": bind("stmt") + describe("", "P") + execute() + sync(),
    # Twenty queries that come in one read and leave in one write, and so do their answers.
    "pipeline": (parse("", "SELECT 1") + bind("") + describe("", "P") + execute()) * 20 + sync(),
}


@pytest.fixture
def count_calls(tmp_path: Path) -> CountCalls:
    """System calls of the pooler's process while something runs, by name, and the seconds that it took with strace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")

    def count(pooler: PoolerProcess, run: Callable[[], None]) -> tuple[dict[str, int], float]:
        began = time.monotonic()
        report, words = tmp_path / "calls", tmp_path / "words"
        with words.open("w") as stderr:
            tracer = subprocess.Popen([strace, "-f", "-c", "-o", report, "-p", str(pooler.pid)], stderr=stderr)
        try:
            eventually(lambda: "attached" in words.read_text() or tracer.poll() is not None, "strace")
            if tracer.poll() is not None:
                pytest.skip(f"strace may not look at another process here: {words.read_text().strip()}")
            run()
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.wait(timeout=30)
        lines = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", report.read_text(), re.MULTILINE)
        return {name: int(calls) for calls, name in lines if name != "total"}, time.monotonic() - began

    return count


@pytest.mark.parametrize(("kind", "transport"), [*((kind, "own") for kind in CLIENT_SAYS), ("simple", "uvloop")])
def test_a_transaction_is_two_waits_two_reads_and_two_writes(
    kind: str,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    make_pooler: Callable[..., PoolerProcess],
    count_calls: CountCalls,
) -> None:
    if transport == "own" and compiled.FORM == "plain":
        pytest.skip("the plain form makes a socket object for each call; CI sees to it that there is the compiled one")
    monkeypatch.setenv("PGWEIR_TRANSPORT", transport)
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with WireClient(pooler.port).log_in("alice", "app", SECRETS["alice"]) as client:
        client.say(parse("stmt", "SELECT 1"), sync())
        client.until("Z")

        def run() -> None:
            for _ in range(TRANSACTIONS):
                client.say(CLIENT_SAYS[kind])
                client.until("Z")

        run()
        found, seconds = count_calls(pooler, run)
    total = sum(found.values())
    assert total >= 4 * TRANSACTIONS, found  # else strace has not seen them
    assert total <= BUDGET * TRANSACTIONS + UPKEEP * (1 + seconds), (found, seconds)


# In, one query, and out: accept, the epoll, reads of the startup packet, the query, the answer and the goodbye, three writes,
# close; and waits, most of which find one of these.
LOGIN_BUDGET = 15.5
LOGIN_CALLS = {
    "accept4": 1.0,
    "epoll_ctl": 1.0,
    "recvfrom": 4.0,
    "sendto": 3.0,
    "getrandom": 0.02,
}  # none is the upkeep's


def log_in(pooler: PoolerProcess, *, tls: bool = False) -> None:
    for _ in range(TRANSACTIONS):
        with WireClient(pooler.port) as client:
            if tls:
                client.start_tls()
            client.say(startup(user="trusty", database="app"))
            client.until("Z")
            client.say(query("SELECT 1"))
            client.until("Z")


def test_a_login_asks_the_kernel_for_nothing_that_it_does_not_need(
    monkeypatch: pytest.MonkeyPatch,
    make_pooler: Callable[..., PoolerProcess],
    count_calls: CountCalls,
) -> None:
    if compiled.FORM == "plain":
        pytest.skip("the plain form makes a socket object for each call")
    monkeypatch.setenv("PGWEIR_TRANSPORT", "own")
    pooler = make_pooler(auth_type="trust", pool_mode="transaction", log_connections=0, log_disconnections=0)

    log_in(pooler)
    found, seconds = count_calls(pooler, lambda: log_in(pooler))
    each = {name: calls / TRANSACTIONS for name, calls in found.items()}
    assert each["accept4"] >= 0.9, found  # else strace has not seen them
    over = [name for name, most in LOGIN_CALLS.items() if each.get(name, 0.0) > most + 0.1]
    assert not over, each
    assert (sum(found.values()) - UPKEEP * seconds) / TRANSACTIONS <= LOGIN_BUDGET, found


# The same, and TLS: seven reads (its request, two of the handshake), six writes (the answer, the handshake, a goodbye), a wait
# for each event, and three times what OpenSSL asks by itself (`getpid`). By uvloop's TLS it was 58.8.
TLS_LOGIN_BUDGET = 27.5


def test_tls_costs_a_login_its_round_trips_and_a_transaction_nothing(
    monkeypatch: pytest.MonkeyPatch,
    make_pooler: Callable[..., PoolerProcess],
    certificates: Certificates,
    count_calls: CountCalls,
) -> None:
    if compiled.FORM == "plain":
        pytest.skip("the plain form makes a socket object for each call")
    monkeypatch.setenv("PGWEIR_TRANSPORT", "own")
    pair = certificates.server
    pooler = make_pooler(
        auth_type="trust", pool_mode="transaction", log_connections=0, log_disconnections=0,
        client_tls_sslmode="require", client_tls_cert_file=pair.certificate, client_tls_key_file=pair.key,
    )  # fmt: skip

    log_in(pooler, tls=True)
    found, seconds = count_calls(pooler, lambda: log_in(pooler, tls=True))
    assert found["accept4"] >= 0.9 * TRANSACTIONS, found  # else strace has not seen them
    assert (sum(found.values()) - UPKEEP * seconds) / TRANSACTIONS <= TLS_LOGIN_BUDGET, found

    with WireClient(pooler.port) as client:
        client.start_tls()
        client.say(startup(user="trusty", database="app"))
        client.until("Z")

        def ask() -> None:
            for _ in range(TRANSACTIONS):
                client.say(query("SELECT 1"))
                client.until("Z")

        found, seconds = count_calls(pooler, ask)
    assert 4 * TRANSACTIONS <= sum(found.values()) <= BUDGET * TRANSACTIONS + UPKEEP * (1 + seconds), (found, seconds)
