"""The operator against a real API server, without a kubelet: a world with verbs for the tests of this folder.

A `World` is one namespace with a cluster by the contract (its PostgreSQL is real), a fake kubelet that gives each pod
of a Pooler an address and a control endpoint, and the operator as a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tests.forge import Forked
from tests.pgweir_operator.fleet.fake_pod import FakePod
from tests.postgres.server import PostgresServer, free_port

from pgweir_operator.integration.certificates import KeyPair
from pgweir_operator.kube import Access, ApiError, ConflictError, Kube, connect

Manifest = dict[str, Any]
T = TypeVar("T")

ROLE = "cnp_pooler_pgbouncer"
ROLES = (ROLE, "cnpg_pooler_pgbouncer")
PATIENCE = 30.0
_octets = itertools.count(2)


class Loop:
    """An event loop in a thread, for tests that are plain functions."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()


class FakeKubelet:
    """Gives each pod of a Pooler a loopback address of its own, a control endpoint, and readiness."""

    def __init__(self, kube: Kube, namespace: str, port: int) -> None:
        self._kube = kube
        self._namespace = namespace
        self._port = port
        self.pods: dict[str, FakePod] = {}
        self.start_new_ones = True

    async def work(self) -> None:
        try:
            while True:
                await self._look()
                await asyncio.sleep(0.05)
        finally:
            for pod in self.pods.values():
                await pod.stop()

    async def _look(self) -> None:
        try:
            found = await self._kube.items("Pod", self._namespace, labels="pgweir.io/poolerName")
            names = {pod["metadata"]["name"] for pod in found if not pod["metadata"].get("deletionTimestamp")}
            for name in self.pods.keys() - names:
                await self.pods.pop(name).stop()
            for pod in found:
                if pod["metadata"]["name"] in names - self.pods.keys() and self.start_new_ones:
                    await self._start(pod)
        except ApiError:
            return  # The namespace is going, or the pod went meanwhile: the next look tells.

    async def _start(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        secret = await self._kube.get(
            "Secret", self._namespace, f"{metadata['labels']['pgweir.io/poolerName']}-control"
        )
        if secret is None:
            return
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        number = next(_octets)
        address = f"127.0.{100 + number // 250}.{1 + number % 250}"
        fake = FakePod(metadata["name"], data["ca.crt"], data["tls.crt"], data["tls.key"], address, self._port)
        await fake.start()
        self.pods[metadata["name"]] = fake
        await self.set_ready(metadata["name"], ready=True)

    async def set_ready(self, name: str, *, ready: bool) -> None:
        fake = self.pods[name]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {
            "phase": "Running",
            "podIP": fake.address,
            "podIPs": [{"ip": fake.address}],
            "startTime": now,
            "conditions": [
                {"type": kind, "status": "True" if ready else "False", "lastTransitionTime": now}
                for kind in ("Initialized", "ContainersReady", "Ready", "PodScheduled")
            ],
        }
        await self._kube.merge_status("Pod", self._namespace, name, status)


class Operator:
    """The operator as a process; its log is kept."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str]) -> None:
        self.log_file = folder / f"operator-{time.monotonic_ns()}.log"
        with self.log_file.open("wb") as log:
            command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "pgweir_operator.main", *arguments]
            self.process = Forked(command, log, folder, {**os.environ, **environment})

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self) -> int:
        """Ask it to go, as Kubernetes does; its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)


