"""`kubectl pgweir switchover`: a new primary on purpose, with every client held before anything is announced.

The order is the whole point: first every rw Pooler of the cluster says that it holds, then the Cluster's status is patched as
CloudNativePG's own plugin does, and the operators do the rest. Before that patch everything can be taken back; after it the
cluster goes its way, and the Poolers go on by themselves at their ceiling.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pgweir_operator.api import names
from pgweir_operator.api.conditions import SwitchoverPhase
from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DEADLINE, DONE
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible
from pgweir_operator.cli.plugin.pausing import progress
from pgweir_operator.kube import ApiError
from pgweir_operator.kube.api import Object
from pgweir_operator.switchover.cluster import HEALTHY

ANNOTATION: Final = names.SWITCHOVER_ANNOTATION
IN_PROGRESS: Final = "Switchover in progress"
KINDS: Final = ("Cluster", "EdbCluster")
LOOK_EVERY: Final = 0.15
_HELD: Final = frozenset({SwitchoverPhase.HELD, SwitchoverPhase.ROUTING, SwitchoverPhase.DONE})
_DONE: Final = frozenset({SwitchoverPhase.DONE})
_FAILED: Final = frozenset({SwitchoverPhase.TIMED_OUT, SwitchoverPhase.ROLLED_BACK})


class Late(Exception):
    """Something was not reached in time; the message says what."""


async def switch_over(cluster: Cluster, name: str, to: str | None, timeout: float) -> int:
    """`name` is the Cluster's, or that of one of its Poolers."""
    kind, found = await _cluster(cluster, name)
    target = chosen_target(found, to)
    own = str(found["metadata"]["name"])
    held, left_out = rw_poolers(await cluster.kube.items("Pooler", cluster.namespace), own)
    if not held:
        raise Impossible(f"no rw Pooler of cluster {own!r} holds clients in a switchover{_why(left_out)}")
    for pooler in left_out:
        screen.complain(f"{pooler}: switchover.mode is Off, so its clients will see errors")
    return await _Switchover(cluster, kind, own, target, held, timeout).run()


async def _cluster(cluster: Cluster, name: str) -> tuple[str, Object]:
    """The object of CloudNativePG or EDB, and as which of the two `kube` knows it."""
    pooler = await cluster.kube.get("Pooler", cluster.namespace, name)
    own = (((pooler or {}).get("spec") or {}).get("cluster") or {}).get("name")
    for kind in KINDS:
        for each in filter(None, (name, own)):
            found = await cluster.kube.get(kind, cluster.namespace, each)
            if found is not None:
                return kind, found
    raise Impossible(
        f"there is no CloudNativePG Cluster {own or name!r} in namespace {cluster.namespace!r}. For another PostgreSQL:"
        " kubectl pgweir pause POOLER --wait, promote, kubectl pgweir resume POOLER."
    )


def chosen_target(cluster: Mapping[str, Any], to: str | None) -> str:
    """The instance that becomes the primary. Raises Impossible. Pure."""
    status = cluster.get("status") or {}
    current, phase = status.get("currentPrimary"), status.get("phase")
    if phase != HEALTHY or status.get("targetPrimary") != current:
        raise Impossible(
            f"the cluster is not at rest: phase {phase!r}, primary {current}, target {status.get('targetPrimary')}; wait"
        )
    healthy = (status.get("instancesStatus") or {}).get("healthy") or status.get("instanceNames") or []
    standbys = sorted(instance for instance in healthy if instance != current)
    if to is None and len(standbys) == 1:
        return str(standbys[0])
    if to in standbys:
        return str(to)
    if not standbys:
        raise Impossible(f"the cluster has no healthy instance beside its primary {current}")
    said = f"{to!r} is no healthy standby" if to else "say which"
    raise Impossible(f"{said}: --to {' or --to '.join(standbys)}")


def rw_poolers(poolers: Sequence[Mapping[str, Any]], cluster: str) -> tuple[list[str], list[str]]:
    """Names of the Poolers that lead to this cluster's primary: those that hold, and those whose mode is Off. Pure."""
    held: list[str] = []
    left_out: list[str] = []
    for pooler in poolers:
        spec = pooler.get("spec") or {}
        if (spec.get("cluster") or {}).get("name") != cluster or spec.get("type", "rw") != "rw":
            continue
        off = (spec.get("switchover") or {}).get("mode", "Automatic") == "Off"
        (left_out if off else held).append(str(pooler["metadata"]["name"]))
    return sorted(held), sorted(left_out)


def _why(left_out: Sequence[str]) -> str:
    return (
        f" ({', '.join(left_out)}: switchover.mode is Off)" if left_out else "; kubectl cnpg promote does it without us"
    )


