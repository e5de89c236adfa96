"""`kubectl pgweir status`: the fleet at a glance, or one Pooler with its conditions and pods.

Numbers are those of the Pooler's status, as the operator saw them last; with --live the pods are asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE, FAILED
from pgweir_operator.cli.plugin.cluster import Cluster, each_answer, rest_of
from pgweir_operator.cli.shown import Shown
from pgweir_operator.kube.api import Object

# These run what they ran when they were told to go, and nobody waits for more.
_GOING: Final = ("draining", "leaving")
_NUMBERS: Final = {"clients": "clients", "waitingClients": "waiting", "servers": "servers"}
_STYLES: Final = {"True": "green", "False": "red", "Unknown": "yellow"}


async def show_status(cluster: Cluster, name: str | None, *, live: bool, as_json: bool) -> int:
    """Exit code 1: a Pooler is not Ready, or a live pod does not answer."""
    found = await cluster.poolers(name)
    troubles: list[str] = []
    if live:
        for pooler in found:
            troubles += await _ask_pods(cluster, pooler)
    if as_json:
        rows = [{**pooler["metadata"], "status": pooler.get("status") or {}} for pooler in found]
        kept = ("name", "namespace", "status")
        screen.say(json.dumps([{key: row[key] for key in kept} for row in rows], indent=1))
    elif not found:
        screen.say(f"no Poolers in {f'namespace {cluster.namespace}' if cluster.namespace else 'this cluster'}")
    elif name is not None:
        _print_one(found[0])
    else:
        screen.print_shown(fleet(found, everywhere=not cluster.namespace), as_json=False)
    for trouble in troubles:
        screen.complain(trouble)
    return FAILED if troubles or not all(is_ready(pooler) for pooler in found) else DONE


async def _ask_pods(cluster: Cluster, pooler: Object) -> list[str]:
    """Put the numbers of this moment in place of the operator's last; what failed, one sentence for each pod."""
    here = Cluster(cluster.kube, pooler["metadata"]["namespace"])
    async with rest_of(here, await here.pods(pooler["metadata"]["name"])) as pods:
        answers = await each_answer(pods, "/api/v1/health")
    troubles = []
    rows = {row["name"]: row for row in (pooler.get("status") or {}).get("pods") or ()}
    for pod, answer in answers.items():
        if isinstance(answer, Exception):
            troubles.append(str(answer))
            continue
        row = rows.get(pod)
        if row is not None:
            row |= {"clients": answer["clients"], "waitingClients": answer["waiting"], "servers": answer["servers"]}
            row |= {"state": f"held ({answer['hold']})" if answer.get("hold") else answer["state"]}
            row |= {} if answer["revision"] is None else {"configRevision": answer["revision"]}
    return troubles


def is_ready(pooler: Mapping[str, Any]) -> bool:
    return any(row["type"] == "Ready" and row["status"] == "True" for row in _conditions(pooler))


def _conditions(pooler: Mapping[str, Any]) -> Iterable[Mapping[str, str]]:
    return (pooler.get("status") or {}).get("conditions") or ()


def fleet(poolers: Iterable[Mapping[str, Any]], *, everywhere: bool) -> Shown:
    """One row for each Pooler. Pure."""
    columns = [("NAMESPACE", False)] if everywhere else []
    columns += [("NAME", False), ("PHASE", False), ("READY", False), ("REVISION", False), ("CLIENTS", True)]
    columns += [("WAITING", True), ("SERVERS", True), ("PAUSED", False), ("SWITCHOVER", False), ("MESSAGE", False)]
    rows = []
    for pooler in poolers:
        status, metadata = pooler.get("status") or {}, pooler["metadata"]
        pods = status.get("pods") or ()
        ready = is_ready(pooler)
        rows.append(
            (
                *((metadata["namespace"],) if everywhere else ()),
                metadata["name"],
                status.get("phase") or "unknown",
                f"{status.get('readyInstances', 0)}/{(pooler.get('spec') or {}).get('instances', 1)}",
                revision(status),
                *(sum(row.get(key) or 0 for row in pods) for key in _NUMBERS),
                f"{status.get('pausedInstances', 0)}/{status.get('instances', 0)}" if _wants_pause(pooler) else "",
                switchover(status),
                "" if ready else _first_line(status.get("phaseReason") or "the operator has not looked at it yet"),
            )
        )
    return Shown(tuple(columns), tuple(rows))


def revision(status: Mapping[str, Any]) -> str:
    """That of the configuration, and how many of the pods that stay run it while not all do."""
    wanted = status.get("configRevision")
    if wanted is None:
        return ""
    pods = [row for row in status.get("pods") or () if row.get("state") not in _GOING]
    have = sum(row.get("configRevision") == wanted for row in pods)
    return str(wanted) if have == len(pods) else f"{wanted} ({have}/{len(pods)} pods)"


def switchover(status: Mapping[str, Any]) -> str:
    """What holds the clients of this Pooler, or what was last."""
    found = status.get("switchover") or {}
    if not found:
        return ""
    way = " → ".join(word for word in (found.get("from"), found.get("to")) if word)
    held = f", held {found['heldMilliseconds'] / 1000:.1f} s" if "heldMilliseconds" in found else ""
    return f"{found.get('phase', '')} {way}{held}".strip()


def _wants_pause(pooler: Mapping[str, Any]) -> bool:
    spec = pooler.get("spec") or {}
    return bool(spec.get("paused") or (spec.get("pgbouncer") or {}).get("paused"))


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def _print_one(pooler: Mapping[str, Any]) -> None:
    status = pooler.get("status") or {}
    screen.print_shown(fleet([pooler], everywhere=False), as_json=False)
    rows = tuple(
        (row["type"], row["status"], row["reason"], _first_line(row["message"])) for row in _conditions(pooler)
    )
    _print("\nConditions", Shown((("TYPE", False), ("STATUS", False), ("REASON", False), ("MESSAGE", False)), rows))
    texts = [(name, False) for name in ("POD", "READY", "STATE")]
    numbers = [(name, True) for name in ("REVISION", "CLIENTS", "WAITING", "SERVERS")]
    columns = (*texts, *numbers, ("MESSAGE", False))
    keys = ("configRevision", *_NUMBERS)
    pods = tuple(
        (row["name"], "yes" if row.get("ready") else "no", row.get("state"), *map(row.get, keys), row.get("message"))
        for row in status.get("pods") or ()
    )
    _print("\nPods", Shown(columns, pods))
    found = status.get("switchover") or {}
    if found:
        screen.say(f"\nSwitchover {found.get('id', '')}: {switchover(status)}. {found.get('message', '')}".rstrip())


def _print(title: str, shown: Shown) -> None:
    if not shown.rows:
        return
    screen.say(title)
    if not screen.out.is_terminal:
        screen.say(screen.plain_table(shown))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, is_number in shown.columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in shown.rows:
        words = ["" if value is None else str(value) for value in row]
        table.add_row(*(Text(word, style=_STYLES.get(word, "")) for word in words))
    screen.out.print(table, soft_wrap=False)
