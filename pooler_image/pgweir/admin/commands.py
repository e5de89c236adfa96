"""What each console command does. One function per verb; the table at the end is the command language.

`run` answers through `done`, at once or later (PAUSE, WAIT_CLOSE). Whoever is no admin may look and change nothing (42501).
Called by `console` alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from pgweir.admin import shown, tables
from pgweir.admin.parse import SYNTAX_ERROR, Command, ConsoleError, invalid
from pgweir.admin.service import Service, ShutdownMode
from pgweir.config import CONSOLE_DATABASE, Config, ConfigError, with_setting
from pgweir.protocol.errors import (
    CONFIG_FILE_ERROR,
    FEATURE_NOT_SUPPORTED,
    LOCK_NOT_AVAILABLE,
    QUERY_CANCELED,
    UNDEFINED_OBJECT,
)
from pgweir.session.operations import OperationError
from pgweir.settings import SETTINGS, ReloadClass, format_value

log = logging.getLogger(__name__)

INSUFFICIENT_PRIVILEGE: Final = "42501"
INVALID_PARAMETER_VALUE: Final = "22023"
CANT_CHANGE_RUNTIME_PARAM: Final = "55P02"
MAX_TIMEOUT: Final = 1e9  # seconds
MAX_HELD: Final = 10  # clients that the detail of an overdue PAUSE names

# What drivers ask for or set at the start of a session. SET of these does nothing, and says so.
FAKED: Final = {
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "standard_conforming_strings": "on",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "GMT",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_min_messages": "notice",
    "search_path": "",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "jit": "off",
    "application_name": "",
    "session": "",
}
# What drivers and their pools say to begin, end or clean a session. There are no transactions here to begin or to clean.
SESSION_VERBS: Final = {
    "BEGIN": "BEGIN",
    "START": "START TRANSACTION",
    "COMMIT": "COMMIT",
    "END": "COMMIT",
    "ROLLBACK": "ROLLBACK",
    "ABORT": "ROLLBACK",
    "DISCARD": "DISCARD ALL",
    "RESET": "RESET",
    "DEALLOCATE": "DEALLOCATE",
    "CLOSE": "CLOSE CURSOR",
    "UNLISTEN": "UNLISTEN",
}

# What pools of connections ask to see whether one lives, or to clean it: the column and its value.
_SELECTS: Final[dict[str, tuple[str, str | int]]] = {
    "1": ("?column?", 1),
    "pg_advisory_unlock_all": ("pg_advisory_unlock_all", ""),
}

HELP: Final = """
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW WAITERS|FAILURES|METRICS
\tSHOW REUSE [<client_id>]
\tSHOW POOL_NODES|POOL_PROCESSES|POOL_POOLS
\tSHOW PEERS|PEER_POOLS
\tSHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|STATS_POOLS|TOTALS
\tSHOW <setting>
\tSET key = arg
\tRELOAD
\tPAUSE [<db>] [TIMEOUT <seconds>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]"""


@dataclass(frozen=True, slots=True)
class Result:
    """A command succeeded: its tag, perhaps rows, perhaps a notice (message, detail)."""

    tag: str
    table: tables.Table | None = None
    notice: tuple[str, str | None] | None = None


Answer = Result | ConsoleError
Done = Callable[[Answer], None]
Cancel = Callable[[bool], None]
"""How to give up a command that waits; True: undo it, as a cancelled statement would be."""


def run(service: Service, command: Command, *, admin: bool, done: Done) -> Cancel | None:
    """Do it. `done` is called exactly once, now or later; for later, the answer is how to give up."""
    verb = command.verb
    try:
        if verb in ("SHOW", "SELECT"):
            if table_name(command) == "POOL_NODES":
                addresses = tables.nodes(tables.View.of(service, time.time()))
                give_up = service.nodes.look(addresses, lambda: done(show(service, command)))
                return lambda undo: give_up()
            done(show(service, command))
            return None
        if verb == "SET" and command.argument in FAKED:
            done(Result("SET", notice=("SET ignored", None)))
            return None
        if verb in SESSION_VERBS:
            done(Result(SESSION_VERBS[verb]))
            return None
        known = _VERBS.get(verb)
        if known is None:
            raise invalid(command.text)
        if not admin:
            raise ConsoleError("insufficient privilege", INSUFFICIENT_PRIVILEGE, hint="admin_users may do that.")
        most, work = known
        if len(command.arguments) > most:
            raise invalid(command.text)
        log.info("%s command issued", command.text if verb == "SET" else " ".join((verb, *command.arguments)))
        return work(service, command, done)
    except ConsoleError as error:
        done(error)
    except OperationError as error:
        done(ConsoleError(str(error), error.sqlstate))
    return None


# --- SHOW ------------------------------------------------------------------------------------------------------------------


def table_name(command: Command) -> str:
    """What is asked for; pgpool's views may be written with a blank: SHOW POOL NODES."""
    words = [word.upper() for word in command.arguments]
    return "_".join(words) if words[:1] == ["POOL"] else words[0] if words else ""


