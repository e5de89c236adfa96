"""Tests that are told on an event loop: run one with a limit, and wait for what it brings about."""

import asyncio

PATIENCE = 60.0  # only a failure takes so long; a busy machine may take some of it


async def until(reached):
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.005)


def story(test):
    asyncio.run(asyncio.wait_for(test(), 2 * PATIENCE))
