"""The walk: every rule, from the network up. Pure; `cli.doctor` and `cli.plugin.doctor` print what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pgweir_operator.doctor.facts import Facts
from pgweir_operator.doctor.findings import Finding
from pgweir_operator.doctor.rules import backend, logins, network, pooling, reported, timing

Rule = Callable[[Facts], Finding | None]

NEAR: Final[tuple[Rule, ...]] = (
    *network.RULES,
    network.backlog,
    *logins.RULES,
    logins.limit_of_clients,
    *pooling.RULES,
    *timing.RULES,
    *backend.RULES,
)
FAR: Final[tuple[Rule, ...]] = reported.RULES
"""What may be a mere consequence of something that was found: asked only where nothing was."""


def diagnose(facts: Facts) -> list[Finding]:
    """What is wrong, causes before consequences; [] is a healthy pooler."""
    found = [finding for rule in NEAR if (finding := rule(facts)) is not None]
    found = _without_consequences(found)
    if not found:
        found = [finding for rule in FAR if (finding := rule(facts)) is not None][:1]
    return found


CONSEQUENCES: Final = {
    # Whoever cannot reach PostgreSQL has clients in the queue for it.
    "queue-target": ("target-unreachable", "dns", "policy-denies"),
    "target-unreachable": ("dns",),
    "pods-not-ready": ("policy-denies",),
    "tcp-timeout": ("no-endpoints", "policy-denies", "limit-backlog"),
    "tcp-refused": ("no-endpoints",),
    # Our own login went the way that is shut.
    "slow-tcp": ("tcp-timeout", "limit-backlog"),
    "console-unreachable": ("tcp-timeout", "tcp-refused", "dns", "limit-backlog", "limit-max-client-conn"),
    "login-refused-server": ("target-unreachable", "dns"),
    "queue-pool-size": ("idle-in-transaction", "leaks"),
    "slow-backend": ("idle-in-transaction",),
}  # fmt: skip


def _without_consequences(found: list[Finding]) -> list[Finding]:
    codes = {finding.code for finding in found}
    return [finding for finding in found if not codes.intersection(CONSEQUENCES.get(finding.code, ()))]