def show(service: Service, command: Command) -> Result:
    """SHOW and SELECT. Changes nothing, so that it may also be run to describe its columns."""
    if not command.arguments:
        raise invalid(command.text)
    if table_name(command) == "REUSE" and len(command.arguments) == 2:
        view = tables.View.of(service, time.time())
        return Result("SHOW", tables.reuse(view, _client_id(command.arguments[1])))
    if len(command.arguments) == 1 or command.arguments[0].upper() == "POOL":
        found = shown.table(service, table_name(command))
        if found is not None:
            return Result("SHOW", found)
    if len(command.arguments) != 1:
        words = [word.upper() for word in command.arguments]
        if command.verb == "SHOW" and words == ["TRANSACTION", "ISOLATION", "LEVEL"]:
            return Result("SHOW", tables.one_value("transaction_isolation", FAKED["transaction_isolation"]))
        raise invalid(command.text)
    name = command.arguments[0].removesuffix("()")
    if name.upper() == "HELP":
        return Result("SHOW", notice=("Console usage", HELP))
    if name.upper() == "FDS":
        text = "SHOW FDS is not supported: sockets are not handed to another process"
        hint = "Run two processes with so_reuseport and stop the old one."
        raise ConsoleError(text, FEATURE_NOT_SUPPORTED, hint=hint)
    if command.verb == "SELECT" and name.lower() in _SELECTS:
        return Result("SELECT 1", tables.one_value(*_SELECTS[name.lower()]))
    faked = FAKED.get(name.lower())
    if faked is not None:
        return Result("SHOW", tables.one_value(name.lower(), faked))
    info = SETTINGS.get(name.lower())
    if info is None or info.secret:
        raise invalid(command.text)
    value = format_value(info, getattr(service.pooler.settings, info.name))
    return Result("SHOW", tables.one_value(info.name, value))


# --- PAUSE and what belongs to it --------------------------------------------------------------------------------------------


def _pause(service: Service, command: Command, done: Done) -> Cancel | None:
    """PAUSE [db], and ours: PAUSE [db] TIMEOUT seconds, which no command of PgBouncer's can be taken for."""
    timeout = _timeout(command)
    name = _database(replace(command, arguments=command.arguments[: len(command.arguments) % 2]))
    operations = service.operations
    operations.pause(name)
    givers_up: list[Callable[[], None]] = []

    def stop() -> None:
        while givers_up:  # and nothing is kept of it: what holds itself would wait for the collector
            givers_up.pop()()

    def finished(paused: bool) -> None:
        stop()
        ended = ConsoleError("PAUSE was ended by RESUME before all servers were released", QUERY_CANCELED)
        done(Result("PAUSE") if paused else ended)

    def overdue() -> None:
        held = _held(service, name)
        stop()
        operations.resume(name)
        message = f"PAUSE was not complete after {timeout:g} s; everything goes on as before"
        done(ConsoleError(message, LOCK_NOT_AVAILABLE, detail=held))

    if timeout is not None and operations.held_servers(name):
        givers_up.append(operations.after(timeout, overdue))
    givers_up.append(operations.when_paused(name, finished))

    def cancel(undo: bool) -> None:
        stop()
        if undo:
            operations.resume(name)

    return cancel


def _timeout(command: Command) -> float | None:
    """The seconds behind TIMEOUT, which stands before the last word of two or of three."""
    if len(command.arguments) < 2:
        return None
    word, text = command.arguments[-2:]
    try:
        seconds = float(text)
    except ValueError:
        raise invalid(command.text) from None
    if word.upper() != "TIMEOUT" or not 0 <= seconds < MAX_TIMEOUT:
        raise invalid(command.text)
    return seconds


def _held(service: Service, name: str | None) -> str:
    """Who kept a pause from being complete."""
    now = service.pooler.clock()
    found = [
        f"client {client.id} ({client.user}, {client.application_name or 'no application_name'}, {client.origin})"
        f" holds server pid {server.pid} for {now - (server.transaction_started or server.requested_at):.0f} s"
        for client in service.operations.holders(name)
        if (server := client.server) is not None
    ]
    return "; ".join(found[:MAX_HELD]) or "A server is being reset or checked."


def _resume(service: Service, command: Command, done: Done) -> None:
    name = _database(command)
    if name is None and service.stopping:  # as in PgBouncer: WAIT_FOR_SERVERS is a pause that has no end
        raise OperationError("pooler is shutting down")
    service.operations.resume(name)
    done(Result("RESUME"))


def _reconnect(service: Service, command: Command, done: Done) -> None:
    service.operations.reconnect(_existing(service, command))
    done(Result("RECONNECT"))


