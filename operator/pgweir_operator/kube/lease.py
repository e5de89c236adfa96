"""One leader: a Lease that one replica holds and renews; whoever loses it stops at once.

`decide` is pure. A foreign Lease is judged by when *we* last saw it change, never by the time written in it: clocks of
two nodes differ. Called by main.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pgweir_operator.kube.api import Kube, Object
from pgweir_operator.kube.errors import ApiError, ConflictError

logger = logging.getLogger(__name__)


class Step(Enum):
    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The holder gives up before `duration` is over, so that two never believe to lead."""

    duration: float = 15.0
    give_up: float = 10.0
    retry: float = 2.0


def decide(lease: Mapping[str, Any] | None, *, me: str, unchanged_for: float, duration: float, pod: str = "") -> Step:
    """What to do about the Lease as it was read; `unchanged_for`: how long we have seen it like this.

    `pod`: ours. Whoever holds the Lease under its name is a process that was here before us, and it has ended: a container
    that was killed leads again at once.
    """
    if lease is None:
        return Step.CREATE
    holder = (lease.get("spec") or {}).get("holderIdentity")
    if holder == me:
        return Step.RENEW
    if holder and pod and holder.rpartition("_")[0] == pod:
        return Step.TAKE
    written = float((lease.get("spec") or {}).get("leaseDurationSeconds") or duration)
    return Step.TAKE if not holder or unchanged_for > written else Step.WAIT


class Leadership:
    """Acquire, keep, release."""

    def __init__(
        self, kube: Kube, *, namespace: str, name: str, identity: str, pod: str = "", timing: Timing | None = None
    ) -> None:
        self._kube = kube
        self._pod = pod
        self._namespace = namespace
        self._name = name
        self._me = identity
        self._timing = timing or Timing()
        self._seen: tuple[str, float] = ("", 0.0)
        self._ours: Object | None = None
        """As we wrote it last: while nobody else does, renewing is one request."""
        self.is_leader = False

    async def acquire(self) -> None:
        """Returns when this replica leads."""
        waiting_for = None
        while True:
            try:
                lease = await self._read()
                holder = ((lease or {}).get("spec") or {}).get("holderIdentity")
                if await self._try(lease):
                    logger.info("leading: Lease %s/%s is held by %s", self._namespace, self._name, self._me)
                    self.is_leader = True
                    return
                if holder != waiting_for:
                    logger.info("standing by: Lease %s/%s is held by %s", self._namespace, self._name, holder)
                    waiting_for = holder
            except ApiError as error:
                logger.warning("Lease %s/%s cannot be had: %s", self._namespace, self._name, error.message)
            await asyncio.sleep(self._timing.retry)

    async def keep(self) -> None:
        """Renews; returns when the Lease is lost. Whoever called must stop acting then."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._timing.retry)
            try:
                async with asyncio.timeout(self._timing.retry * 2):
                    lease = self._ours or await self._read()
                    holder = ((lease or {}).get("spec") or {}).get("holderIdentity")
                    if lease is not None and holder and holder != self._me:
                        logger.error("the Lease was taken by %s", holder)
                        break
                    if await self._try(lease):
                        renewed = time.monotonic()
            except (ApiError, TimeoutError) as error:
                logger.warning("the Lease was not renewed: %s", error or type(error).__name__)
            if time.monotonic() - renewed > self._timing.give_up:
                logger.error("the Lease was not renewed for %g s", self._timing.give_up)
                break
        self.is_leader = False

    async def release(self) -> None:
        """Let the next replica lead at once."""
        if not self.is_leader:
            return
        self.is_leader = False
        try:
            lease = await self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._me:
                await self._kube.replace({**lease, "spec": {**lease["spec"], "holderIdentity": None}})
        except ApiError as error:
            logger.warning("the Lease was not released: %s", error.message)

    async def _read(self) -> Object | None:
        lease = await self._kube.get("Lease", self._namespace, self._name)
        version = lease["metadata"]["resourceVersion"] if lease else ""
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        return lease

    async def _try(self, lease: Object | None) -> bool:
        unchanged_for = time.monotonic() - self._seen[1]
        step = decide(lease, me=self._me, unchanged_for=unchanged_for, duration=self._timing.duration, pod=self._pod)
        if step is Step.WAIT:
            return False
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((lease or {}).get("spec") or {})
        if step is not Step.RENEW:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        spec |= {"holderIdentity": self._me, "leaseDurationSeconds": round(self._timing.duration), "renewTime": now}
        try:
            if lease is None:
                metadata = {"namespace": self._namespace, "name": self._name}
                self._ours = await self._kube.create(
                    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
                )
            else:
                self._ours = await self._kube.replace({**lease, "spec": spec})
        except ApiError as error:
            self._ours = None  # Somebody else was faster, or nobody knows.
            if isinstance(error, ConflictError):
                return False
            raise
        return True
