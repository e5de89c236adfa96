"""Tests that are told on an event loop: run one with a limit, and wait for what it brings about."""

import asyncio


async def until(reached):
    for _ in range(2000):
        if reached():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def story(test):
    asyncio.run(asyncio.wait_for(test(), 30))
