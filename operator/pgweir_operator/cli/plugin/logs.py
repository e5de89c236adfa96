"""`kubectl pgweir logs`: what the pods of a Pooler wrote, as sentences; one stream, each line with its pod."""

from __future__ import annotations

import asyncio
import json

from pgweir_operator.api import names
from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE, FAILED
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible, has_left, namespace_and_name
from pgweir_operator.kube import ApiError
from pgweir_operator.kube.api import Object

_BESIDE = ("client_id", "server_pid", "close_reason", "database", "user")


async def show_logs(
    cluster: Cluster, pooler: str, *, follow: bool, tail: int, since: int | None, raw: bool, grep: str
) -> int:
    await cluster.pooler(pooler)
    pods = await cluster.pods(pooler)
    if not pods:
        raise Impossible(f"no pod of Pooler {pooler!r} is running")
    query = {"tailLines": str(tail)} if since is None else {"sinceSeconds": str(since)}
    width = max(len(pod["metadata"]["name"]) for pod in pods)
    failures = await asyncio.gather(*(_one(cluster, pod, width, query, follow, raw, grep) for pod in pods))
    told = [failure for failure in failures if failure]
    for failure in told:
        screen.complain(failure)
    return FAILED if told else DONE


async def _one(
    cluster: Cluster, pod: Object, width: int, query: dict[str, str], follow: bool, raw: bool, grep: str
) -> str:
    namespace, name = namespace_and_name(pod)
    try:
        async for line in cluster.kube.log(namespace, name, names.CONTAINER, follow=follow, **query):
            text = line.decode(errors="replace")
            if grep and grep not in text:
                continue
            screen.say(text if raw else f"{name.ljust(width)}  {sentence(text)}")
    except ApiError as error:
        if not await has_left(cluster, namespace, name):
            return f"{name}: {error.message}"
    return ""


def sentence(line: str) -> str:
    """A record as a person reads it: time, level, message, and who it is about. What is no record stays as it is. Pure."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict):
        return line
    inner = record.get("record")
    found = {**record, **(inner if isinstance(inner, dict) else {})}
    level = str(found.get("level") or found.get("error_severity") or "")
    message = str(found.get("msg") or found.get("message") or line)
    beside = " ".join(f"{key}={found[key]}" for key in _BESIDE if found.get(key) not in (None, ""))
    return f"{_time(found)} {level.upper():7} {message}{f'  ({beside})' if beside else ''}".strip()


def _time(record: dict[str, object]) -> str:
    return str(record.get("ts") or record.get("timestamp") or record.get("log_time") or "")
