"""What the doctor measures where the pooler is: names, ports, TLS, logins, the time of `SELECT 1` by stages, a short burst.

It decides nothing: a request of JSON becomes an answer of JSON. Standard library and our own protocol room, nothing else, so that
a pod of the pooler is all that is needed. Run as `pgweir-console --probe` in a pod, and as a function by `pgweir doctor`.
Passwords come with the request, over standard input, and never leave in the answer.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pgweir.protocol import messages
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ProtocolError, ServerLoginError
from pgweir.protocol.messages import B
from pgweir.protocol.reader import MessageReader

Json = dict[str, Any]
Show = Callable[[str], Sequence[Mapping[str, Any]]]
"""A table of the pooler's console by its name. Raises LookFailed."""

MAX_MESSAGE: Final = 16 * 2**20
STUCK_TRIES: Final = 2  # after so many without an answer there is nothing more to learn
SSLMODES_WITHOUT_TLS: Final = ("disable", "allow")

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


class Failed(Exception):
    """A connection that went no further: the stage, and why."""

    def __init__(self, stage: str, message: str, *, kind: str = "error", sqlstate: str = "") -> None:
        super().__init__(message)
        self.stage = stage
        self.kind = kind  # refused, timeout or error
        self.sqlstate = sqlstate

    def document(self) -> Json:
        return {"stage": self.stage, "kind": self.kind, "error": str(self), "sqlstate": self.sqlstate}


# --- names and ports ---------------------------------------------------------------------------------------------------------


def look_up(name: str, timeout: float) -> Json:
    """The addresses of a name. The system's resolver knows no deadline, so it is asked in a thread that may be left behind."""
    found: Json = {"name": name, "addresses": [], "error": "", "seconds": 0.0}
    started = time.monotonic()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer: Json = {"error": getattr(error, "strerror", None) or str(error)}
        else:
            answer = {"addresses": list(dict.fromkeys(str(each[4][0]) for each in answers))}
        found.update(answer, seconds=time.monotonic() - started)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        return {**found, "error": f"no answer within {timeout:g} s", "seconds": time.monotonic() - started}
    return found


def reach(address: str, port: int, timeout: float) -> Json:
    """Whether a port takes a connection. It is closed at once: a pooler counts that as nobody."""
    started = time.monotonic()
    found: Json = {"address": address, "port": port, "kind": "", "error": ""}
    try:
        _connect(address, port, timeout).close()
    except Failed as error:
        found.update(kind=error.kind, error=str(error))
    return {**found, "seconds": time.monotonic() - started}


def _connect_to_one(addresses: Sequence[str], port: int, timeout: float) -> socket.socket:
    """The first that takes a connection, as libpq does it."""
    for address in addresses[:-1]:
        with contextlib.suppress(Failed):
            return _connect(address, port, timeout)
    return _connect(addresses[-1], port, timeout)


def _connect(address: str, port: int, timeout: float) -> socket.socket:
    local = address.startswith("/")
    family = socket.AF_UNIX if local else socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(timeout)
    try:
        made.connect(f"{address}/.s.PGSQL.{port}" if local else (address, port))
    except TimeoutError:
        made.close()
        raise Failed("tcp", f"no answer within {timeout:g} s", kind="timeout") from None
    except OSError as error:
        made.close()
        kind = "refused" if isinstance(error, (ConnectionRefusedError, FileNotFoundError)) else "error"
        raise Failed("tcp", error.strerror or str(error), kind=kind) from None
    if not local:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def accept_queue(port: int, folder: Path = Path("/proc/net")) -> Json:
    """Connections that the kernel has and nobody has accepted, here, and how often such a queue ran over (of all sockets)."""
    queued: int | None = None
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in (folder / name).read_text().splitlines()[1:]:
                words = line.split()
                # SPEC: proc(5): local_address, state 0A = LISTEN, tx_queue:rx_queue; of a listener, rx is what waits.
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    queued = max(queued or 0, int(words[4].partition(":")[2], 16))
    overflows = 0
    with contextlib.suppress(OSError, ValueError):
        lines = [line.split() for line in (folder / "netstat").read_text().splitlines() if line.startswith("TcpExt:")]
        overflows = int(dict(zip(*lines, strict=True))["ListenOverflows"])
    return {"queued": queued, "overflows": overflows}


