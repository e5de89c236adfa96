"""How long `SELECT 1` takes, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pgweir_operator.doctor.facts import STAGES, Facts, Timing
from pgweir_operator.doctor.findings import Class, Finding
from pgweir_operator.doctor.rules import logins, pooling

WORDS = {
    "dns": (
        "looking up the name",
        "Mend or relieve DNS: its pods' CPU, ndots and search domains of the application's pods",
    ),
    "tcp": (
        "connecting (TCP)",
        "Packets are late or lost between application and pooler: network, node, overloaded host",
    ),
    "tls": (
        "the TLS handshake",
        "CPU of the pooler or of the application's pod; keep connections longer instead of opening new ones",
    ),
    "auth": (
        "logging in",
        "CPU of the pooler (SCRAM costs some), a slow auth_query or directory; keep connections longer instead "
        "of opening new ones",
    ),
    "queue": (
        "waiting in the pooler for a server",
        "Shorter transactions, or a larger pool_size; SHOW WAITERS says for which limit clients wait",
    ),
    "backend": (
        "PostgreSQL's answer, or the way to it",
        "The pooler has a server at hand and its answer is late: load, locks or I/O of PostgreSQL, or the network between them",
    ),
    "answer": (
        "waiting for a server or for PostgreSQL, which cannot be told apart without the console",
        "Give the console's address with --url",
    ),
}


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def summary(timing: Timing) -> dict[str, tuple[float, float]]:
    """p50 and p99 of each stage that was measured, in seconds."""
    known = [stage for stage in (*STAGES, "answer") if timing.stages.get(stage)]
    return {stage: (quantile(timing.stages[stage], 0.5), quantile(timing.stages[stage], 0.99)) for stage in known}


def slow(facts: Facts) -> Finding | None:
    """The slowest stage beyond the threshold: in half of the tries, or in a tenth of them."""
    timing = facts.timing
    if timing is None or pooling.binding(facts) is not None:
        return None
    threshold = facts.limits.threshold
    late = {stage: [v for v in values if v > threshold] for stage, values in timing.stages.items()}
    often = {stage: values for stage, values in late.items() if len(values) >= max(2, timing.tries / 10)}
    if not often:
        return None
    worst = max(often, key=lambda stage: (len(often[stage]), sum(often[stage])))
    words, fix = WORDS[worst]
    numbers = ", ".join(f"{stage} {_ms(p50)}/{_ms(p99)}" for stage, (p50, p99) in summary(timing).items())
    return Finding(
        f"slow-{worst}",
        Class.SLOW,
        f"SELECT 1 is slow: the time goes into {words}",
        (
            f"stage {worst}: {len(often[worst])} of {timing.tries} tries took more than {threshold * 1000:g} ms",
            f"p50/p99 of each stage in ms: {numbers}",
        ),
        fix,
    )


def unanswered(facts: Facts) -> Finding | None:
    """A try without an answer for which no limit accounts."""
    timing = facts.timing
    if (
        timing is None
        or not timing.failures
        or pooling.binding(facts) is not None
        or logins.refused_later(facts) is not None
        or timing.tries > len(timing.failures)
    ):
        return None
    first = timing.failures[0]
    stage = str(first["stage"])
    if stage == "query":
        stage = "backend" if "backend" in first.get("stages", ()) else "answer"
    if first["kind"] != "timeout":
        return Finding(
            "query-fails",
            Class.ENDED,
            "a login succeeds and SELECT 1 fails",
            (f"{first['stage']}: {first['error']} {first['sqlstate']}".strip(),),
            "What PostgreSQL or the pooler said is the reason; the pooler's log has the server's pid",
        )
    words, fix = WORDS.get(stage, WORDS["answer"])
    return Finding(
        f"slow-{stage}",
        Class.SLOW,
        f"SELECT 1 has no answer in time: it hangs in {words}",
        (f"{len(timing.failures)} tries: {first['error']}",),
        fix,
    )


def burst_fails(facts: Facts) -> Finding | None:
    burst = facts.burst
    if burst is None or not burst.errors:
        return None
    return Finding(
        "burst-fails",
        Class.ENDED,
        f"connections fail under a short load ({burst.clients} clients)",
        tuple(f"{often} × {words}" for words, often in burst.errors.items()),
        "See which limit the words name, and the pooler's and PostgreSQL's logs of this moment",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


RULES = (slow, unanswered, burst_fails)
