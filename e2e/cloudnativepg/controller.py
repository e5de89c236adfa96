"""CloudNativePG's operator, as far as a pooler can tell: it keeps one pair and plays the status timeline of its events.

What it does and when it does it was measured on CloudNativePG 1.30 (TIMES). Beside the real steps (a shutdown, a
promotion) it waits until the moment at which CloudNativePG would come to it. It is a program beside the test:

    python -m e2e.cloudnativepg.controller NAMESPACE CLUSTER

It prints one JSON object a line, `{"at": unix time, "event": …}`, and takes orders on stdin: `switchover` (what
`kubectl cnpg promote` does: the Cluster's status is patched, nothing else), `restart` (in place, as `kubectl cnpg
restart`), `kill` (kill -9 of the primary's postmaster), `lose` (the primary's pod is deleted by force). It acts on the
Cluster's status, whoever writes it. The API server is reached through `kubectl proxy` on a Unix socket, the pods through
the API server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from e2e.cloudnativepg.instance import PORT
from e2e.cloudnativepg.manifests import GROUP, manifests, pods
from e2e.kubernetes_access import WRAPPERS

HEALTHY = "Cluster in healthy state"
SWITCHOVER = "Switchover in progress"
FAILOVER = "Failing over"
IN_PLACE = "Primary instance is being restarted in-place"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds after the first signal, as CloudNativePG was seen to take them; never earlier, later where it takes so."""

    old_label_goes: float = 0.2  # 0.15 to 0.31
    sessions_are_closed: float = 0.7  # 0.48 to 1.07
    lease_is_released: float = 1.1  # 1.1 to 2.3
    lease_is_taken: float = 2.3  # 2.3 to 2.6
    current_primary: float = 3.3  # 3.2 to 5.5
    endpoint_is_late: float = 4.0  # after current_primary; 3.8 to 4.4
    failover_lease_is_released: float = 0.48
    failover_is_seen: float = 2.7  # 2.7 to 3.6
    failover_current_primary: float = 4.2  # 4.2 to 5.2
    smart_shutdown: float = 30.0  # 180 by default there


TIMES = Times()


def note(event: str, **more: object) -> None:
    print(json.dumps({"at": time.time(), "event": event, **more}), flush=True)


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Api:
    """The API server, through `kubectl proxy`."""

    session: aiohttp.ClientSession
    namespace: str
    cluster: str

    @property
    def _cluster_path(self) -> str:
        return f"/apis/{GROUP}/v1/namespaces/{self.namespace}/clusters/{self.cluster}"

    async def request(self, method: str, path: str, body: object = None) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {} if body is None else {"Content-Type": kind}
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, f"http://localhost{path}", data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text}")
            return json.loads(text) if text.strip() else None

    async def delete_by_force(self, pod: str) -> None:
        await self.request("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{pod}?gracePeriodSeconds=0")

    async def make_again(self, pod: str) -> None:
        """With nothing in it; its role is another one's meanwhile."""
        made = manifests(self.namespace, self.cluster)
        manifest = next(each for each in made if each["kind"] == "Pod" and each["metadata"]["name"] == pod)
        manifest["metadata"]["labels"]["cnpg.io/instanceRole"] = "unhealthy"
        await self.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", manifest)

    async def order(self, pod: str, order: str, **options: object) -> Any:
        """Of the pod's instance.py."""
        query = "&".join(f"{key}={value}" for key, value in options.items())
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{PORT}/proxy/{order}"
        return await self.request("GET" if order == "status" else "POST", f"{path}?{query}")

    async def patch_status(self, **status: object) -> None:
        await self.request("PATCH", f"{self._cluster_path}/status", {"status": status})

    async def label(self, pod: str, role: str) -> None:
        body = {"metadata": {"labels": {"cnpg.io/instanceRole": role}}}
        await self.request("PATCH", f"/api/v1/namespaces/{self.namespace}/pods/{pod}", body)

    async def lease(self, holder: str) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{self.cluster}"
        await self.request("PATCH", path, {"spec": {"holderIdentity": holder, "renewTime": timestamp()}})
        note("lease", holder=holder)

    async def status_changes(self) -> Any:
        """The Cluster's status now and after each change, from the API server's watch."""
        path = f"/apis/{GROUP}/v1/namespaces/{self.namespace}/clusters?watch=1"
        path += f"&fieldSelector=metadata.name={self.cluster}"
        while True:
            async with self.session.get(f"http://localhost{path}", timeout=aiohttp.ClientTimeout(total=None)) as answer:
                async for line in answer.content:
                    change = json.loads(line)
                    if change["type"] in ("ADDED", "MODIFIED"):
                        yield change["object"].get("status", {})

    async def pod_address(self, pod: str) -> str:
        found = await self.request("GET", f"/api/v1/namespaces/{self.namespace}/pods/{pod}")
        return str(found.get("status", {}).get("podIP") or "")


