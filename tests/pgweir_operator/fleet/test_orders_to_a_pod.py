"""The orders of a switchover, from the operator's own client to a pod as a process: both sides mean the same."""

from __future__ import annotations

import asyncio

from tests.pooler.pod import Pod

from pgweir_operator.api.observed import PodReport, PodSilence


def test_a_real_pod_is_held_released_and_routed_by_the_operators_own_client(tmp_path):
    pod = Pod(tmp_path, "* = host=localhost port=1")
    member = pod.process.member

    async def orders():
        async with pod.process.fleet() as fleet:
            held = await fleet.hold(member, "move-1", ceiling=30.0, release_when="told")
            assert isinstance(held, PodReport), held
            assert (held.hold.id, held.hold.drained, held.state) == ("move-1", True, "active")
            released = await fleet.release(member, "move-1")
            assert released.hold is None
            assert (released.last_hold.id, released.last_hold.ended_by) == ("move-1", "told")
            await fleet.hold(member, "move-2", ceiling=30.0, release_when="restarted")
            routed = await fleet.route(member, "move-2", host="localhost", address="127.0.0.1", seconds=60.0)
            assert routed.hold is None
            assert (routed.last_hold.id, routed.last_hold.ended_by) == ("move-2", "route")
            assert (routed.route.host, routed.route.address) == ("localhost", "127.0.0.1")
            assert (await fleet.ask(member)).route is not None
            refused = await fleet.hold(member, "not an id", ceiling=30.0, release_when="told")
            assert isinstance(refused, PodSilence)
            assert "id is" in refused.error

    try:
        asyncio.run(asyncio.wait_for(orders(), 30))
    finally:
        pod.stop()
