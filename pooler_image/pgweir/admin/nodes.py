"""The PostgreSQL hosts as pgpool's users know them: nodes that are up or down, and since when (SHOW POOL_NODES).

They are looked at when somebody asks, by a TCP connection that is closed again: nothing runs while nobody looks, and what is said
here never changes where clients are sent. Called by `commands`; `lifecycle` owns the one instance.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

LOOK_TIMEOUT: Final = 3.0  # seconds that a node may take to accept a connection

Address = tuple[str, int]
Status = Literal["waiting", "up", "down"]
"""pgpool's words; `waiting` has not been looked at yet."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A node's status, and since when (by the calendar)."""

    status: Status = "waiting"
    since: float = 0.0


class Nodes:
    """What was seen of each node."""

    def __init__(self) -> None:
        self._seen: dict[Address, Seen] = {}
        self._looks: set[asyncio.Task[None]] = set()

    def seen(self, address: Address) -> Seen:
        return self._seen.get(address, Seen())

    def note(self, address: Address, is_up: bool, now: float) -> None:
        status: Status = "up" if is_up else "down"
        if self.seen(address).status != status:
            self._seen[address] = Seen(status, now)

    def look(self, addresses: Iterable[Address], done: Callable[[], None]) -> Callable[[], None]:
        """See which of these accept connections, then call `done`. Answers how to give up."""
        task = asyncio.get_running_loop().create_task(self._look(list(addresses), done))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

        def stop() -> None:
            task.cancel()

        return stop

    async def _look(self, addresses: list[Address], done: Callable[[], None]) -> None:
        answers = await asyncio.gather(*(_accepts(address) for address in addresses))
        for address, is_up in zip(addresses, answers, strict=True):
            if is_up is not None:
                self.note(address, is_up, time.time())
        done()


async def _accepts(address: Address) -> bool | None:
    """Whether it takes a connection. None: its name cannot be resolved, which says nothing about the node."""
    host, port = address
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            if host.startswith(("/", "@")):
                path = f"{host}/.s.PGSQL.{port}"
                path = "\0" + path[1:] if host.startswith("@") else path
                _, writer = await asyncio.open_unix_connection(path)
            else:
                _, writer = await asyncio.open_connection(host, port)
    except socket.gaierror:
        return None
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
