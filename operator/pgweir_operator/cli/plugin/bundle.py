"""`kubectl pgweir support-bundle`: one archive with what somebody needs who helps, and no secret in it.

Read with this person's rights: manifests, status, Events, logs, and the tables that the pods show. What may not be read is
listed in the archive as missing. Secrets are never put in; those that can be read are used to strike out their contents
elsewhere (`redaction`).
"""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

import pgweir
from pgweir_operator.api import names
from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible, PodRest, namespace_and_name, rest_of
from pgweir_operator.cli.plugin.pausing import progress
from pgweir_operator.cli.plugin.redaction import Redaction
from pgweir_operator.kube import ApiError
from pgweir_operator.kube.api import Object

LOG_LINES: Final = 5000
TABLES: Final = (
    *("pools", "clients", "servers", "waiters", "stats", "stats_pools", "databases", "users", "config", "lists"),
    *("reuse", "peers", "dns_hosts", "mem", "state", "version", "pool_nodes", "failures", "metrics"),
)
_CHILDREN: Final = {
    "Deployment": names.deployment_name,
    "Service": names.service_name,
    "PodDisruptionBudget": names.pod_disruption_budget_name,
    "NetworkPolicy": names.network_policy_name,
    "PodMonitor": names.pod_monitor_name,
    "ServiceAccount": names.service_account_name,
}


async def support_bundle(cluster: Cluster, name: str | None, file: Path | None) -> int:
    poolers = await cluster.poolers(name)
    if not poolers:
        raise Impossible(f"there is no Pooler in namespace {cluster.namespace!r}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = file or Path(f"pgweir-support-{stamp}.tar.gz")
    made = _Bundle(cluster)
    with progress() as bar:
        task = bar.add_task("", total=len(poolers))
        for pooler in poolers:
            bar.update(task, description=pooler["metadata"]["name"])
            await made.add_pooler(pooler)
            bar.advance(task)
    made.write(target, f"pgweir-support-{stamp}")
    of = f"{len(poolers)} Pooler{'' if len(poolers) == 1 else 's'}"
    screen.say(f"{target}: {len(made.files)} files of {of}; passwords, keys and Secrets are not in it")
    if made.missing:
        screen.complain(f"{len(made.missing)} things could not be read; missing.txt in the archive lists them")
    return DONE


class _Bundle:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.files: dict[str, str] = {}
        self.missing: list[str] = []

    async def add_pooler(self, pooler: Object) -> None:
        cluster, name = self._cluster, str(pooler["metadata"]["name"])
        namespace = pooler["metadata"]["namespace"]
        redaction = Redaction(await self._secrets(pooler))
        folder = f"{namespace}/{name}"

        def put(path: str, value: Any) -> None:
            self.files[f"{folder}/{path}.yaml"] = yaml.safe_dump(redaction.object(value), sort_keys=False, width=150)

        put("pooler", pooler)
        for kind, of in _CHILDREN.items():
            child = await self._read(f"{kind} of {name}", cluster.kube.get(kind, namespace, of(name)))
            if child is not None:
                put(kind.lower(), child)
        native = ((pooler.get("spec") or {}).get("cluster") or {}).get("name")
        for kind in ("Cluster", "EdbCluster") if native else ():
            found = await self._read(f"Cluster {native}", cluster.kube.get(kind, namespace, str(native)))
            if found is not None:
                put("cluster", found)
        events = await self._read("Events", cluster.kube.items("Event", namespace)) or []
        put("events", [event for event in events if _concerns(event, name)])
        here = Cluster(cluster.kube, namespace)
        pods = await self._read(f"pods of {name}", here.pods(name)) or []
        put("pods", pods)
        for pod in pods:
            _, pod_name = namespace_and_name(pod)
            text = await self._read(f"log of {pod_name}", self._log(namespace, pod_name))
            if text is not None:
                self.files[f"{folder}/logs/{pod_name}.log"] = redaction.text(text)
        async with rest_of(here, pods) as ways:
            for way in ways:
                await self._add_tables(f"{folder}/show/{way.pod}", way, redaction)

    async def _add_tables(self, folder: str, way: PodRest, redaction: Redaction) -> None:
        for path in ("/api/v1/health", "/api/v1/pools", *(f"/api/v1/show/{table}" for table in TABLES)):
            answer = await self._read(f"{way.pod}{path}", way.get(path))
            if answer is None and path == "/api/v1/health":
                return  # it will not answer the others either
            if answer is not None:
                name = path.removeprefix("/api/v1/").replace("show/", "show-")
                self.files[f"{folder}/{name}.json"] = json.dumps(redaction.object(answer), indent=1)

    async def _log(self, namespace: str, pod: str) -> str:
        lines = [
            line.decode(errors="replace")
            async for line in self._cluster.kube.log(namespace, pod, names.CONTAINER, tailLines=str(LOG_LINES))
        ]
        return "\n".join(lines) + "\n"

    async def _secrets(self, pooler: Object) -> list[bytes]:
        """What must not appear: the contents of the Secrets of this Pooler, as far as this person may read them."""
        namespace, found = pooler["metadata"]["namespace"], []
        for name in sorted(named_secrets(pooler)):
            try:
                secret = await self._cluster.kube.get("Secret", namespace, name)
            except ApiError:
                continue
            found += secret_contents(secret)
        return found

    async def _read(self, what: str, reading: Awaitable[Any]) -> Any:
        try:
            return await reading
        except (ApiError, Impossible) as error:
            self.missing.append(f"{what}: {error}")
            return None

    def write(self, target: Path, root: str) -> None:
        files = {
            "about.txt": f"pgweir {pgweir.__version__}, made {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n",
            **self.files,
        }
        if self.missing:
            files["missing.txt"] = Redaction().text("\n".join(self.missing)) + "\n"
        with tarfile.open(target, "w:gz") as archive:
            for name, text in files.items():
                content = text.encode(errors="replace")
                entry = tarfile.TarInfo(f"{root}/{name}")
                entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(content))


