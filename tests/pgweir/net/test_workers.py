"""What is heavy runs in threads, which are gone a while after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pgweir.net import workers
from pgweir.net.workers import Workers

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(workers, "LINGER", 0.05)
    yield
    assert not threads()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("pbkdf2", "ldap"))]


async def gone() -> None:
    async with asyncio.timeout(PATIENCE):
        while threads():
            await asyncio.sleep(0.005)


async def computed(room: Workers) -> str:
    """The name of the thread that did it; the answer comes on the loop."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    room.compute(lambda: threading.current_thread().name, answer.set_result)
    async with asyncio.timeout(PATIENCE):
        return await answer


def test_heavy_work_is_done_in_a_thread_that_goes_when_there_is_no_more_and_comes_again_when_there_is() -> None:
    async def story() -> None:
        room = Workers()
        for _ in range(2):
            assert (await computed(room)).startswith("pbkdf2")
            assert threads()  # it lingers: what comes next need not start one
            assert (await computed(room)).startswith("pbkdf2")
            await gone()
        room.close()

    asyncio.run(story())


def test_a_thread_does_not_go_while_another_work_is_under_way() -> None:
    async def story() -> None:
        room = Workers()
        may_end = threading.Event()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[bool] = loop.create_future()
        room.compute(lambda: may_end.wait(PATIENCE), ended.set_result)
        await asyncio.sleep(0.2)  # four times what it lingers
        assert threads()
        may_end.set()
        async with asyncio.timeout(PATIENCE):
            assert await ended
        await gone()
        room.close()

    asyncio.run(story())


def test_after_the_end_a_thread_ends_with_the_work_that_was_under_way() -> None:
    async def story() -> None:
        room = Workers()
        may_end = threading.Event()
        room.compute(lambda: may_end.wait(PATIENCE), lambda _: None)
        room.close()
        assert threads()
        may_end.set()
        await gone()

    asyncio.run(story())