# --- a connection ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom. `address` is what is connected to, `host` the name that is looked up and that a certificate
    must have."""

    host: str
    port: int
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    address: str = ""
    sslmode: str = "prefer"
    ca: str = ""  # PEM

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Target:
        return cls(**{name: document[name] for name in cls.__slots__ if document.get(name) is not None})


class Session:
    """A client's connection, with the time that each stage took."""

    def __init__(
        self, target: Target, timeout: float, application_name: str, *, stuck: Callable[[Session], None] | None = None
    ) -> None:
        """`stuck` is called when a login has no answer in time, while it still waits."""
        self.stages: dict[str, float] = {}
        self.tls = ""
        self._timeout = timeout
        self._reader = MessageReader(MAX_MESSAGE)
        self._stream: Iterator[tuple[int, bytes]] = iter(())
        addresses = [target.address or target.host]
        if not target.host.startswith("/"):
            found = self._timed("dns", lambda: look_up(target.host, timeout))
            if found["error"]:
                raise Failed("dns", found["error"])
            addresses = [target.address] if target.address else found["addresses"]
        self._socket = self._timed("tcp", lambda: _connect_to_one(addresses, target.port, timeout))
        try:
            if target.sslmode not in SSLMODES_WITHOUT_TLS and not target.host.startswith("/"):
                self._timed("tls", lambda: self._start_tls(target))
            self._timed("auth", lambda: self._log_in(target, application_name))
        except BaseException as error:
            if stuck is not None and isinstance(error, Failed) and error.kind == "timeout":
                stuck(self)
            self._socket.close()
            raise

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            return work()
        finally:
            self.stages[stage] = time.monotonic() - started

    def _start_tls(self, target: Target) -> None:
        try:
            self._socket.sendall(messages.ssl_request())
            answer = self._socket.recv(1)
        except TimeoutError:
            raise Failed("tls", f"no answer within {self._timeout:g} s", kind="timeout") from None
        except OSError as error:
            raise Failed("tls", error.strerror or str(error)) from None
        if answer == b"N" and target.sslmode == "prefer":
            return
        if answer != b"S":
            raise Failed("tls", "it does not offer TLS" if answer == b"N" else "it closed the connection")
        try:
            self._socket = _context(target).wrap_socket(self._socket, server_hostname=target.host)
        except (OSError, ValueError) as error:
            raise Failed("tls", getattr(error, "verify_message", None) or str(error)) from None
        self.tls = self._socket.version() or ""

    @property
    def local_address(self) -> str:
        """As the pooler's tables have it."""
        if self._socket.family == socket.AF_UNIX:
            return ""
        address, port = self._socket.getsockname()[:2]
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    @property
    def certificate(self) -> str:
        """The server's, as DER in base64; "" without TLS."""
        shown = self._socket.getpeercert(binary_form=True) if isinstance(self._socket, ssl.SSLSocket) else None
        return base64.b64encode(shown).decode() if shown else ""

    def _log_in(self, target: Target, application_name: str) -> None:
        parameters = {"user": target.user, "database": target.database, "application_name": application_name}
        self._send("auth", messages.startup_message(parameters))
        proof = ServerAuthentication(target.user, password=target.password, scram_keys=None, random=os.urandom)
        while True:
            kind, body = self._message("auth")
            try:
                if kind == B.AUTHENTICATION:
                    if answer := done_at_once(proof.receive(body)):
                        self._send("auth", answer)
                elif kind == B.ERROR_RESPONSE:
                    said = messages.parse_error(body)
                    raise Failed("auth", said.message, kind="refused", sqlstate=said.sqlstate)
                elif kind == B.READY_FOR_QUERY:
                    return
            except (ProtocolError, ServerLoginError) as error:
                raise Failed("auth", str(error)) from None

    def rows(self, sql: str, timeout: float | None = None) -> list[dict[str, str | None]]:
        """The rows of one statement. Raises Failed."""
        if timeout is not None:
            self._socket.settimeout(timeout)
        self._send("query", messages.query(sql))
        names: list[str] = []
        found: list[dict[str, str | None]] = []
        trouble: Failed | None = None
        while True:
            kind, body = self._message("query")
            if kind == B.ROW_DESCRIPTION:
                names = [name for name, _ in messages.parse_row_description(body)]
            elif kind == B.DATA_ROW:
                values = (None if v is None else v.decode(errors="replace") for v in messages.parse_data_row(body))
                found.append(dict(zip(names, values, strict=True)))
            elif kind == B.ERROR_RESPONSE:
                said = messages.parse_error(body)
                trouble = Failed("query", said.message, kind="refused", sqlstate=said.sqlstate)
                if said.severity == "FATAL":
                    raise trouble
            elif kind == B.READY_FOR_QUERY:
                if trouble is not None:
                    raise trouble
                return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(messages.terminate())
        self._socket.close()

    def _send(self, stage: str, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Failed(stage, f"the connection is lost: {error.strerror or error}") from None

    def _message(self, stage: str) -> tuple[int, bytes]:
        while True:
            try:
                if (found := next(self._stream, None)) is not None:
                    return found
                data = self._socket.recv(65536)
            except TimeoutError:
                raise Failed(stage, "no answer in time", kind="timeout") from None
            except ProtocolError as error:
                raise Failed(stage, f"what answers does not speak PostgreSQL's protocol: {error}") from None
            except OSError as error:
                raise Failed(stage, f"the connection is lost: {error.strerror or error}") from None
            if not data:
                raise Failed(stage, "the other side closed the connection")
            self._stream = self._reader.feed(data)


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = target.sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if target.sslmode.startswith("verify") else ssl.CERT_NONE
    if target.ca:
        context.load_verify_locations(cadata=target.ca)
    elif context.verify_mode is ssl.CERT_REQUIRED:
        context.load_default_certs()
    return context


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
        return {"failure": error.document(), "stages": {}, "answers": [], "activity": [], "capacity": {}}


# --- all of it ---------------------------------------------------------------------------------------------------------------


def probe(request: Mapping[str, Any], show: Show | None = None) -> Json:
    """Do what the request asks for; what is not asked for is null in the answer. Never raises for what it finds."""
    timeout = float(request.get("timeout") or 3.0)
    patience = float(request.get("patience") or 5.0)
    name = str(request.get("application_name") or "pgweir-doctor")
    answer: Json = {
        "names": [],
        "ports": [],
        "login": None,
        "timing": None,
        "backend": None,
        "burst": None,
        "queue": None,
    }
    for wanted in request.get("names") or ():
        answer["names"].append({**wanted, **look_up(wanted["name"], timeout)})
    queue_port = request.get("queue_port")
    before = accept_queue(queue_port) if queue_port else None
    for wanted in request.get("ports") or ():
        answer["ports"] += _reach_each(wanted, timeout)
    if queue_port and before is not None:
        after = accept_queue(queue_port)
        answer["queue"] = {**after, "overflows": after["overflows"] - before["overflows"]}
    if request.get("backend"):
        answer["backend"] = look_at_backend(Target.of(request["backend"]), max(timeout, patience), name)
    if request.get("login"):
        target = Target.of(request["login"])
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
