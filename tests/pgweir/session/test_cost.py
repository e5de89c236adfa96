"""What one transaction costs, counted and not timed: a budget that fails when the path from client to server and back grows.

A count that went down is a reason to lower its budget; one that must go up is a reason to say why in ARCHITECTURE.md ("What it
costs"). System calls are counted in `tests/data_plane/test_system_calls.py`, time by `python -m bench.path`.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import pytest
from tests.pgweir.session.traffic import LOGINS, TRANSACTIONS, Arrivals, SilentWire, Traffic
from tests.pgweir.session.world import World

from pgweir import compiled
from pgweir.protocol import messages

KINDS: Final = tuple(TRANSACTIONS)
ROUNDS: Final = 200

# Calls of Python functions, and of built-in ones, for one transaction (one and one more are the test's own). Of the compiled form
# only what is still interpreted is seen. BUSY: the server goes straight to the next in the queue; CALM: it comes from the shelf.
BUSY: Final = {
    "plain": {
        "simple": (23, 19), "extended": (28, 31), "prepared": (37, 37), "rows": (23, 1018), "pipeline": (104, 278),
    },
    "compiled": {"simple": (4, 1), "extended": (4, 1), "prepared": (4, 1), "rows": (4, 1), "pipeline": (4, 1)},
}  # fmt: skip
CALM: Final = {
    "plain": {
        "simple": (21, 20), "extended": (26, 32), "prepared": (35, 38), "rows": (21, 1019), "pipeline": (102, 279),
    },
    "compiled": {"simple": (5, 1), "extended": (5, 1), "prepared": (5, 1), "rows": (5, 1), "pipeline": (5, 1)},
}  # fmt: skip
# Bytes that a transaction takes in passing, at its peak. The reads themselves are handed on, never copied.
PEAK: Final = {"simple": 160, "extended": 160, "prepared": 368, "rows": 192, "pipeline": 224}


def calls(traffic: Traffic) -> tuple[float, float]:
    """Python functions and built-in functions that are called for one transaction."""
    traffic.run(10)
    functions, builtins = counted(lambda: traffic.run(ROUNDS), 1)
    return round(functions / ROUNDS, 1), round(builtins / ROUNDS, 1)


def counted(work: Callable[[], None], times: int) -> tuple[float, float]:
    """The same for each time that this work is done."""
    seen: Counter[str] = Counter()

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        seen[event] += 1

    before = sys.getprofile()
    # WHY: a collection in the middle calls what others have hung on it (hypothesis times it), and counts as ours.
    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    try:
        for _ in range(times):
            work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return round(seen["call"] / times, 1), round(seen["c_call"] / times, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("clients", "budget"), [(4, BUSY), (1, CALM)], ids=["busy", "calm"])
def test_a_transaction_makes_no_more_calls_than_its_budget(
    kind: str, clients: int, budget: dict[str, dict[str, tuple[int, int]]]
) -> None:
    functions, builtins = calls(Traffic(kind, clients=clients))
    allowed = budget[compiled.FORM][kind]
    assert functions <= allowed[0], f"{functions:g} Python functions a transaction, not {allowed[0]}"
    assert builtins <= allowed[1], f"{builtins:g} built-in functions a transaction, not {allowed[1]}"


# The same for a login and its end, where the startup packet and auth_query's answer are those that somebody has had before (of
# them, one and two more for each read are the test's own).
LOGIN: Final = {
    "plain": {"trust": (76, 36), "scram": (138, 98), "auth_query": (176, 132)},
    "compiled": {"trust": (11, 0), "scram": (17, 4), "auth_query": (23, 4)},
}
# Bytes at its peak, the test's own wire among them, and a block of random ones.
LOGIN_PEAK: Final = {"trust": 1536, "scram": 2560, "auth_query": 2560}


@pytest.mark.parametrize("kind", LOGINS)
def test_a_login_makes_no_more_calls_than_its_budget(kind: str) -> None:
    arrivals = Arrivals(kind)
    arrivals.come_and_go()
    functions, builtins = counted(arrivals.come_and_go, 50)
    allowed = LOGIN[compiled.FORM][kind]
    assert functions <= allowed[0], f"{functions:g} Python functions a login, not {allowed[0]}"
    assert builtins <= allowed[1], f"{builtins:g} built-in functions a login, not {allowed[1]}"


@pytest.mark.parametrize("kind", LOGINS)
def test_logins_leave_nothing_behind_and_take_little_in_passing(kind: str) -> None:
    arrivals = Arrivals(kind)

    def many() -> None:
        for _ in range(ROUNDS):
            arrivals.come_and_go()

    many()
    gc.collect()
    before = sys.getallocatedblocks()
    many()
    assert sys.getallocatedblocks() - before < ROUNDS  # not one for each: nothing waits for the collector
    assert peak(many) <= LOGIN_PEAK[kind]


# A round trip in the middle of a transaction: of TPC-B's seven, six are such.
ROUND_TRIP: Final = {"plain": (12, 12), "compiled": (5, 0)}


def test_a_round_trip_within_a_transaction_makes_no_more_calls_than_its_budget() -> None:
    world = World(default_pool_size=1)
    session = world.client().session
    (server,) = world.pooler.servers()
    session.wire, server.wire = SilentWire(), SilentWire()
    said = messages.query("UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1")
    answered = b"C\0\0\0\x0dUPDATE 1\0" + messages.ready_for_query(b"T")

    def round_trip() -> None:
        session.data_received(said)
        server.data_received(answered)

    round_trip()
    functions, builtins = counted(round_trip, ROUNDS)
    allowed = ROUND_TRIP[compiled.FORM]
    assert functions <= allowed[0], f"{functions:g} Python functions a round trip, not {allowed[0]}"
    assert builtins <= allowed[1], f"{builtins:g} built-in functions a round trip, not {allowed[1]}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clients", [1, 4])
def test_transactions_leave_nothing_behind(kind: str, clients: int) -> None:
    traffic = Traffic(kind, clients=clients)
    traffic.run(ROUNDS)
    gc.collect()
    before = sys.getallocatedblocks()
    traffic.run(ROUNDS)
    assert sys.getallocatedblocks() - before < ROUNDS / 10


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_transaction_takes_in_passing_is_small(kind: str) -> None:
    traffic = Traffic(kind, clients=4)
    traffic.run(ROUNDS)
    assert peak(lambda: traffic.run(20)) <= PEAK[kind]


def peak(work: Callable[[], None]) -> int:
    """Bytes that this takes in passing."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
