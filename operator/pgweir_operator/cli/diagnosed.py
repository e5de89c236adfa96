"""How the doctor looks (`Options`) and what it says: findings for people or as JSON, and the exit code. Asks nobody anything.

Called by `pgweir doctor` and `kubectl pgweir doctor`.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE
from pgweir_operator.doctor.diagnosis import diagnose
from pgweir_operator.doctor.facts import Facts, Limits
from pgweir_operator.doctor.findings import Finding
from pgweir_operator.doctor.rules.timing import summary


@dataclass(frozen=True, slots=True)
class Options:
    """How the doctor looks."""

    tries: int = 20
    timeout: float = 3.0  # a connection, a look-up
    patience: float = 5.0  # an answer
    limits: Limits = field(default_factory=Limits)
    burst: float = 0.0  # seconds
    burst_clients: int = 8
    as_json: bool = False

    def request(self) -> dict[str, Any]:
        """What every probe is told; the application_name is nobody else's."""
        name = f"pgweir-doctor-{secrets.token_hex(4)}"
        found: dict[str, Any] = {
            "tries": self.tries,
            "timeout": self.timeout,
            "patience": self.patience,
            "application_name": name,
        }
        return {**found, **({"burst": {"clients": self.burst_clients, "seconds": self.burst}} if self.burst else {})}


def report(facts: Facts, notes: Sequence[str], *, as_json: bool) -> int:
    """Print findings, and what else there is to know; the exit code is that of the first finding's class."""
    findings = diagnose(facts)
    if as_json:
        screen.say(json.dumps(document(findings, facts, notes), indent=1, ensure_ascii=False))
    else:
        for number, finding in enumerate(findings, 1):
            screen.say(f"{number}. {finding.what}  [{finding.code}]")
            for line in finding.evidence:
                screen.say(f"     {line}")
            screen.say(f"   → {finding.fix}\n")
        if not findings:
            screen.say("nothing is wrong, as far as could be seen")
        for line in seen(facts):
            screen.say(line)
        for note in notes:
            screen.complain(f"note: {note}")
    return findings[0].kind.exit_code if findings else DONE


def document(findings: Sequence[Finding], facts: Facts, notes: Sequence[str]) -> dict[str, Any]:
    stages = summary(facts.timing) if facts.timing is not None else {}
    found = facts.kubernetes
    return {
        "findings": [finding.document() for finding in findings],
        "stages_ms": {
            stage: {"p50": round(p50 * 1000, 3), "p99": round(p99 * 1000, 3)} for stage, (p50, p99) in stages.items()
        },
        "tries": facts.timing.tries if facts.timing is not None else 0,
        "burst": dataclasses.asdict(facts.burst) if facts.burst is not None else None,
        "network_policies": [policy.name for policy in found.policies or ()] if found is not None else [],
        "notes": list(notes),
    }


def seen(facts: Facts) -> list[str]:
    """What was measured, fault or not."""
    lines = []
    timing, burst, found = facts.timing, facts.burst, facts.kubernetes
    if found is not None:
        policies = ", ".join(policy.name for policy in found.policies or ()) or "none"
        lines.append(f"NetworkPolicies that select the pods: {policies}")
    if timing is not None and timing.tries:
        stages = ", ".join(
            f"{stage} {p50 * 1000:.1f}/{p99 * 1000:.1f}" for stage, (p50, p99) in summary(timing).items()
        )
        lines.append(f"SELECT 1, {timing.tries} times, p50/p99 in ms: {stages}")
    if burst is not None:
        lines.append(
            f"burst: {burst.done} queries by {burst.clients} clients in {burst.seconds:g} s, the slowest "
            f"{burst.longest * 1000:.0f} ms"
        )
    return lines
