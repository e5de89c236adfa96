"""A pooler that can be looked into: `python -m tests.robustness.probe SOCKET [pgweir-pooler's own arguments]`.

The process is the real one; a Unix socket beside it answers what no console tells: how many objects of which type live, how long
the collector and the janitor's tick took, how long the loop stood still. `Probed` is a PoolerProcess with such a socket.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import os
import socket
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

from tests.pooler import sanitized
from tests.pooler.process import PoolerProcess

WATCHED = ("pgweir.", "uvloop.", "asyncio.", "_asyncio.", "ssl.")


class Probed(PoolerProcess):
    """A pooler process under observation; limits of its own can be set (`descriptors`)."""

    def __init__(self, *arguments: Any, descriptors: int | None = None, **keywords: Any) -> None:
        super().__init__(*arguments, flavour="pgweir", **keywords)
        self.descriptors = descriptors

    def command(self) -> list[str]:
        command = super().command()
        command[1:3] = ["-m", "tests.robustness.probe", str(self.directory / "probe")]
        if self.descriptors is not None:
            command = ["prlimit", f"--nofile={self.descriptors}:{self.descriptors}", *command]
        return command

    def _identity(self) -> dict[str, Any]:
        root = str(Path(__file__).parents[2])
        given = sanitized.environment() or dict(os.environ)
        places = [root, f"{root}/pooler_image", f"{root}/operator", os.environ.get("PYTHONPATH", "")]
        if sanitized.FOLDER is not None:
            places = [given["PYTHONPATH"], *places]
        return {"env": {**given, "PYTHONPATH": os.pathsep.join(filter(None, places))}}

    def look(self, order: str = "count") -> dict[str, Any]:
        """`count`: objects by type, after a collection, and what collections alone freed since the last `reset` (`cycles`).
        `times`: pauses since then."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(30)
            asking.connect(str(self.directory / "probe"))
            asking.sendall(order.encode() + b"\n")
            with asking.makefile() as answer:
                found: dict[str, Any] = json.loads(answer.read())
        return found

    def rss(self) -> int:
        """KiB that the process has in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") // 1024

    def cpu(self) -> float:
        """Seconds of CPU that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def sockets(self) -> dict[str, int]:
        """TCP connections of the process as the kernel has them: {"clients": …, "servers": …}."""
        inodes = set()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        found = {"clients": 0, "servers": 0}
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[9] in inodes and columns[3] != "0A":  # LISTEN
                local, remote = (int(columns[at].rpartition(":")[2], 16) for at in (1, 2))
                if local == self.port:
                    found["clients"] += 1
                elif remote == self.server_port:
                    found["servers"] += 1
        return found


# --- inside the pooler's process -------------------------------------------------------------------------------------


class Watch:
    """Everything that is measured while the pooler serves. Pauses and ticks in CPU time: the machine may be busy."""

    def __init__(self) -> None:
        self.reset()
        self._gc_started = 0.0
        self.counting = self.counted = False  # that collection is the probe's own
        gc.callbacks.append(self._collected)

    def reset(self) -> None:
        self.pauses: dict[int, list[float]] = {0: [], 1: [], 2: []}
        self.ticks: collections.deque[float] = collections.deque(maxlen=1000)
        self.stalls: collections.Counter[int] = collections.Counter()  # by milliseconds: it must not grow with time
        self.collected = [0, 0, 0]  # what no reference count freed, by generation

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if self.counting:
            return
        if phase == "start":
            self._gc_started = time.thread_time()
        else:
            self.pauses[info["generation"]].append(time.thread_time() - self._gc_started)
            self.collected[info["generation"]] += info["collected"]

    async def heartbeat(self) -> None:
        """How late the loop is, a hundred times a second."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            if self.counted:
                self.counted = False  # it stood still for the probe
            elif (late := time.perf_counter() - before - 0.01) > 0.001:
                self.stalls[round(1000 * late)] += 1
            else:
                self.stalls[0] += 1

    def times(self) -> dict[str, Any]:
        stalls = sorted(self.stalls.elements()) or [0]
        return {
            "gc": {
                str(generation): {"count": len(found), "max_ms": 1000 * max(found, default=0.0)}
                for generation, found in self.pauses.items()
            },
            "tick": {
                "count": len(self.ticks),
                "mean_ms": 1000 * sum(self.ticks) / max(len(self.ticks), 1),
                "max_ms": 1000 * max(self.ticks, default=0.0),
            },
            "stall": {"p99_ms": stalls[int(len(stalls) * 0.99)], "max_ms": stalls[-1]},
        }


def _count(watch: Watch) -> dict[str, Any]:
    watch.counting = watch.counted = True
    watch.collected[2] += gc.collect()
    watch.counting = False
    types: collections.Counter[str] = collections.Counter()
    objects = gc.get_objects()
    for found in objects:
        kind = type(found)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name.startswith(WATCHED):
            types[name] += 1
    blocks = sys.getallocatedblocks()
    return {"types": types, "objects": len(objects), "blocks": blocks, "cycles": sum(watch.collected)}


def _garbage() -> dict[str, Any]:
    """What the collector finds, by type: objects that hold each other, which no reference count frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    types = collections.Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.garbage)
    gc.garbage.clear()
    return {"types": types}


_snapshots: list[tracemalloc.Snapshot] = []


def _grown() -> dict[str, Any]:
    if not tracemalloc.is_tracing():
        tracemalloc.start(3)
        return {}
    gc.collect()
    skipped = [tracemalloc.Filter(False, place) for place in (tracemalloc.__file__, __file__, "*/linecache.py")]
    _snapshots.append(tracemalloc.take_snapshot().filter_traces(skipped))
    if len(_snapshots) < 2:
        return {}
    before, after = _snapshots
    del _snapshots[0]
    return {str(found.traceback): found.size_diff for found in after.compare_to(before, "traceback")[:12]}


def main() -> None:
    from pgweir import executable, lifecycle
    from pgweir.session import upkeep

    path = sys.argv[1]
    watch = Watch()
    serve, tick = lifecycle.Service.run, upkeep.tick

    def timed(pooler: Any) -> None:
        before = time.thread_time()
        tick(pooler)
        watch.ticks.append(time.thread_time() - before)

    async def run(service: Any) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            match (await reader.readline()).decode().strip():
                case "count":
                    found = _count(watch)
                case "times":
                    found = watch.times()
                case "trace":  # where memory has grown since the last time this was asked
                    found = _grown()
                case "garbage":
                    found = _garbage()
                case _:
                    watch.reset()
                    found = {}
            writer.write(json.dumps(found).encode())
            writer.close()

        server = await asyncio.start_unix_server(answer, path)
        beat = asyncio.get_running_loop().create_task(watch.heartbeat())
        try:
            await serve(service)
        finally:
            beat.cancel()
            server.close()

    upkeep.tick = timed
    lifecycle.Service.run = run  # type: ignore[method-assign]
    executable.main(sys.argv[2:])


if __name__ == "__main__":
    main()
