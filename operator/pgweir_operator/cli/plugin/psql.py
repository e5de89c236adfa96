"""`kubectl pgweir psql`: the psql of this machine, through a pod of the Pooler; with --console, the pod's own console.

psql goes through a port-forward, so that no exec and nothing in the image is needed. The console is reached where it is:
over the pod's Unix socket, by exec (`kubectl exec`), which is a right of its own.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Sequence

from pgweir_operator.api import names
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible, Where, is_leaving, namespace_and_name
from pgweir_operator.kube import ForbiddenError
from pgweir_operator.kube.api import Object
from pgweir_operator.kube.portforward import forwarded


async def run_psql(
    cluster: Cluster, pooler: str, *, user: str | None, database: str | None, arguments: Sequence[str]
) -> int:
    """psql's own exit code."""
    program = shutil.which("psql")
    if program is None:
        raise Impossible("there is no psql on this machine: install PostgreSQL's client, or use --console")
    manifest = await cluster.pooler(pooler)
    pod = await _ready_pod(cluster, pooler)
    login = await _application_login(cluster, manifest)
    environment = {**os.environ}
    if user is None and login:
        user = login["username"]
        environment.setdefault("PGPASSWORD", login["password"])
        database = database or login.get("dbname")
    namespace, name = namespace_and_name(pod)
    async with forwarded(cluster.kube, namespace, name, names.PORT_POOLER) as forward:
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(forward.port)}
        words = [*(["--username", user] if user else []), *(["--dbname", database] if database else []), *arguments]
        process = await asyncio.create_subprocess_exec(program, *words, env={**environment, **place})
        code = await process.wait()
        if forward.error is not None:
            raise forward.error
        return code


async def _ready_pod(cluster: Cluster, pooler: str) -> Object:
    pods = await cluster.pods(pooler)
    if not pods:
        raise Impossible(f"no pod of Pooler {pooler!r} is running")
    return next((pod for pod in pods if _is_ready(pod)), pods[0])


def _is_ready(pod: Object) -> bool:
    """And is to stay."""
    if is_leaving(pod):
        return False
    rows = (pod.get("status") or {}).get("conditions") or ()
    return any(row["type"] == "Ready" and row["status"] == "True" for row in rows)


async def _application_login(cluster: Cluster, pooler: Object) -> dict[str, str]:
    """User, password and database of the cluster's application, where this person may read that Secret."""
    name = ((pooler.get("spec") or {}).get("cluster") or {}).get("name")
    if not name:
        return {}
    try:
        secret = await cluster.kube.get("Secret", cluster.namespace, f"{name}-app")
    except ForbiddenError:
        return {}
    data = (secret or {}).get("data") or {}
    found = {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    return found if {"username", "password"} <= found.keys() else {}


async def console_command(cluster: Cluster, pooler: str, where: Where, arguments: Sequence[str]) -> list[str]:
    """The kubectl that leads to the console of a pod."""
    program = shutil.which("kubectl")
    if program is None:
        raise Impossible("there is no kubectl on this machine, which --console needs for its exec")
    await cluster.pooler(pooler)
    namespace, name = namespace_and_name(await _ready_pod(cluster, pooler))
    options = [f"--namespace={namespace}"]
    options += [f"--context={where.context}"] if where.context else []
    options += [f"--kubeconfig={where.kubeconfig}"] if where.kubeconfig else []
    terminal = ["--stdin", "--tty"] if os.isatty(0) and os.isatty(1) else ["--stdin"]
    return [
        program,
        *options,
        "exec",
        *terminal,
        name,
        f"--container={names.CONTAINER}",
        "--",
        "pgweir-console",
        *arguments,
    ]