@dataclass(slots=True)
class Controller:
    api: Api
    primary: str
    standby: str
    addresses: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    _began: float = 0.0

    # --- from nothing to healthy -------------------------------------------------------------------------------------

    async def begin(self) -> None:
        for pod in (self.primary, self.standby):
            self.addresses[pod] = await self._address(pod)
        await self.api.order(self.primary, "initialise")
        await self.api.order(self.primary, "start", role="primary")
        await self.api.order(self.standby, "start", role="standby")
        await self._healthy()

    async def _address(self, pod: str) -> str:
        """The pod's, once its instance.py answers."""
        for _ in range(1800):
            if address := await self.api.pod_address(pod):
                with suppress(RuntimeError):
                    await self.api.order(pod, "status")
                    return address
            await asyncio.sleep(0.1)
        raise RuntimeError(f"pod {pod} does not answer after three minutes")

    async def _healthy(self) -> None:
        """Wait until the standby follows, and say that all is well."""
        while not (await self.api.order(self.primary, "status")).get("streaming"):
            await asyncio.sleep(0.1)
        await self.api.label(self.standby, "replica")
        now, cluster = timestamp(), self.api.cluster
        await self.api.patch_status(
            phase=HEALTHY,
            phaseReason=None,
            currentPrimary=self.primary,
            targetPrimary=self.primary,
            instances=2,
            readyInstances=2,
            instanceNames=[*pods(cluster)],
            instancesStatus={"healthy": [*pods(cluster)]},
            instancesReportedState=await self._reported(),
            writeService=f"{cluster}-rw",
            readService=f"{cluster}-r",
            certificates={
                "clientCASecret": f"{cluster}-ca",
                "serverCASecret": f"{cluster}-ca",
                "serverTLSSecret": f"{cluster}-server",
            },
            conditions=[_ready(True, now)],
        )
        note("healthy", primary=self.primary)

    async def _reported(self) -> dict[str, object]:
        state: dict[str, object] = {}
        for pod in pods(self.api.cluster):
            try:
                timeline = (await self.api.order(pod, "status")).get("timeline", 0)
            except RuntimeError:
                continue  # there is no such pod now
            state[pod] = {"ip": self.addresses[pod], "isPrimary": pod == self.primary, "timeLineID": timeline}
        return state

    # --- what happens to it ------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Act on what the status says, whoever wrote it."""
        async for status in self.api.status_changes():
            if self.busy or not status:
                continue
            if status.get("phase") == IN_PLACE:
                await self._run("restart", self._restart_in_place())
            elif status.get("targetPrimary") != status.get("currentPrimary"):
                await self._run("switchover", self._switch_over())

    async def guard(self) -> None:
        """A primary that is gone of itself is failed over from."""
        while True:
            await asyncio.sleep(0.1)
            if not self.busy and not await self._runs(self.primary) and not self.busy:
                await self._run("failover", self._fail_over())

    async def _runs(self, pod: str) -> bool:
        try:
            return bool((await self.api.order(pod, "status"))["runs"])
        except RuntimeError:
            if not self.busy:
                raise
            return False  # a pod that was taken away meanwhile

    async def _run(self, name: str, event: Any) -> None:
        self.busy, self._began = True, time.monotonic()
        note(f"{name} begins")
        try:
            await event
        finally:
            self.busy = False
        note(f"{name} ends", seconds=time.monotonic() - self._began)

    async def _at(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self._began + seconds - time.monotonic()))

    async def _switch_over(self) -> None:
        old, new = self.primary, self.standby
        await self._at(TIMES.old_label_goes)
        await self.api.label(old, "unhealthy")
        note("label", pod=old, role="unhealthy")
        await self._at(TIMES.sessions_are_closed)
        note("shutdown")
        stopped = await self.api.order(old, "stop", mode="fast")
        note("down", **stopped)
        await self._at(TIMES.lease_is_released)
        await self.api.lease("")
        await self._at(TIMES.lease_is_taken)
        await self._promote(new, TIMES.current_primary)
        rejoins = asyncio.create_task(self.api.order(old, "start", role="standby"))
        await self._label_late(new)
        await rejoins
        await self._healthy()

    async def _promote(self, new: str, current_primary: float) -> None:
        self.primary, self.standby = new, self.primary
        await self.api.lease(new)
        await self.api.order(new, "promote")
        note("writable", pod=new)
        await self._at(current_primary)
        state = await self._reported()
        await self.api.patch_status(
            currentPrimary=new, currentPrimaryTimestamp=timestamp(), instancesReportedState=state
        )
        note("currentPrimary", pod=new)
        # The new primary's instance manager comes to the roles in its next round.
        await asyncio.sleep(0.1)
        await self.api.order(new, "passwords")
        note("passwords")

    async def _label_late(self, new: str) -> None:
        await asyncio.sleep(TIMES.endpoint_is_late)
        await self.api.label(new, "primary")
        note("label", pod=new, role="primary")

    async def _fail_over(self) -> None:
        old, new = self.primary, self.standby
        await self._at(TIMES.failover_lease_is_released)
        await self.api.lease("")
        await self._at(TIMES.failover_is_seen)
        await self.api.label(old, "unhealthy")
        ready = [_ready(False, timestamp())]
        since = timestamp()
        await self.api.patch_status(
            phase=FAILOVER, targetPrimary="pending", targetPrimaryTimestamp=since, readyInstances=1, conditions=ready
        )
        note("pending")
        await asyncio.sleep(0.1)
        await self.api.patch_status(targetPrimary=new, targetPrimaryTimestamp=timestamp())
        note("targetPrimary", pod=new)
        await self._promote(new, TIMES.failover_current_primary)
        await self._label_late(new)
        await self.api.order(old, "forget")
        await self.api.order(old, "start", role="standby")
        await self._healthy()

    async def _lose_the_primary(self) -> None:
        """As a failover from a killed one, but that there is no pod any more that could be told anything."""
        old, new = self.primary, self.standby
        await self.api.delete_by_force(old)
        note("killed", pod=old)
        await self._at(TIMES.failover_is_seen)
        ready = [_ready(False, timestamp())]
        await self.api.patch_status(
            phase=FAILOVER,
            targetPrimary=new,
            targetPrimaryTimestamp=timestamp(),
            readyInstances=1,
            instancesReportedState={old: None},
            conditions=ready,
        )
        note("targetPrimary", pod=new)
        await self._promote(new, TIMES.failover_current_primary)
        await self._label_late(new)
        await self.api.make_again(old)
        self.addresses[old] = await self._address(old)
        await self.api.order(old, "start", role="standby")
        await self._healthy()

    async def _restart_in_place(self) -> None:
        note("shutdown")
        stopped = await self.api.order(self.primary, "stop", mode="smart", timeout=TIMES.smart_shutdown)
        note("down", **stopped)
        await self.api.order(self.primary, "start", role="primary")
        note("accepts")
        await self._healthy()

    # --- orders ------------------------------------------------------------------------------------------------------

    async def obey(self) -> None:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            note("order", order=line.strip())
            match line.strip():
                case "switchover":
                    since = timestamp()
                    await self.api.patch_status(
                        targetPrimary=self.standby,
                        targetPrimaryTimestamp=since,
                        phase=SWITCHOVER,
                        phaseReason=f"Switching over to {self.standby}",
                        conditions=[_ready(False, since)],
                    )
                case "restart":
                    await self.api.patch_status(
                        phase=IN_PLACE, phaseReason="Requested by the user", conditions=[_ready(False, timestamp())]
                    )
                case "kill":
                    await self.api.order(self.primary, "kill")
                    note("killed", pod=self.primary)
                case "lose":
                    await self._run("failover", self._lose_the_primary())
                case other:
                    note("not understood", order=other)


