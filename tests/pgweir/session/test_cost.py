"""What one transaction costs, counted and not timed: a budget that fails when the path from client to server and back grows.

A count that went down is a reason to lower its budget; one that must go up is a reason to say why in ARCHITECTURE.md ("What it
costs"). System calls are counted in `tests/data_plane/test_system_calls.py`, time by `python -m bench.path`.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from types import FrameType
from typing import Any, Final

import pytest
from tests.pgweir.session.traffic import TRANSACTIONS, Traffic

from pgweir import compiled

KINDS: Final = tuple(TRANSACTIONS)
ROUNDS: Final = 200

# Calls of Python functions, and of built-in ones, for one transaction (one and one more are the test's own). Of the compiled form
# only what is still interpreted is seen. BUSY: the server goes straight to the next in the queue; CALM: it comes from the shelf.
BUSY: Final = {
    "plain": {"simple": (22, 17), "extended": (27, 34), "prepared": (31, 37), "rows": (22, 1016)},
    "compiled": {"simple": (4, 1), "extended": (4, 1), "prepared": (6, 4), "rows": (4, 1)},
}
CALM: Final = {
    "plain": {"simple": (21, 18), "extended": (26, 35), "prepared": (30, 38), "rows": (21, 1017)},
    "compiled": {"simple": (5, 1), "extended": (5, 1), "prepared": (7, 4), "rows": (5, 1)},
}
# Bytes that a transaction takes in passing, at its peak. The reads themselves are handed on, never copied.
PEAK: Final = {"simple": 192, "extended": 448, "prepared": 368, "rows": 192}


def calls(traffic: Traffic) -> tuple[float, float]:
    """Python functions and built-in functions that are called for one transaction."""
    seen: Counter[str] = Counter()

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        seen[event] += 1

    traffic.run(10)
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        traffic.run(ROUNDS)
    finally:
        sys.setprofile(before)
    return round(seen["call"] / ROUNDS, 1), round(seen["c_call"] / ROUNDS, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("clients", "budget"), [(4, BUSY), (1, CALM)], ids=["busy", "calm"])
def test_a_transaction_makes_no_more_calls_than_its_budget(
    kind: str, clients: int, budget: dict[str, dict[str, tuple[int, int]]]
) -> None:
    functions, builtins = calls(Traffic(kind, clients=clients))
    allowed = budget[compiled.FORM][kind]
    assert functions <= allowed[0], f"{functions:g} Python functions a transaction, not {allowed[0]}"
    assert builtins <= allowed[1], f"{builtins:g} built-in functions a transaction, not {allowed[1]}"


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
    gc.collect()
    tracemalloc.start()
    try:
        traffic.run(20)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        traffic.run(20)
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert taken <= PEAK[kind]
