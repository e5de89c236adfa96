"""Facts out of what was answered: the probe's JSON, the API server's objects, the lines of a log. Pure."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509

from pgweir_operator.api import names
from pgweir_operator.doctor.facts import (
    STAGES,
    Backend,
    Burst,
    Facts,
    Kubernetes,
    Login,
    Name,
    Pod,
    Port,
    Queue,
    Row,
    Tables,
    Timing,
)
from pgweir_operator.doctor.policies import selecting

Object = Mapping[str, Any]

TABLES: Final = ("pools", "waiters", "clients", "servers", "databases", "config", "lists", "state")


def measured(answer: Object, *, who: str, backend: str, now: datetime | None = None) -> Facts:
    """What the probe found, without the tables."""
    login, timing, burst, queue = answer["login"], answer["timing"], answer["burst"], answer["queue"]
    return Facts(
        names=tuple(_name(row) for row in answer["names"]),
        ports=tuple(
            Port(row["role"], row["address"], row["port"], row["error"], row["kind"]) for row in answer["ports"]
        ),
        login=None if login is None else _login(login, who, now or datetime.now(UTC)),
        timing=None if timing is None else _timing(timing),
        backend=None if answer["backend"] is None else _backend(answer["backend"], backend),
        burst=None if burst is None else Burst(**burst),
        queue=None if queue is None else Queue(queue["queued"], queue["overflows"]),
    )


def _name(row: Object) -> Name:
    expected = frozenset(row.get("expected") or ())
    return Name(row["role"], row["name"], tuple(row["addresses"]), row["error"], expected)


def _login(row: Object, who: str, now: datetime) -> Login:
    days: float | None = None
    if row["certificate"]:
        certificate = x509.load_der_x509_certificate(base64.b64decode(row["certificate"]))
        days = (certificate.not_valid_after_utc - now).total_seconds() / 86400
    kept = {key: row.get(key) or "" for key in ("stage", "error", "kind", "sqlstate", "auth_stage", "tls")}
    return Login(who, **kept, certificate_days=days)


def _timing(row: Object) -> Timing:
    stages = {
        stage: [each[stage] for each in row["tries"] if stage in each]
        for stage in (*STAGES, "answer")
        if any(stage in each for each in row["tries"])
    }
    return Timing(len(row["tries"]), stages, tuple(row["failures"]), row["waiter"])


def _backend(row: Object, where: str) -> Backend:
    return Backend(where, row["failure"], tuple(row["activity"]), row["capacity"])


def tables(by_pod: Mapping[str, Mapping[str, Sequence[Row]]]) -> Tables:
    """The tables of one pooler ("" is its name), or of all pods of one, put together."""
    found: dict[str, tuple[Row, ...]] = {}
    for table in TABLES:
        rows = (
            {**row, **({"pod": pod} if pod else {})} for pod, shown in by_pod.items() for row in shown.get(table, ())
        )
        found[table] = tuple(rows)
    return Tables(**found)


# --- a Pooler in Kubernetes --------------------------------------------------------------------------------------------------


def kubernetes(
    pooler: Object,
    service: Object | None,
    slices: Iterable[Object],
    pods: Sequence[Object],
    policies: Iterable[Object] | None,
    *,
    target_port: int,
) -> Kubernetes:
    metadata, spec, status = pooler["metadata"], pooler.get("spec") or {}, pooler.get("status") or {}
    ready, unready = endpoints(slices)
    labels = (pods[0]["metadata"].get("labels") or {}) if pods else names.selector(metadata["name"])
    selector = ((service or {}).get("spec") or {}).get("selector") or {}
    return Kubernetes(
        pooler=metadata["name"],
        namespace=metadata["namespace"],
        replicas=int(spec.get("instances", 1)),
        paused=bool(spec.get("paused") or (spec.get("pgbouncer") or {}).get("paused")),
        service=service["metadata"]["name"] if service is not None else "",
        selector_matches=all(labels.get(key) == value for key, value in selector.items()),
        endpoints_ready=ready,
        endpoints_unready=unready,
        pods=tuple(map(_pod, pods)),
        policies=None
        if policies is None
        else selecting(policies, labels, port=names.PORT_POOLER, target_port=target_port),
        conditions=tuple(status.get("conditions") or ()),
        revision=status.get("configRevision"),
        revisions=_revisions(status, pods),
        switchover=status.get("switchover") or {},
    )


def _revisions(status: Object, pods: Sequence[Object]) -> dict[str, int | None]:
    """What each pod runs, says the operator; of those that stay: one that is gone or on its way out owes nothing."""
    staying = {pod["metadata"]["name"] for pod in pods}
    return {row["name"]: row.get("configRevision") for row in status.get("pods") or () if row["name"] in staying}


def endpoints(slices: Iterable[Object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Addresses that are ready, and those that are not."""
    ready: list[str] = []
    unready: list[str] = []
    for each in slices:
        for endpoint in each.get("endpoints") or ():
            # SPEC: discovery/v1: an absent `ready` means ready.
            is_ready = (endpoint.get("conditions") or {}).get("ready") is not False
            (ready if is_ready else unready).extend(endpoint.get("addresses") or ())
    return tuple(dict.fromkeys(ready)), tuple(dict.fromkeys(unready))


def _pod(pod: Object) -> Pod:
    status = pod.get("status") or {}
    conditions = {row["type"]: row for row in status.get("conditions") or ()}
    waiting = [(row.get("state") or {}).get("waiting") or {} for row in status.get("containerStatuses") or ()]
    reasons = [f"{row.get('reason', '')}: {row.get('message', '')}".strip(": ") for row in waiting if row]
    unready = conditions.get("Ready") or conditions.get("PodScheduled") or {}
    is_ready = (conditions.get("Ready") or {}).get("status") == "True"
    message = "" if is_ready else reasons[0] if reasons else str(unready.get("message") or unready.get("reason") or "")
    return Pod(pod["metadata"]["name"], status.get("podIP") or "", status.get("phase") or "Unknown", is_ready, message)


# --- logs --------------------------------------------------------------------------------------------------------------------


def closed(lines: Iterable[str]) -> Counter[str]:
    """Close reasons in JSON lines, counted; what is no record counts for nothing."""
    found: Counter[str] = Counter()
    for line in lines:
        if '"close_reason"' not in line:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue
        inner = record.get("record") if isinstance(record, dict) else None
        reason = inner.get("close_reason") if isinstance(inner, dict) else None
        if reason:
            found[str(reason)] += 1
    return found