def _ready(is_ready: bool, since: str) -> dict[str, str]:
    return {
        "type": "Ready",
        "status": "True" if is_ready else "False",
        "reason": "ClusterIsReady" if is_ready else "ClusterIsNotReady",
        "message": "Cluster is Ready" if is_ready else "Cluster Is Not Ready",
        "lastTransitionTime": since.split(".")[0] + "Z",
    }


async def _listens(socket: Path) -> None:
    """The file is there a moment before anybody listens."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_unix_connection(socket)
            writer.close()
            return
        await asyncio.sleep(0.02)


async def serve(namespace: str, cluster: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket, devnull = Path(folder) / "proxy", asyncio.subprocess.DEVNULL
        proxy = await asyncio.create_subprocess_exec(
            str(WRAPPERS / "kubectl"), "proxy", f"--unix-socket={socket}", stdout=devnull, stderr=devnull
        )
        try:
            await _listens(socket)
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
                first, second = pods(cluster)
                controller = Controller(Api(session, namespace, cluster), first, second)
                await controller.begin()
                tasks = [asyncio.create_task(each()) for each in (controller.follow, controller.guard, controller.obey)]
                # Orders end with stdin, and all else with them; whatever fails ends it, too.
                done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
                for task in done:
                    task.result()
        finally:
            proxy.terminate()
            await proxy.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m e2e.cloudnativepg.controller")
    parser.add_argument("namespace")
    parser.add_argument("cluster")
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.namespace, options.cluster))


if __name__ == "__main__":
    main()