# Parts of Secrets that are no secret, and that an archive without them could not be read.
_PUBLIC: Final = frozenset({"username", "user", "dbname", "host", "port", "tls.crt", "bundle.json", "pg_hba.conf"})
_USERLIST_LINE: Final = re.compile(r'"(?:[^"]|"")*"\s+"((?:[^"]|"")*)"')


def secret_contents(secret: Object | None) -> list[bytes]:
    """What of a Secret must not appear. Pure."""
    found = []
    for key, value in ((secret or {}).get("data") or {}).items():
        try:
            content = base64.b64decode(value)
        except ValueError:
            continue
        if key == "userlist.txt":
            passwords = _USERLIST_LINE.findall(content.decode(errors="replace"))
            found += [password.replace('""', '"').encode() for password in passwords]
        elif key not in _PUBLIC and not key.endswith((".crt", ".ini")):
            found.append(content)
    return found


def named_secrets(pooler: Mapping[str, Any]) -> set[str]:
    """Every Secret that a Pooler or its cluster may have, by contract or by name. Pure."""
    name = str(pooler["metadata"]["name"])
    found = {names.bundle_secret_name(name), names.control_secret_name(name), names.control_ca_secret_name(name)}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key.endswith("Secret") and isinstance(item, dict) and isinstance(item.get("name"), str):
                    found.add(item["name"])
                elif key in ("secretKeyRef", "secretRef") and isinstance(item, dict) and item.get("name"):
                    found.add(str(item["name"]))
                elif key == "secretName" and isinstance(item, str):
                    found.add(item)
                else:
                    walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    spec = pooler.get("spec") or {}
    walk(spec)
    cluster = (spec.get("cluster") or {}).get("name")
    if cluster:
        found |= {f"{cluster}-{role}" for role in ("superuser", "app", "ca", "server", "replication")}
    return found


def _concerns(event: Mapping[str, Any], pooler: str) -> bool:
    """Of the Pooler itself, or of something that is named after it: its children and pods are."""
    about = event.get("regarding") or event.get("involvedObject") or {}
    name = str(about.get("name") or "")
    return name == pooler or name.startswith(f"{pooler}-")
