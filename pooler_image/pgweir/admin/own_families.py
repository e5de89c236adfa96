"""The exporter's families that are ours, under `pgweir_`. Pure, like `families`.

What has a closed list of label values shows all of them from the start, so that the first time counts as an increase. Labels
are bounded: databases and users in use, and the closed lists of this program (reasons, stages, causes). SQLSTATE is
PostgreSQL's list. Histograms have the database alone, since each is twenty-odd series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from pgweir import compiled
from pgweir.admin import tables
from pgweir.admin.families import STATS, Family, Moment, Samples, Spread, Value
from pgweir.admin.tables.waiting import binding
from pgweir.pool.stats import HISTOGRAMS, Stats, Timings
from pgweir.protocol.reasons import CloseReason
from pgweir.session.holds import EndedBy

PREFIX: Final = "pgweir"

_POOL: Final = ("database", "user")


def _one(name: str, text: str, of: Callable[[Moment], Value]) -> Family[Moment]:
    return Family(name, "gauge", text, lambda moment: [((), of(moment))])


def _total(name: str, text: str, of: Callable[[Moment], float]) -> Family[Moment]:
    return Family(name, "counter", text, lambda moment: [((), of(moment))])


def _counts(name: str, text: str, label: str, of: Callable[[Moment], Mapping[str, int]]) -> Family[Moment]:
    def samples(moment: Moment) -> Samples:
        return [((value,), count) for value, count in sorted(of(moment).items())]

    return Family(name, "counter", text, samples, (label,))


# --- pools -----------------------------------------------------------------------------------------------------------------


def _of_usage(kind: tuple[str, str], text: str, of: Callable[[tables.Usage], float | None]) -> Family[Moment]:
    def samples(moment: Moment) -> Samples:
        found = (((each.database, each.user), of(each)) for each in moment.usage)
        return [(labels, value) for labels, value in found if value is not None]

    name, type_ = kind
    return Family(f"pool_{name}", "counter" if type_ == "counter" else "gauge", text, samples, _POOL)


def _counter(name: str) -> Callable[[tables.Usage], float]:
    return lambda usage: float(getattr(usage.stats, name))


def _longest_wait(moment: Moment) -> Samples:
    found: dict[tuple[str, ...], float] = {}
    for pool in moment.view.pooler.pools.values():
        key = (pool.database, pool.user)
        found[key] = max(found.get(key, 0.0), pool.max_wait(moment.view.now))
    return sorted(found.items())


def _waiting_by_cause(moment: Moment) -> Samples:
    found: Counter[tuple[str, ...]] = Counter()
    for pool in moment.view.pooler.pools.values():
        queue = pool.waiting_count
        if queue:
            found[pool.database, pool.user, binding(moment.view, pool).limit] += queue
    return sorted(found.items())


_POOLS: Final = (
    _of_usage(("active_connections", "gauge"), "Servers that a client holds.", lambda usage: usage.active),
    _of_usage(("cached_connections", "gauge"), "Servers that wait for their next client.", lambda usage: usage.cached),
    _of_usage(("wait_queue_length", "gauge"), "Clients that wait for a server.", lambda usage: usage.waiting),
    Family(
        "pool_waiting",
        "gauge",
        "Clients that wait for a server, by the limit that keeps them waiting: a setting's name, or paused, hold, target,"
        " password, max_connections (PostgreSQL's), login, check.",
        _waiting_by_cause,
        (*_POOL, "cause"),
    ),
    Family(
        "pool_max_wait_seconds", "gauge", "How long the first client in the queue has waited.", _longest_wait, _POOL
    ),
    _of_usage(
        ("hit_ratio", "gauge"),
        "Hits per hit or miss, since the start; absent before the first.",
        lambda usage: usage.hit_ratio,
    ),
    _of_usage(
        ("hits", "counter"), "Times that a client was given a server which was there already.", lambda usage: usage.hits
    ),
    _of_usage(
        ("misses", "counter"),
        "Times that a server was opened because a client asked, and used.",
        lambda usage: usage.misses,
    ),
    *(
        _of_usage(
            (f"{name}_seconds" if name.endswith("_time") else name, "counter"),
            f"Since the start: {text.replace('microseconds', 'seconds')}.",
            _counter(name),
        )
        for name, text in {**STATS, "client_login_count": "clients that logged in"}.items()
    ),
)


# --- how long things take --------------------------------------------------------------------------------------------------


def wait_spread(stats: Stats) -> Spread:
    """Of all who were given a server: those who got one at once are not observed one by one."""
    counts = list(stats.waits.counts)
    counts[0] += max(0, stats.server_assignment_count - sum(counts))
    return Spread(tuple(counts), stats.wait_time)


def spread(stats: Stats, name: str) -> Spread:
    if name == "waits":
        return wait_spread(stats)
    return Spread(tuple(getattr(stats, name).counts), getattr(stats, HISTOGRAMS[name]))


def _of_stats(name: str, text: str, attribute: str) -> Family[Moment]:
    def samples(moment: Moment) -> Samples:
        pooler = moment.view.pooler
        return [((name,), spread(pooler.stats(each), attribute)) for name, each in sorted(pooler.databases.items())]

    return Family(name, "histogram", text, samples, ("database",))


def _of_timings(name: str, text: str, of: Callable[[Moment], Timings]) -> Family[Moment]:
    def samples(moment: Moment) -> Samples:
        timings = of(moment)
        return [((), Spread(tuple(timings.spread.counts), timings.seconds))]

    return Family(name, "histogram", text, samples)


_TIMES: Final = (
    _of_stats(
        "wait_seconds", "How long clients waited for a server; whoever got one at once is in the first bucket.", "waits"
    ),
    _of_stats("query_seconds", "How long servers took for a query, until the answer was complete.", "queries"),
    _of_stats(
        "transaction_seconds", "How long a transaction had its server; several in one pipeline are one.", "transactions"
    ),
    _of_timings(
        "client_login_seconds",
        "From a client's connection to its greeting: TLS, proof, and the wait for a pool's first server.",
        lambda moment: moment.view.pooler.client_logins,
    ),
    _of_timings(
        "server_login_seconds",
        "From the decision to open a server connection to its first ReadyForQuery.",
        lambda moment: moment.view.pooler.server_logins,
    ),
    _of_timings(
        "event_loop_lag_seconds",
        "How much later than asked the process looked after itself, three times a second: what kept it, kept every client.",
        lambda moment: moment.service.loop_lag,
    ),
)


# --- goodbyes and refusals -------------------------------------------------------------------------------------------------


def _tls_failures(moment: Moment) -> Samples:
    return sorted(moment.view.pooler.tls_failures.items())


_REASONS: Final = (
    _counts(
        "closed_connections",
        "Client and server connections that ended, by reason.",
        "reason",
        lambda moment: {reason.label: moment.view.pooler.closed_counts.get(reason, 0) for reason in CloseReason},
    ),
    _counts(
        "auth_failures",
        "Logins that were refused, by the step that refused.",
        "stage",
        lambda moment: moment.view.pooler.auth_failures,
    ),
    Family(
        "tls_failures",
        "counter",
        "TLS handshakes that failed, with a client or a server: over a certificate, what both could agree on, a peer"
        " that hung up or refused, or (other) anything else.",
        _tls_failures,
        ("side", "stage"),
    ),
    _counts(
        "server_login_errors",
        "Server connections or logins that failed, by SQLSTATE.",
        "sqlstate",
        lambda moment: moment.view.pooler.server_login_errors,
    ),
    _total(
        "descriptor_shortages",
        "Looks, three a second, that found no file descriptor left: new clients were turned away meanwhile.",
        lambda moment: moment.service.descriptors.shortages,
    ),
)


# --- the process -----------------------------------------------------------------------------------------------------------


def _hold_seconds(moment: Moment) -> float:
    holds = moment.view.pooler.holds
    return holds.seconds + (holds.current.age(moment.view.now) if holds.current is not None else 0.0)


def _hold_ceiling(moment: Moment) -> float:
    hold = moment.view.pooler.holds.current
    return hold.ceiling if hold is not None else 0.0


def _hold_age(moment: Moment) -> float:
    hold = moment.view.pooler.holds.current
    return hold.age(moment.view.now) if hold is not None else 0.0


def _configuration(moment: Moment) -> Mapping[str, str]:
    service = moment.service
    bundle = service.bundle
    return {
        "version": service.version,
        "form": compiled.FORM,
        "revision": str(bundle.revision) if bundle is not None else "",
        "digest": bundle.digest if bundle is not None else service.pooler.config.digest,
    }


_PROCESS: Final[tuple[Family[Moment], ...]] = (
    _one("paused", "1 when the whole pooler is paused.", lambda moment: int(moment.view.pooler.paused)),
    _one(
        "held",
        "1 while clients are held for a switchover or a restart.",
        lambda moment: int(moment.view.pooler.holds.current is not None),
    ),
    _one("hold_age_seconds", "How long the hold has stood; 0 without one.", _hold_age),
    _one("hold_ceiling_seconds", "When the hold ends by itself; 0 without one.", _hold_ceiling),
    _counts(
        "holds",
        "Holds that are over, by what ended them.",
        "ended_by",
        lambda moment: {str(ended_by): moment.view.pooler.holds.counts.get(ended_by, 0) for ended_by in EndedBy},
    ),
    _total("hold_seconds", "Time spent in holds.", _hold_seconds),
    _one("draining", "1 when the pooler is shutting down.", lambda moment: int(moment.service.stopping)),
    _one("clients", "Client connections that are logged in.", lambda moment: len(moment.view.pooler.clients)),
    _one(
        "max_client_conn",
        "Client connections that are allowed.",
        lambda moment: moment.view.pooler.settings.max_client_conn,
    ),
    _one(
        "clients_waiting_for_place",
        "Clients beyond max_client_conn that wait for a place (client_overflow = wait).",
        lambda moment: len(moment.view.pooler.overflow.waiting),
    ),
    _counts(
        "reloads",
        "Configurations that were read or sent after the start, by what became of them.",
        "outcome",
        lambda moment: {"applied": moment.service.reloads.applied, "refused": moment.service.reloads.refused},
    ),
    _one(
        "configuration_refused",
        "1 when the last configuration was refused; the one before it runs on.",
        lambda moment: int(moment.service.reloads.last_refused is not None),
    ),
    _one(
        "configuration_applied_timestamp_seconds",
        "When the configuration that runs was taken.",
        lambda moment: moment.service.reloads.applied_at or moment.service.started_at,
    ),
    Family(
        "configuration",
        "info",
        "The configuration that runs.",
        lambda moment: [((), _configuration(moment))],
        ("version", "form", "revision", "digest"),
    ),
)

OWN: Final[tuple[Family[Moment], ...]] = (*_POOLS, *_TIMES, *_REASONS, *_PROCESS)
