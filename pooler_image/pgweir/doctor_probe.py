"""What the doctor measures where the pooler is: names, ports, TLS, logins, the time of `SELECT 1` by stages, a short burst.

It decides nothing: a request of JSON becomes an answer of JSON. `doctor_session` connects, and needs nothing but the standard
library and our own protocol room, so that a pod of the pooler is all that is needed. Run as `pgweir-console --probe` in a pod,
and as a function by `pgweir doctor`. Passwords come with the request, over standard input, and never leave in the answer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pgweir.doctor_session import Failed, Json, Session, Target, accept_queue, look_up, reach

Show = Callable[[str], Sequence[Mapping[str, Any]]]
"""A table of the pooler's console by its name. Raises LookFailed."""

STUCK_TRIES: Final = 2  # after so many without an answer there is nothing more to learn

# SPEC: the columns that the doctor's readers know from their own manual search, then the ages, and which row is ours.
ACTIVITY: Final = """\
SELECT pid, datname, usename, application_name, client_addr, state, wait_event, query,
  extract(epoch FROM clock_timestamp() - xact_start)::bigint AS transaction_seconds,
  extract(epoch FROM clock_timestamp() - state_change)::bigint AS state_seconds
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
CAPACITY: Final = """\
SELECT current_setting('max_connections')::int AS max_connections,
  current_setting('superuser_reserved_connections')::int AS reserved,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS used"""


class LookFailed(Exception):
    """The console could not be asked."""


# --- logging in, and who said no ---------------------------------------------------------------------------------------------


def log_in(target: Target, timeout: float, name: str, show: Show | None = None) -> Json:
    """One login: what TLS there was, or where it failed and which step of the pooler refused it."""
    before = _stages(show)
    waits: list[Json | None] = [None]
    try:
        session = Session(target, timeout, name, stuck=lambda at: waits.append(_own_wait(at.local_address, name, show)))
    except Failed as error:
        found: Json = {**error.document(), "auth_stage": "", "waiter": waits[-1], "tls": "", "certificate": ""}
        if error.stage == "auth" and error.kind == "refused":
            found["auth_stage"] = _risen(before, _stages(show))
        if error.stage == "tls":
            found["certificate"] = _shown_certificate(target, timeout, name)
        return found
    try:
        return {"stage": "", "error": "", "tls": session.tls, "certificate": session.certificate}
    finally:
        session.close()


def _shown_certificate(target: Target, timeout: float, name: str) -> str:
    """That of a server which is not trusted; the login behind it may fail."""
    seen: list[str] = []

    class Look(Session):
        def _log_in(self, target: Target, application_name: str) -> None:
            seen.append(self.certificate)
            raise Failed("auth", "seen")

    with contextlib.suppress(Failed):
        values = {each: getattr(target, each) for each in Target.__slots__}
        Look(Target(**{**values, "sslmode": "require"}), timeout, name)
    return seen[0] if seen else ""


def _stages(show: Show | None) -> dict[str, int]:
    """How often each step of the pooler has refused a login so far."""
    rows = _rows(show, "FAILURES") or ()
    return {str(row["name"]): int(row["count"]) for row in rows if row["kind"] == "auth_stage"}


def _risen(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    risen = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    return max(risen, key=lambda name: risen[name]) if risen else ""


# --- SELECT 1, stage by stage ------------------------------------------------------------------------------------------------


def try_often(target: Target, tries: int, timeout: float, patience: float, name: str, show: Show | None) -> Json:
    """Connect, ask `SELECT 1`, leave; so many times, after once that does not count (it may be the first of its pool).

    The pooler's own counters say how much of the answer's time was waiting for a server. Others' clients count in them too:
    their share is taken off by averages.
    """
    done: list[dict[str, float]] = []
    failures: list[Json] = []
    waiter: Json | None = None
    for number in range(tries + 1):
        stages: dict[str, float] = {}
        trouble: Failed | None = None
        try:
            session = Session(target, max(timeout, patience), name)
        except Failed as error:
            trouble = error
        else:
            before = _counters(target.database, show)
            started = time.monotonic()
            try:
                session.rows("SELECT 1", patience)
            except Failed as error:
                trouble = error
            took = time.monotonic() - started
            if trouble is not None and trouble.kind == "timeout":
                waiter = _own_wait(session.local_address, name, show) or waiter
            queue = took if trouble is not None and waiter else _queued(before, _counters(target.database, show), took)
            session.close()
            stages = {
                **session.stages,
                **({"answer": took} if queue is None else {"queue": queue, "backend": took - queue}),
            }
        if trouble is not None:
            failures.append({**trouble.document(), "stages": stages})
            if len(failures) >= STUCK_TRIES or trouble.kind != "timeout":
                break
        elif number:
            done.append(stages)
    return {"tries": done, "failures": failures, "waiter": waiter}


def _counters(database: str, show: Show | None) -> tuple[int, int] | None:
    """Times that a server was given out, and microseconds that clients waited; None where nobody counts."""
    for table in ("STATS_POOLS", "STATS"):  # the second is any PgBouncer's
        rows = [row for row in _rows(show, table) or () if row["database"] == database]
        if rows:
            given = ("total_server_assignment_count", "total_xact_count")
            return (
                sum(int(next(row[name] for name in given if name in row) or 0) for row in rows),
                sum(int(row["total_wait_time"] or 0) for row in rows),
            )
    return None


def _rows(show: Show | None, table: str) -> Sequence[Mapping[str, Any]] | None:
    """None: nobody to ask, or no answer."""
    if show is None:
        return None
    try:
        return show(table)
    except LookFailed:
        return None


def _queued(before: tuple[int, int] | None, after: tuple[int, int] | None, took: float) -> float | None:
    if before is None or after is None:
        return None
    given = max(1, after[0] - before[0])
    return min(took, (after[1] - before[1]) / given / 1_000_000)


def _own_wait(address: str, name: str, show: Show | None) -> Json | None:
    """Our own row of SHOW WAITERS. Who waits at its login is known there by the address alone."""
    rows = _rows(show, "WAITERS")
    if rows is not None:
        return next((dict(row) for row in rows if address == row["addr"] or row["application_name"] == name), None)
    for row in _rows(show, "CLIENTS") or ():
        if row["state"] == "waiting" and f"{row['addr']}:{row['port']}" == address:
            reason = "SHOW CLIENTS says waiting; this pooler does not say for which limit"
            return {"limit": "server", "reason": reason, "wait": row.get("wait"), "wait_us": row.get("wait_us")}
    return None


# --- load, and PostgreSQL itself ---------------------------------------------------------------------------------------------


def burst(target: Target, clients: int, seconds: float, timeout: float, name: str) -> Json:
    """`SELECT 1` from several clients at once, as fast as each gets its answer."""
    times: list[float] = []
    errors: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def client() -> None:
        try:
            session = Session(target, timeout, name)
            with contextlib.closing(session):
                while (started := time.monotonic()) < until:
                    session.rows("SELECT 1", timeout)
                    times.append(time.monotonic() - started)
        except Failed as error:
            errors[f"{error.stage}: {error}"] += 1

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 2 * timeout)
    return {
        "clients": clients,
        "seconds": seconds,
        "done": len(times),
        "longest": max(times, default=0.0),
        "errors": errors,
    }


def look_at_backend(target: Target, timeout: float, name: str) -> Json:
    """PostgreSQL itself, past the pooler: its sessions, and how many there may be."""
    try:
        session = Session(target, timeout, name)
        with contextlib.closing(session):
            times = []
            for _ in range(5):
                started = time.monotonic()
                session.rows("SELECT 1", timeout)
                times.append(time.monotonic() - started)
            return {
                "failure": None,
                "stages": session.stages,
                "answers": times,
                "activity": session.rows(ACTIVITY),
                "capacity": session.rows(CAPACITY)[0],
            }
    except Failed as error:
        return _unseen(error)


def _unseen(error: Failed) -> Json:
    return {"failure": error.document(), "stages": {}, "answers": [], "activity": [], "capacity": {}}


# --- all of it ---------------------------------------------------------------------------------------------------------------


def nothing() -> Json:
    """The answer to a request that asks for nothing."""
    return {"names": [], "ports": [], "login": None, "timing": None, "backend": None, "burst": None, "queue": None}


def probe(request: Mapping[str, Any], show: Show | None = None) -> Json:
    """Do what the request asks for; what is not asked for is null in the answer. Never raises for what it finds."""
    timeout = float(request.get("timeout") or 3.0)
    patience = float(request.get("patience") or 5.0)
    name = str(request.get("application_name") or "pgweir-doctor")
    answer = nothing()
    for wanted in request.get("names") or ():
        answer["names"].append({**wanted, **look_up(wanted["name"], timeout)})
    # A resolver that is silent is waited for once, and not again at every step.
    lost = {row["name"]: row["error"] for row in answer["names"] if row["error"]}
    queue_port = request.get("queue_port")
    before = accept_queue(queue_port) if queue_port else None
    for wanted in request.get("ports") or ():
        answer["ports"] += _reach_each(wanted, timeout) if wanted["host"] not in lost else []
    if queue_port and before is not None:
        after = accept_queue(queue_port)
        answer["queue"] = {**after, "overflows": after["overflows"] - before["overflows"]}
    if request.get("backend"):
        host = request["backend"]["host"]
        if host in lost:
            answer["backend"] = _unseen(Failed("dns", lost[host]))
        else:
            answer["backend"] = look_at_backend(Target.of(request["backend"]), max(timeout, patience), name)
    if request.get("login"):
        target = Target.of(request["login"])
        if target.host in lost and target.address and target.sslmode != "verify-full":
            target = replace(target, host=target.address)  # where it is, is known all the same
        tried = [port for port in answer["ports"] if port["role"] == "pooler"]
        if not tried or any(not port["error"] for port in tried):
            answer["login"] = log_in(target, max(timeout, patience), name, show)
            failure = answer["login"]
            if failure.get("kind") == "timeout":
                stuck = {key: failure[key] for key in ("stage", "kind", "error", "sqlstate")}
                answer["timing"] = {"tries": [], "failures": [stuck], "waiter": failure["waiter"]}
            elif not failure["stage"]:
                answer["timing"] = try_often(target, int(request.get("tries") or 20), timeout, patience, name, show)
            if not failure["stage"] and request.get("burst"):
                wanted = request["burst"]
                answer["burst"] = burst(
                    target, int(wanted["clients"]), float(wanted["seconds"]), max(timeout, patience), name
                )
    return answer


def _reach_each(wanted: Mapping[str, Any], timeout: float) -> list[Json]:
    """Every address of a host, or the host itself where it is an address. A name that is none was told already."""
    found = (
        {"addresses": [wanted["host"]], "error": ""}
        if wanted["host"].startswith("/")
        else look_up(wanted["host"], timeout)
    )
    return [{**wanted, **reach(address, wanted["port"], timeout)} for address in found["addresses"]]
