"""`kubectl pgweir doctor`: one Pooler, from the API server and from inside its pods.

Everything here is looking. The API server says what is there; each pod's REST (by port-forward) has its tables; what must be
measured from inside (DNS, TCP, TLS, logins, times, PostgreSQL) `pgweir-console --probe` measures in one pod, by exec. What this
person may not do is left out, and said so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar

import aiohttp

from pgweir import doctor_probe
from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.cli import screen
from pgweir_operator.cli.diagnosed import Options, report
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible, each_answer, is_leaving, namespace_and_name, rest_of
from pgweir_operator.doctor import reading
from pgweir_operator.doctor.facts import Facts, Kubernetes
from pgweir_operator.kube import ApiError
from pgweir_operator.kube.api import Object
from pgweir_operator.kube.exec import STDERR, STDOUT, process

LOG_SECONDS: Final = 900
PROBE: Final = ("pgweir-console", "--probe")

T = TypeVar("T")


async def examine(cluster: Cluster, name: str | None, options: Options, secret: str | None = None) -> int:
    """The exit code of the first finding's class. `secret` has the login of an application; None: the cluster's own."""
    found = await cluster.poolers(name)
    if name is None and len(found) != 1:
        there = ", ".join(each["metadata"]["name"] for each in found) or "none"
        raise Impossible(f"say which Pooler: there are {there}")
    notes: list[str] = []
    facts = await look(cluster, found[0], options, notes, secret)
    return report(facts, notes, as_json=options.as_json)


async def look(
    cluster: Cluster, manifest: Object, options: Options, notes: list[str], secret: str | None = None
) -> Facts:
    pooler = Pooler.from_manifest(manifest)
    kube, namespace = cluster.kube, cluster.namespace
    pods = await _or_note(kube.items("Pod", namespace, labels=names.selector_text(pooler.name)), [], "pods", notes)
    pods = [pod for pod in pods if not is_leaving(pod)]
    called = names.service_name(pooler.name)
    unseen: Object | None = {"metadata": {"name": called}}  # not allowed to look is no proof that it is not there
    service = await _or_note(kube.get("Service", namespace, called), unseen, "the Service", notes)
    of_service = kube.items("EndpointSlice", namespace, labels=f"kubernetes.io/service-name={called}")
    slices = await _or_note(of_service, None, "its EndpointSlices", notes)
    policies = await _or_note(kube.items("NetworkPolicy", namespace), None, "NetworkPolicies", notes)
    found = reading.kubernetes(manifest, service, slices or (), pods, policies, target_port=pooler.target_port)
    if slices is None:  # not allowed to look: nothing may be concluded
        addresses = tuple(pod.address for pod in found.pods if pod.ready)
        found = dataclasses.replace(found, endpoints_ready=addresses or ("unknown",))
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    facts = Facts()
    if running:
        facts = await _from_inside(cluster, pooler, service, found, running, options, notes, secret)
        facts = dataclasses.replace(facts, tables=await _tables(cluster, running, notes))
    closed = await _closed(cluster, running, notes)
    return dataclasses.replace(
        facts,
        kubernetes=found,
        closed=closed,
        closed_since=f"in the last {LOG_SECONDS // 60} minutes",
        limits=options.limits,
    )


async def _or_note(work: Awaitable[T], otherwise: T, what: str, notes: list[str]) -> T:
    try:
        return await work
    except ApiError as error:
        notes.append(f"{what} could not be looked at: {error.message}")
        return otherwise


# --- from inside -------------------------------------------------------------------------------------------------------------


async def _from_inside(
    cluster: Cluster,
    pooler: Pooler,
    service: Object | None,
    found: Kubernetes,
    pods: Sequence[Object],
    options: Options,
    notes: list[str],
    secret: str | None,
) -> Facts:
    ready = {pod.name for pod in found.pods if pod.ready}
    pod = next((pod for pod in pods if pod["metadata"]["name"] in ready), pods[0])
    address = (pod.get("status") or {}).get("podIP") or ""
    request = options.request()
    request["names"] = _names(pooler, service, found)
    request["queue_port"] = names.PORT_POOLER
    request["ports"] = [
        *(
            {"role": "pod", "host": each, "port": names.PORT_POOLER}
            for each in found.endpoints_ready
            if each != "unknown"
        ),
        {"role": "target", "host": pooler.target_host, "port": pooler.target_port},
    ]
    if secret is not None:
        login: dict[str, Any] | None = await _login_named(cluster, secret)
    else:
        login = await _login(cluster, pooler, "app", notes)
    if login is None:
        notes.append(
            "no login was tried: the cluster's application Secret is not there, or not yours to read (--secret names another)"
        )
    else:
        request["login"] = {**login, "host": pooler.name, "port": names.PORT_POOLER, "address": address}
    administrator = await _login(cluster, pooler, "superuser", notes) or login
    if administrator is not None:
        there = {"host": pooler.target_host, "port": pooler.target_port, "sslmode": "prefer"}
        request["backend"] = {**administrator, **there}
    answer = await _probe(cluster, pod, request, notes)
    if answer.get("timing") and answer["timing"]["waiter"]:
        answer["timing"]["waiter"]["pod"] = pod["metadata"]["name"]  # a pod does not know that it is one of several
    where = f"{pooler.target_host}:{pooler.target_port}"
    return reading.measured(
        {**doctor_probe.nothing(), **answer},
        who=f"{login['user']}@{login['database']} at {pooler.name}" if login is not None else "",
        backend=f"{administrator['user']} at {where}" if administrator is not None else where,
    )


def _names(pooler: Pooler, service: Object | None, found: Kubernetes) -> list[dict[str, Any]]:
    wanted: list[dict[str, Any]] = [{"role": "target", "name": pooler.target_host}]
    if service is not None:
        spec = service.get("spec") or {}
        addresses = [each for each in spec.get("clusterIPs") or [spec.get("clusterIP")] if each and each != "None"]
        expected = addresses or [each for each in found.endpoints_ready if each != "unknown"]
        wanted.append({"role": "service", "name": pooler.name, "expected": expected})
    return wanted


async def _login(cluster: Cluster, pooler: Pooler, which: str, notes: list[str]) -> dict[str, Any] | None:
    """User, password and database out of a Secret of the cluster: app or superuser."""
    spec = pooler.spec
    if spec.cluster is not None:
        name = f"{spec.cluster.name}-{which}"
    elif which == "superuser" and spec.target is not None and spec.target.admin_secret is not None:
        name = spec.target.admin_secret.name
    else:
        return None
    secret = await _or_note(cluster.kube.get("Secret", cluster.namespace, name), None, f"Secret {name}", notes)
    return _of_secret(secret or {}, "postgres" if which == "superuser" else None)


async def _login_named(cluster: Cluster, name: str) -> dict[str, Any]:
    """That of a Secret which was asked for by name: it has to be there."""
    secret = await cluster.kube.get("Secret", cluster.namespace, name)
    if secret is None:
        raise Impossible(f"--secret: there is no Secret {name!r} in namespace {cluster.namespace!r}")
    login = _of_secret(secret, None)
    if login is None:
        keys = ", ".join(sorted(secret.get("data") or {})) or "none"
        raise Impossible(f"--secret: Secret {name!r} needs the keys username and password (and dbname); it has {keys}")
    return login


def _of_secret(secret: Object, database: str | None) -> dict[str, Any] | None:
    """None: it has no user or no password. Without a database of its own: the given one, or the user's."""
    data = {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
    if not {"username", "password"} <= data.keys():
        return None
    database = data.get("dbname") or database or data["username"]
    database = "postgres" if database == "*" else database
    return {"user": data["username"], "password": data["password"], "database": database}


async def _probe(cluster: Cluster, pod: Object, request: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    namespace, name = namespace_and_name(pod)
    patience = (request["tries"] + 2) * request["patience"] + request.get("burst", {}).get("seconds", 0) + 60
    said = {STDOUT: b"", STDERR: b""}
    try:
        async with (
            asyncio.timeout(patience),
            process(cluster.kube, namespace, name, names.CONTAINER, PROBE) as running,
        ):
            await running.write(json.dumps(request).encode() + b"\n")
            with screen.err.status(f"measuring in pod {name}") if screen.err.is_terminal else contextlib.nullcontext():
                while (piece := await running.read()) is not None:
                    said[piece[0]] += piece[1]
        found: dict[str, Any] = json.loads(said[STDOUT])
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        words = error.message if isinstance(error, ApiError) else str(error) or f"no end within {patience:g} s"
        notes.append(f"nothing was measured from inside: {words}")
        return {}
    except ValueError:
        told = (said[STDERR] or said[STDOUT]).decode(errors="replace").strip().splitlines()
        ended = running.ended.message if running.ended is not None else ""
        old = any("unrecognized arguments" in line for line in told)
        words = "its image is older than the doctor" if old else told[-1] if told else ended or "it said nothing"
        notes.append(f"nothing was measured from inside pod {name}: {words}")
        return {}
    if trouble := found.get("console_error"):
        notes.append(f"pod {name}: its console could not be asked beside the measurements: {trouble}")
    return found


async def _tables(cluster: Cluster, pods: Sequence[Object], notes: list[str]) -> Any:
    """Of every pod that answers; None where none does."""
    by_pod: dict[str, dict[str, Any]] = {}
    async with rest_of(cluster, pods) as rests:
        for table in reading.TABLES:
            for pod, answer in (await each_answer(rests, f"/api/v1/show/{table}")).items():
                if isinstance(answer, Exception):
                    notes.append(f"SHOW {table.upper()} and what comes after it were not asked of pod {pod}: {answer}")
                    rests = [each for each in rests if each.pod != pod]  # a pod that hangs is waited for once
                else:
                    by_pod.setdefault(pod, {})[table] = answer["rows"]
    return reading.tables(by_pod) if by_pod else None


async def _closed(cluster: Cluster, pods: Sequence[Object], notes: list[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for pod in pods:
        namespace, name = namespace_and_name(pod)
        lines: list[str] = []
        try:
            async for line in cluster.kube.log(namespace, name, names.CONTAINER, sinceSeconds=str(LOG_SECONDS)):
                lines.append(line.decode(errors="replace"))
        except ApiError as error:
            notes.append(f"the log of pod {name} could not be read: {error.message}")
        found += reading.closed(lines)
    return found
