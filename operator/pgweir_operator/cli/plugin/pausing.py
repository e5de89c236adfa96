"""`kubectl pgweir pause` and `resume`: the spec says it, and --wait stays until every pod has proved it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DEADLINE, DONE
from pgweir_operator.cli.plugin.cluster import Cluster
from pgweir_operator.kube.api import Object

LOOK_EVERY: Final = 0.3
# Paused has the status that is waited for, and is not what was asked for: a pause that was given up, pods not yet resumed.
_NOT_YET: Final = frozenset({"PauseTimedOut", "Resuming"})


async def set_paused(cluster: Cluster, name: str, paused: bool, *, wait: bool, timeout: float) -> int:
    """Both spellings are set for a resume: either one pauses."""
    pooler = await cluster.pooler(name)
    spec: dict[str, Any] = {"paused": paused}
    if not paused and ((pooler.get("spec") or {}).get("pgbouncer") or {}).get("paused"):
        spec["pgbouncer"] = {"paused": False}
    changed = await cluster.kube.merge("Pooler", cluster.namespace, name, {"spec": spec})
    verb = "pause" if paused else "resume"
    if not wait:
        screen.say(f"pooler {name}: {verb} asked for; kubectl pgweir status {name} shows how far it is")
        return DONE
    return await _until(cluster, name, paused, int(changed["metadata"]["generation"]), timeout)


async def _until(cluster: Cluster, name: str, paused: bool, generation: int, timeout: float) -> int:
    started = time.monotonic()
    wanted = "True" if paused else "False"
    told = ""
    with progress() as bar:
        task = bar.add_task(f"{name}: {'pausing' if paused else 'resuming'}", total=None)
        while True:
            pooler = await cluster.pooler(name)
            condition = condition_of(pooler, "Paused")
            status = pooler.get("status") or {}
            seen = int(condition.get("observedGeneration") or 0) >= generation
            if seen and condition.get("status") == wanted and condition.get("reason") not in _NOT_YET:
                break
            message = str(condition.get("message") or "") if seen else "the operator has not answered yet"
            if seen and message and message != told and not screen.err.is_terminal:
                screen.complain(message)
            told = message
            done = int(status.get("pausedInstances") or 0)
            total = max(int(status.get("instances") or 0), 1)
            text = f"{name}: {done} of {total} pods paused; {_first_line(message)}"
            bar.update(task, description=text, completed=done if paused else total - done, total=total)
            if time.monotonic() - started > timeout:
                screen.complain(_overdue(name, paused, timeout, message))
                return DEADLINE
            await asyncio.sleep(LOOK_EVERY)
    took = time.monotonic() - started
    screen.say(f"pooler {name}: {'paused: no pod holds a server' if paused else 'resumed'} (after {took:.1f} s)")
    return DONE


def _overdue(name: str, paused: bool, timeout: float, message: str) -> str:
    if not paused:
        return f"pooler {name} is not resumed after {timeout:g} s: {message}"
    return (
        f"pooler {name} is not paused after {timeout:g} s: {message}\n"
        f"The pause goes on and new transactions wait; kubectl pgweir resume {name} gives it up."
    )


def condition_of(pooler: Object, kind: str) -> dict[str, Any]:
    """The condition's row, or an empty one."""
    rows: list[dict[str, Any]] = (pooler.get("status") or {}).get("conditions") or []
    return next((row for row in rows if row["type"] == kind), {})


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def progress() -> Progress:
    """On a terminal alone: elsewhere the sentences are printed as they come."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    return Progress(*columns, console=screen.err, transient=True, disable=not screen.err.is_terminal)