class _Switchover:
    def __init__(self, cluster: Cluster, kind: str, name: str, target: str, poolers: list[str], timeout: float) -> None:
        self._cluster = cluster
        self._kind = kind
        self._name = name
        self._target = target
        self._poolers = poolers
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self.id = f"plugin-{int(time.time())}-{secrets.token_hex(3)}"

    async def run(self) -> int:
        started = time.monotonic()
        until = datetime.fromtimestamp(time.time() + self._timeout, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        patched = False
        with progress() as bar:
            task = bar.add_task("holding clients", total=None)

            def show(text: str) -> None:
                bar.update(task, description=text)
                if not screen.err.is_terminal:
                    screen.complain(text)

            try:
                show(f"{', '.join(self._poolers)}: holding clients")
                await self._annotate(f"{self.id} {until}")
                await self._until_phase(_HELD, "held")
                show(
                    f"every client is held after {time.monotonic() - started:.1f} s; {self._target} is to be the primary"
                )
                await self._signal()
                patched = True
                await self._until_promoted()
                show(f"{self._target} is the primary; clients go on as its address is known")
                await self._until_phase(_DONE, "led to the new primary")
            except (Late, ApiError, asyncio.CancelledError) as error:
                await self._annotate(None)
                return self._gave_up(error, patched)
            await self._annotate(None)
        screen.say(f"cluster {self._name}: {self._target} is the primary (after {time.monotonic() - started:.1f} s)")
        for name, status in (await self._statuses()).items():
            screen.say(f"  {name}: clients waited {int(status.get('heldMilliseconds') or 0)} ms")
        return DONE

    def _gave_up(self, error: BaseException, patched: bool) -> int:
        if not isinstance(error, Late):
            screen.complain(
                "taken back: nothing was changed" if not patched else "the cluster goes on with its switchover"
            )
            raise error
        if patched:
            screen.complain(
                f"{error}. The cluster goes on with what it has begun (kubectl get cluster {self._name}); held clients go on by"
                " themselves at the ceiling of their Pooler."
            )
        else:
            screen.complain(f"{error}. Taken back: the cluster was not touched, and the clients go on.")
        return DEADLINE

    async def _annotate(self, value: str | None) -> None:
        body = {"metadata": {"annotations": {ANNOTATION: value}}}
        found = await asyncio.gather(
            *(self._cluster.kube.merge("Pooler", self._cluster.namespace, name, body) for name in self._poolers),
            return_exceptions=value is None,
        )
        for name, answer in zip(self._poolers, found, strict=True):
            if isinstance(answer, BaseException):
                screen.complain(f"pooler {name}: the annotation {ANNOTATION} stays and ends by its deadline ({answer})")

    async def _statuses(self) -> dict[str, dict[str, Any]]:
        """status.switchover of each Pooler, as far as it is about this one."""
        found = await asyncio.gather(*(self._cluster.pooler(name) for name in self._poolers))
        return {
            pooler["metadata"]["name"]: status
            for pooler in found
            if (status := (pooler.get("status") or {}).get("switchover") or {}).get("id") == self.id
        }

    async def _until_phase(self, phases: frozenset[SwitchoverPhase], word: str) -> None:
        while True:
            statuses = await self._statuses()
            failed = [f"{name}: {row.get('message') or row['phase']}" for name, row in statuses.items() if _failed(row)]
            if failed:
                raise Late(f"not {word}: {'; '.join(failed)}")
            missing = [name for name in self._poolers if statuses.get(name, {}).get("phase") not in phases]
            if not missing:
                return
            if time.monotonic() > self._deadline:
                said = "; ".join(
                    f"{name}: {statuses.get(name, {}).get('message') or 'the operator has not answered'}"
                    for name in missing
                )
                raise Late(f"not {word} within {self._timeout:g} s: {said}")
            await asyncio.sleep(LOOK_EVERY)

    async def _signal(self) -> None:
        """What `kubectl cnpg promote` writes, in one patch."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        status = {
            "targetPrimary": self._target,
            "targetPrimaryTimestamp": now,
            "phase": IN_PROGRESS,
            "phaseReason": f"Switching over to {self._target}",
        }
        await self._cluster.kube.merge_status(self._kind, self._cluster.namespace, self._name, status)

    async def _until_promoted(self) -> None:
        while True:
            found = await self._cluster.kube.get(self._kind, self._cluster.namespace, self._name)
            status = (found or {}).get("status") or {}
            if status.get("currentPrimary") == self._target:
                return
            if time.monotonic() > self._deadline:
                raise Late(f"{self._target} is not the primary within {self._timeout:g} s: {status.get('phase')}")
            await asyncio.sleep(LOOK_EVERY)


def _failed(row: Mapping[str, Any]) -> bool:
    return row.get("phase") in _FAILED
