"""The Lease: who may take it when, and that two never lead at once. The API server is a dictionary."""

from __future__ import annotations

import asyncio
import copy

import pytest

from pgweir_operator.kube import ApiError, ConflictError
from pgweir_operator.kube.lease import Leadership, Step, Timing, decide

TIMING = Timing(duration=0.3, give_up=0.2, retry=0.02)


def lease(holder, duration=15):
    return {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": duration}}


@pytest.mark.parametrize(
    ("found", "unchanged_for", "step"),
    [
        (None, 0.0, Step.CREATE),
        (lease("me"), 100.0, Step.RENEW),
        (lease("other"), 14.0, Step.WAIT),
        (lease("other"), 15.1, Step.TAKE),
        (lease("other", duration=60), 30.0, Step.WAIT),
        (lease(""), 0.0, Step.TAKE),
        (lease(None), 0.0, Step.TAKE),
    ],
)
def test_a_lease_is_taken_only_when_it_is_free_or_was_silent_for_its_whole_time(found, unchanged_for, step):
    assert decide(found, me="me", unchanged_for=unchanged_for, duration=15.0) is step


@pytest.mark.parametrize(
    ("holder", "pod", "step"),
    [
        ("operator-5-x2_aa", "operator-5-x2", Step.TAKE),
        ("operator-5-x2_aa", "operator-5-x3", Step.WAIT),
        ("operator-5-x2_aa", "operator-5", Step.WAIT),
        ("machine_aa", "", Step.WAIT),
        ("_aa", "", Step.WAIT),
    ],
    ids=["the same pod's container before", "another pod", "a part of its name", "no pod", "no name at all"],
)
def test_a_container_that_was_killed_leads_again_at_once(holder, pod, step):
    assert decide(lease(holder), me=f"{pod}_bb", unchanged_for=0.0, duration=15.0, pod=pod) is step


class Store:
    """One Lease, with the API server's optimistic locking."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.broken = False

    async def get(self, kind, namespace, name):
        await asyncio.sleep(0)
        if self.broken:
            raise ApiError(0, "no route to the API server")
        return copy.deepcopy(self.lease)

    async def create(self, manifest):
        if self.lease is not None:
            raise ConflictError(409, "exists")
        return await self._keep(manifest)

    async def replace(self, manifest):
        if self.broken:
            raise ApiError(0, "no route to the API server")
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError(409, "somebody was faster")
        return await self._keep(manifest)

    async def _keep(self, manifest):
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


def replica(store, identity, timing=TIMING):
    return Leadership(store, namespace="n", name="l", identity=identity, timing=timing)


def test_of_many_one_leads_and_the_next_follows_at_once_when_it_lets_go():
    async def story():
        store = Store()
        replicas = [replica(store, f"r{number}") for number in range(5)]
        waiting = {asyncio.create_task(one.acquire()): one for one in replicas}
        for _ in replicas:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            assert sum(one.is_leader for one in replicas) == 1
            leader = waiting.pop(done.pop())
            await leader.release()

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_leader_that_keeps_renewing_stays_leader():
    async def story():
        store = Store()
        # A machine that stands still for as long as a Lease lives takes it from whoever has it, and rightly so.
        timing = Timing(duration=30.0, give_up=20.0, retry=0.02)
        first, second = replica(store, "first", timing), replica(store, "second", timing)
        await first.acquire()
        keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
        while store.version < 20:
            done, _ = await asyncio.wait({keeping, waiting}, timeout=0.02)
            assert not done
        keeping.cancel()
        waiting.cancel()

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_leader_that_cannot_renew_gives_up():
    async def story():
        store = Store()
        leader = replica(store, "me")
        await leader.acquire()
        store.broken = True
        await leader.keep()
        assert not leader.is_leader

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_leader_whose_lease_was_taken_gives_up_at_once():
    async def story():
        store = Store()
        leader = replica(store, "me")
        await leader.acquire()
        store.lease["spec"]["holderIdentity"] = "another"
        store.lease["metadata"]["resourceVersion"] = "99"
        await leader.keep()
        assert not leader.is_leader
        await leader.release()
        assert store.lease["spec"]["holderIdentity"] == "another"

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_dead_leader_is_followed_after_its_time():
    async def story():
        store = Store()
        await replica(store, "dead").acquire()
        store.lease["spec"]["leaseDurationSeconds"] = 0.2
        await replica(store, "heir").acquire()
        assert store.lease["spec"]["holderIdentity"] == "heir"
        assert store.lease["spec"]["leaseTransitions"] == 2

    asyncio.run(asyncio.wait_for(story(), 30))