class World:
    def __init__(
        self,
        loop: Loop,
        kubeconfig: str,
        operator_kubeconfig: str,
        namespace: str,
        server: PostgresServer,
        ca: KeyPair,
        folder: Path,
    ) -> None:
        self._loop = self.loop = loop
        self._operator_kubeconfig = operator_kubeconfig
        self.namespace = namespace
        self.server = server
        self.ca = ca
        self.folder = folder
        self.operators: list[Operator] = []
        self.control_port = free_port()

        async def enter() -> tuple[Kube, FakeKubelet, asyncio.Task[None]]:
            kube = await Kube(await connect(Access(kubeconfig=kubeconfig))).__aenter__()
            await _ensure_namespace(kube, namespace)
            kubelet = FakeKubelet(kube, namespace, self.control_port)
            return kube, kubelet, asyncio.create_task(kubelet.work())

        self.kube, self.kubelet, self._kubelet_task = loop.run(enter())

    # --- the cluster that is pooled ----------------------------------------------------------------------------------

    def has_cluster(self, name: str = "shop", *, without: tuple[str, ...] = (), ca_key: bool = True) -> None:
        """Services and Secrets by the contract."""
        self.service(f"{name}-rw")
        self.secret(f"{name}-superuser", username="postgres", password="password", leave="superuser" in without)
        authority = {"ca.crt": self.ca.certificate.decode()}
        if ca_key:
            authority["ca.key"] = self.ca.key.decode()
        self.secret(f"{name}-ca", leave="ca" in without, data=authority)

    def service(self, name: str) -> None:
        ports = [{"port": 5432, "targetPort": 5432}]
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}})

    def secret(
        self, name: str, *, leave: bool = False, data: dict[str, str] | None = None, type: str = "Opaque", **more: str
    ) -> None:
        if leave:
            return
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in {**(data or {}), **more}.items()}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": type, "data": encoded})

    # --- the operator ------------------------------------------------------------------------------------------------

    def start_operator(
        self,
        *arguments: str,
        recheck: float = 5.0,
        everywhere: bool = False,
        image: str = "localhost/pgweir-pooler:dev",
        log_level: str = "DEBUG",
        kubeconfig: str = "",
        pod_name: str = "",
    ) -> Operator:
        operator = Operator(
            self.folder,
            f"--kubeconfig={kubeconfig or self._operator_kubeconfig}",
            *([] if everywhere else [f"--namespace={self.namespace}"]),
            f"--lease-namespace={self.namespace}",
            "--listen=127.0.0.1:0",
            f"--recheck={recheck}",
            *arguments,
            environment={
                "PGWEIR_CONTROL_PORT": str(self.control_port),
                "PGWEIR_DIAL_TARGET": f"127.0.0.1:{self.server.port}",
                "PGWEIR_LOG_LEVEL": log_level,
                "PGWEIR_POOLER_IMAGE": image,
                **({"POD_NAME": pod_name} if pod_name else {}),
            },
        )
        self.operators.append(operator)
        return operator

    # --- Poolers -----------------------------------------------------------------------------------------------------

    def pooler(self, name: str = "pooler", *, instances: int = 2, **spec: Any) -> None:
        """Apply one; fields of `pgbouncer` as they are, for example parameters={…}."""
        bouncer = {
            key: spec.pop(key)
            for key in (
                "parameters",
                "poolMode",
                "authQuery",
                "authQuerySecret",
                "serverTLSSecret",
                "serverCASecret",
                "clientTLSSecret",
                "clientCASecret",
                "users",
            )
            if key in spec
        }
        if "target" not in spec:
            spec = {"cluster": {"name": "shop"}, "type": "rw", **spec}
        body = {"instances": instances, "pgbouncer": {"poolMode": "transaction", **bouncer}, **spec}
        self.apply({"apiVersion": "pgweir.io/v1", "kind": "Pooler", "metadata": {"name": name}, "spec": body})

    def status(self, name: str = "pooler") -> Manifest:
        return (self.get("Pooler", name) or {}).get("status") or {}

    def condition(self, kind: str, name: str = "pooler") -> tuple[str, str, str]:
        for row in self.status(name).get("conditions") or ():
            if row["type"] == kind:
                return row["status"], row["reason"], row["message"]
        return "", "", ""

    def until(
        self, kind: str, status: str, reason: str | None = None, *, name: str = "pooler", patience: float = PATIENCE
    ) -> str:
        """Wait for a condition; its message."""

        def reached() -> bool:
            now = self.condition(kind, name)
            return now[0] == status and reason in (None, now[1])

        wait(
            reached,
            lambda: (
                f"{kind}={status} {reason or ''}; it is {json.dumps(self.status(name), indent=1)}\n"
                + "\n".join(operator.log[-4000:] for operator in self.operators)
            ),
            patience,
        )
        return self.condition(kind, name)[2]

    def files(self, name: str = "pooler") -> dict[str, bytes]:
        secret = self.get("Secret", name) or {}
        return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}

    def revision(self, name: str = "pooler") -> int:
        return int(json.loads(self.files(name)["bundle.json"])["revision"])

    def events(self) -> list[Manifest]:
        return self._loop.run(self.kube.items("Event", self.namespace))

    # --- the API server ----------------------------------------------------------------------------------------------

    def apply(self, manifest: Manifest) -> Manifest:
        metadata = {"namespace": self.namespace, **manifest["metadata"]}

        async def as_a_person() -> Manifest:
            kube = self.kube
            path_kind = manifest["kind"]
            current = await kube.get(path_kind, self.namespace, metadata["name"])
            if current is None:
                return await kube.create({**manifest, "metadata": metadata})
            kept = {"resourceVersion": current["metadata"]["resourceVersion"]}
            for key in ("finalizers", "ownerReferences", "labels"):
                if key in current["metadata"]:
                    kept[key] = current["metadata"][key]
            spec = manifest.get("spec")
            if path_kind == "Service":
                spec = {**current["spec"], **(spec or {})}
            body = {**manifest, "metadata": {**kept, **metadata}}
            return await kube.replace({**body, "spec": spec} if spec is not None else body)

        while True:
            try:
                return self._loop.run(as_a_person())
            except ConflictError:
                continue

    def get(self, kind: str, name: str) -> Manifest | None:
        return self._loop.run(self.kube.get(kind, self.namespace, name))

    def delete(self, kind: str, name: str) -> None:
        found = self.get(kind, name)
        assert found is not None, f"{kind} {name} does not exist"
        self._loop.run(self.kube.delete(kind, self.namespace, name, uid=found["metadata"]["uid"]))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)

    def fakes(self) -> list[FakePod]:
        return list(self.kubelet.pods.values())

    def secrets_told(self) -> list[str]:
        """Keys and passwords of this namespace that stand in a log of an operator's, or in an Event."""
        said = "".join(operator.log for operator in self.operators) + json.dumps(self.events())
        found = []
        for secret in self._loop.run(self._secrets()):
            for key, value in (secret.get("data") or {}).items():
                text = base64.b64decode(value).decode(errors="replace")
                lines = (
                    {line for line in text.splitlines() if len(line) > 40} if "PRIVATE KEY" in text else {text.strip()}
                )
                is_public = key in {"ca.crt", "tls.crt", "username"} or ("." in key and "key" not in key)
                if not is_public and any(len(line) > 7 and line != "password" and line in said for line in lines):
                    found.append(f"{secret['metadata']['name']}: {key}")
        return found

    async def _secrets(self) -> list[Manifest]:
        return await self.kube.items("Secret", self.namespace)

    def close(self) -> None:
        for operator in self.operators:
            operator.kill()

        async def leave() -> None:
            self._kubelet_task.cancel()
            await asyncio.gather(self._kubelet_task, return_exceptions=True)
            for pooler in await self.kube.items("Pooler", self.namespace):
                await self.kube.set_finalizers({**pooler, "kind": "Pooler"}, [])
            if (found := await self.kube.get("Namespace", "", self.namespace)) is not None:
                await self.kube.delete("Namespace", "", self.namespace, uid=found["metadata"]["uid"])
            await self.kube.__aexit__(None, None, None)

        self._loop.run(leave())


async def _ensure_namespace(kube: Kube, name: str) -> None:
    metadata = {"name": name, "namespace": ""}
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    while await kube.get("ServiceAccount", name, "default") is None:
        await asyncio.sleep(0.05)


def wait(
    reached: Callable[[], bool], wanted: str | Callable[[], str], patience: float = PATIENCE, *, pace: float = 0.03
) -> None:
    until = time.monotonic() + patience
    while not reached():
        if time.monotonic() > until:
            raise AssertionError(f"not within {patience:g} s: {wanted if isinstance(wanted, str) else wanted()}")
        time.sleep(pace)
