"""One pass at a time per Pooler, none forgotten, and one that stumbles stops no other."""

from __future__ import annotations

import asyncio

import pytest
from tests.pgweir_operator.stories import story, until

from pgweir_operator import workers as module
from pgweir_operator.metrics import Metrics
from pgweir_operator.passes import Outcome
from pgweir_operator.workers import Workers

KEY = ("n", "p")


class Passes:
    """A reconcile that counts, and does as it is told."""

    def __init__(self):
        self.begun = []
        self.running = 0
        self.most = {}
        self.outcome = Outcome(again=60.0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None

    async def __call__(self, namespace, name, memory):
        key = (namespace, name)
        self.begun.append(key)
        self.most[key] = self.most.get(key, 0) + 1
        assert self.most[key] == 1, "two passes over one Pooler at the same time"
        try:
            await self.gate.wait()
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            return self.outcome
        finally:
            self.most[key] -= 1


def test_wakes_during_a_pass_become_one_more_pass():
    async def test():
        passes, settled = Passes(), []
        workers = Workers(passes, lambda key, outcome: settled.append(key))
        passes.gate.clear()
        workers.wake(KEY, "first")
        await until(lambda: len(passes.begun) == 1)
        for number in range(10):
            workers.wake(KEY, f"again {number}")
        passes.gate.set()
        await until(lambda: len(settled) == 2)
        await asyncio.sleep(0.05)
        assert len(passes.begun) == 2
        await workers.close()

    story(test)


def test_time_wakes_too():
    async def test():
        passes = Passes()
        passes.outcome = Outcome(again=0.01)
        workers = Workers(passes, lambda key, outcome: None)
        workers.wake(KEY, "first")
        await until(lambda: len(passes.begun) >= 3)
        await workers.close()

    story(test)


def test_a_pooler_that_is_gone_has_no_worker_and_may_come_again():
    async def test():
        passes, settled = Passes(), []
        workers = Workers(passes, lambda key, outcome: settled.append(outcome.gone))
        passes.outcome = Outcome(again=0.0, gone=True)
        workers.wake(KEY, "deleted")
        await until(lambda: len(workers) == 0)
        workers.wake(KEY, "an orphan's event", known_only=True)
        assert len(workers) == 0
        passes.outcome = Outcome(again=60.0)
        workers.wake(KEY, "made anew")
        await until(lambda: settled == [True, False])
        await workers.close()

    story(test)


def test_one_that_stumbles_tries_again_later_and_stops_no_other(monkeypatch, caplog):
    monkeypatch.setattr(module, "FIRST_RETRY", 0.02)

    async def test():
        passes, settled = Passes(), []
        metrics = Metrics()
        workers = Workers(passes, lambda key, outcome: settled.append(key), metrics=metrics)
        passes.error = RuntimeError("a bug of ours")
        workers.wake(KEY, "first")
        workers.wake(("n", "other"), "first")
        await until(lambda: set(settled) == {KEY, ("n", "other")})
        assert b'reconciles_total{result="failed"} 1.0' in metrics.text()
        await workers.close()

    story(test)
    assert "a bug of ours" in caplog.text


@pytest.mark.parametrize("known_only", [True, False])
def test_nothing_begins_after_the_end(known_only):
    async def test():
        passes = Passes()
        workers = Workers(passes, lambda key, outcome: None)
        workers.wake(KEY, "first")
        await until(lambda: len(passes.begun) == 1)
        await workers.close()
        assert len(workers) == 0
        workers.wake(KEY, "late", known_only=known_only)
        await asyncio.sleep(0.02)
        assert len(passes.begun) == 1

    story(test)


def test_at_rest_many_are_looked_at_less_often_and_what_is_on_its_way_is_not_put_off():
    async def test():
        passes = Passes()
        passes.outcome = Outcome(again=0.3)
        workers = Workers(passes, lambda key, outcome: None, rest=0.3)
        for number in range(40):  # 20 s between two looks at each
            workers.wake(("n", f"p{number}"), "first")
        await until(lambda: len(passes.begun) == 40)
        await asyncio.sleep(0.6)
        assert len(passes.begun) == 40
        passes.outcome = Outcome(again=0.01)
        workers.wake(("n", "p0"), "changed")
        await until(lambda: len(passes.begun) >= 43)
        await workers.close()

    story(test)


def test_so_many_passes_at_once_and_no_more(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)

    async def test():
        passes = Passes()
        workers = Workers(passes, lambda key, outcome: None)
        passes.gate.clear()
        for number in range(10):
            workers.wake(("n", f"p{number}"), "first")
        await until(lambda: len(passes.begun) == 3)
        await asyncio.sleep(0.02)
        assert len(passes.begun) == 3
        passes.gate.set()
        await until(lambda: len(passes.begun) == 10)
        await workers.close()

    story(test)


def test_whom_something_has_woken_goes_before_those_whose_time_has_come(monkeypatch):
    """Many Poolers whose target does not answer come back again and again, and hold their turns for long."""
    monkeypatch.setattr(module, "AT_ONCE", 1)

    async def test():
        passes = Passes()
        passes.outcome = Outcome(again=0.01)
        workers = Workers(passes, lambda key, outcome: None)
        passes.gate.clear()
        for number in range(5):
            workers.wake(("n", f"p{number}"), "first")
        await until(lambda: len(passes.begun) == 1)
        passes.gate.set()
        await until(lambda: len(passes.begun) >= 15)
        passes.gate.clear()
        await asyncio.sleep(0.05)  # the time of the others has come
        begun = len(passes.begun)
        workers.wake(("n", "p3"), "the Pooler")
        workers.wake(("n", "new"), "the Pooler")
        await asyncio.sleep(0)
        passes.gate.set()
        await until(lambda: len(passes.begun) >= begun + 2)
        assert set(passes.begun[begun : begun + 3]) >= {("n", "new"), ("n", "p3")}
        await workers.close()

    story(test)


def test_nobody_who_was_stopped_is_given_a_turn():
    async def test():
        turns, begun = module._Turns(1), []

        async def first():
            async with turns.turn(module._Worker()):
                await until(lambda: len(turns._waiting) == 2)
                waits.cancel()  # and it has not heard of it when the turn is free

        async def more(name):
            async with turns.turn(module._Worker()):
                begun.append(name)

        async with asyncio.timeout(5):
            holds = asyncio.create_task(first())
            await asyncio.sleep(0)
            waits, last = asyncio.create_task(more("stopped")), asyncio.create_task(more("last"))
            await asyncio.gather(holds, waits, last, return_exceptions=True)
        assert holds.exception() is None
        assert begun == ["last"]

    story(test)


def test_a_turn_that_is_given_to_one_who_is_being_stopped_is_passed_on():
    async def test():
        turns, begun, gate = module._Turns(1), [], asyncio.Event()

        async def work(name):
            async with turns.turn(module._Worker()):
                begun.append(name)
                await gate.wait()

        tasks = [asyncio.create_task(work(name)) for name in "abc"]
        await until(lambda: begun == ["a"])
        gate.set()
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()  # in the moment in which the turn is given to it
        await asyncio.gather(*tasks, return_exceptions=True)
        assert "c" in begun
        async with turns.turn(module._Worker()):
            begun.append("free again")

    story(test)