def _wait_close(service: Service, command: Command, done: Done) -> Cancel | None:
    name = _existing(service, command)
    give_up = service.operations.when_reconnected(name, lambda: done(Result("WAIT_CLOSE")))
    return lambda undo: give_up()


def _kill(service: Service, command: Command, done: Done) -> None:
    service.operations.kill(_database(command))
    done(Result("KILL"))


def _kill_client(service: Service, command: Command, done: Done) -> None:
    client_id = _client_id(command.argument or "")
    console = next((console for console in service.consoles.sessions if console.id == client_id), None)
    if console is not None:
        console.kill()
    else:
        service.operations.kill_client(client_id)
    done(Result("KILL_CLIENT"))


def _client_id(text: str) -> int:
    try:
        return int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        message = "invalid client pointer supplied"
        raise ConsoleError(message, INVALID_PARAMETER_VALUE, hint="Write an id of SHOW CLIENTS.") from None


def _disable(service: Service, command: Command, done: Done) -> None:
    service.operations.disable(_required_database(command))
    done(Result("DISABLE"))


def _enable(service: Service, command: Command, done: Done) -> None:
    service.operations.enable(_required_database(command))
    done(Result("ENABLE"))


def _database(command: Command) -> str | None:
    name = command.argument
    if name == CONSOLE_DATABASE:
        if command.verb == "RESUME":
            raise OperationError(f"database {name} is not paused")
        raise OperationError(f"cannot {_DEEDS.get(command.verb, command.verb.lower())} admin db: {name}")
    return name


# SPEC: PgBouncer's own words where they are not the verb's.
_DEEDS: Final = {"ENABLE": "disable", "WAIT_CLOSE": "wait in"}


def _required_database(command: Command) -> str:
    name = _database(command)
    if name is None:
        raise ConsoleError("a database is required", SYNTAX_ERROR)
    return name


def _existing(service: Service, command: Command) -> str | None:
    name = _database(command)
    if name is not None and service.pooler.database(name) is None:
        raise OperationError(f"no such database: {name}")
    return name


# --- configuration -----------------------------------------------------------------------------------------------------------


def _reload(service: Service, command: Command, done: Done) -> None:
    try:
        service.reload()
    except Exception as error:  # whatever it is, the last good configuration serves and the console stays
        log.error("RELOAD failed: %s", error)
        message = "RELOAD failed, see logs for additional details"
        raise ConsoleError(message, CONFIG_FILE_ERROR, detail=str(error)) from None
    done(Result("RELOAD"))


def _set(service: Service, command: Command, done: Done) -> None:
    name, value = command.arguments
    service.apply(_changed(service.pooler.config, name, value))
    done(Result(f"SET {name}={value}"))


def _changed(config: Config, name: str, value: str) -> Config:
    info = SETTINGS.get(name)
    if info is None:
        raise ConsoleError("SET failed", UNDEFINED_OBJECT, detail=f"There is no setting {name}.")
    if info.reload is ReloadClass.RESTART:
        detail = f"{name} is fixed when the process starts: change the configuration file and restart."
        raise ConsoleError("SET failed", CANT_CHANGE_RUNTIME_PARAM, detail=detail)
    try:
        return with_setting(config, name, value)
    except ConfigError as error:
        raise ConsoleError("SET failed", INVALID_PARAMETER_VALUE, detail=str(error)) from None


# --- SHUTDOWN ----------------------------------------------------------------------------------------------------------------

_MODES: Final[dict[str, ShutdownMode]] = {
    "WAIT_FOR_SERVERS": "wait_for_servers",
    "WAIT_FOR_CLIENTS": "wait_for_clients",
}


def _shutdown(service: Service, command: Command, done: Done) -> None:
    if command.argument is None:
        service.shutdown("immediate")  # no answer: the connection closes with all others
        return
    mode = _MODES.get(command.argument.upper())
    if mode is None:
        raise invalid(command.text)
    service.shutdown(mode)
    done(Result("SHUTDOWN"))


def _suspend(service: Service, command: Command, done: Done) -> None:
    text = "SUSPEND is not supported: it serves PgBouncer's online restart alone"
    raise ConsoleError(text, FEATURE_NOT_SUPPORTED, hint="PAUSE stops all traffic to the servers.")


_VERBS: Final[dict[str, tuple[int, Callable[[Service, Command, Done], Cancel | None]]]] = {
    # verb: (most arguments, work)
    "PAUSE": (3, _pause),
    "RESUME": (1, _resume),
    "KILL": (1, _kill),
    "KILL_CLIENT": (1, _kill_client),
    "RECONNECT": (1, _reconnect),
    "WAIT_CLOSE": (1, _wait_close),
    "DISABLE": (1, _disable),
    "ENABLE": (1, _enable),
    "RELOAD": (0, _reload),
    "SET": (2, _set),
    "SHUTDOWN": (1, _shutdown),
    "SUSPEND": (0, _suspend),
}
