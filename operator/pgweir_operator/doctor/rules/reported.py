"""What the operator reports, and what has ended lately: said where nothing nearer to the cause was found."""

from __future__ import annotations

from typing import Final

from pgweir_operator.doctor.facts import Facts
from pgweir_operator.doctor.findings import Class, Finding

# The goodbyes that somebody felt, and what to do about each.
FELT: Final = {
    "query_wait_timeout": "clients waited for a server until query_wait_timeout: a larger pool, shorter transactions",
    "query_timeout": "queries ran into query_timeout",
    "idle_transaction_timeout": "clients left transactions open until idle_transaction_timeout",
    "transaction_timeout": "transactions ran into transaction_timeout",
    "server_gone": "PostgreSQL's side of connections vanished: a crash, a restart, or something between that cuts connections",
    "server_timeout:25P03": "PostgreSQL's idle_in_transaction_session_timeout ended transactions",
    "server_timeout:25P04": "PostgreSQL's transaction_timeout ended transactions",
    "server_terminated:57P01": "an administrator ended sessions, or PostgreSQL was restarted",
    "server_protocol_error": "PostgreSQL, or something in front of it, did not speak the protocol",
    "client_protocol_error": "a client did not speak the protocol",
}
NORMAL_FALSE: Final = ("Paused",)


def old_configuration(facts: Facts) -> Finding | None:
    found = facts.kubernetes
    if found is None or found.revision is None:
        return None
    old = {pod: revision for pod, revision in found.revisions.items() if revision != found.revision}
    if not old:
        return None
    row = next((row for row in found.conditions if row["type"] == "ConfigurationApplied"), None)
    return Finding(
        "old-configuration",
        Class.OPERATOR,
        f"{len(old)} pods do not run the configuration that is wanted (revision {found.revision})",
        (
            *(
                f"pod {pod}: revision {'unknown' if revision is None else revision}"
                for pod, revision in sorted(old.items())
            ),
            *((f"ConfigurationApplied={row['status']}, {row['reason']}: {row['message']}",) if row is not None else ()),
        ),
        "See that the operator runs and reaches the pods' control port (8443); a pod that refuses says why in "
        "ConfigurationApplied",
    )


def conditions(facts: Facts) -> Finding | None:
    """The first condition that is False, with its own words."""
    found = facts.kubernetes
    if found is None:
        return None
    bad = [row for row in found.conditions if row["status"] == "False" and row["type"] not in NORMAL_FALSE]
    if not bad:
        return None
    # Ready and Available only repeat what another one says.
    bad.sort(key=lambda row: row["type"] in ("Ready", "Available"))
    return Finding(
        f"condition-{str(bad[0]['type']).lower()}",
        Class.OPERATOR,
        f"the operator reports {bad[0]['type']}=False ({bad[0]['reason']})",
        tuple(f"{row['type']}=False, {row['reason']}: {row['message']}" for row in bad),
        "The message says what to do",
    )


def ended(facts: Facts) -> Finding | None:
    felt = {reason: count for reason, count in facts.closed.items() if reason in FELT and count}
    if not felt:
        return None
    return Finding(
        "ended",
        Class.ENDED,
        f"connections ended before their time {facts.closed_since}".rstrip(),
        tuple(
            f"{count} × {reason}: {FELT[reason]}" for reason, count in sorted(felt.items(), key=lambda item: -item[1])
        ),
        "kubectl pgweir logs --grep close_reason (or the pooler's log) has each with client and server pid",
    )


RULES = (old_configuration, conditions, ended)
