"""What an administrator does to a running pooler: PAUSE, RESUME, KILL, RECONNECT, DISABLE, RELOAD's live part, SHUTDOWN.

The console, the control endpoint and signals are three doors to these. Nothing here waits: whoever has to (PAUSE answers when
no server is held) hangs a callback on `when_paused` and the like.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from typing import Final

from pgweir.config import Config
from pgweir.pool.records import ClientState
from pgweir.protocol.errors import (
    ADMIN_SHUTDOWN,
    DATABASE_DROPPED,
    INVALID_CATALOG_NAME,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    UNDEFINED_OBJECT,
)
from pgweir.protocol.reasons import CloseReason
from pgweir.session import moves
from pgweir.session.client import ClientSession
from pgweir.session.database import Database
from pgweir.session.holder import SessionPool
from pgweir.session.pooler import Pooler
from pgweir.settings import DatabaseSettings

log = logging.getLogger(__name__)

LEAVING_AT_ONCE: Final = 100  # idle clients that a draining process sends away in one tick


class OperationError(Exception):
    """The command makes no sense now; the message is PgBouncer's and goes to the console as it is."""

    def __init__(self, message: str, sqlstate: str = OBJECT_NOT_IN_PREREQUISITE_STATE) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Operations:
    """Verbs on a running pooler."""

    def __init__(self, pooler: Pooler) -> None:
        self.pooler = pooler
        self._timers: list[tuple[float, Callable[[], None]]] = []  # deadlines of commands that wait
        self._refusing = False  # SHUTDOWN WAIT_FOR_SERVERS: nobody is served any more

    def tick(self) -> None:
        """Three times a second: what a shutdown or a command's deadline asks for."""
        if self._refusing:
            self._refuse_waiting()
        now = self.pooler.clock()
        for timer in [timer for timer in self._timers if timer[0] <= now]:
            self._timers.remove(timer)
            timer[1]()

    def after(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Do that then, give or take a tick. Answers how to give up."""
        timer = (self.pooler.clock() + seconds, action)
        self._timers.append(timer)

        def stop() -> None:
            if timer in self._timers:
                self._timers.remove(timer)

        return stop

    # --- PAUSE and RESUME ----------------------------------------------------------------------------------------------

    def pause(self, name: str | None = None) -> None:
        """Stop assigning servers: everywhere, or in one database. Servers go as they become free."""
        pooler = self.pooler
        self._refuse_while_paused()
        if name is None:
            pooler.paused = True
        else:
            self._database(name).paused = True
        now = pooler.clock()
        for pool in self._pools(name):
            pool.pause(now)
            pooler.close_unused(pool, CloseReason.PAUSED)

    def resume(self, name: str | None = None) -> None:
        """Assign again; everybody who was held goes on, in the order of their arrival.

        What was paused by its name is resumed by its name alone, as in PgBouncer.
        """
        pooler = self.pooler
        if name is None:
            if not pooler.paused:
                raise OperationError("pooler is not paused/suspended")
            pooler.paused = False
        else:
            database = self._database(name)
            if not database.paused:
                raise OperationError(f"database {name} is not paused")
            database.paused = False
        for pool in self._pools(name):
            if not pooler.is_stopped(pool.database):
                pooler.opening.go_on(pool)
        self._tell_waiters()

    def held_servers(self, name: str | None = None) -> int:
        """Servers that exist at all: a pause is complete when this is 0."""
        return sum(pool.server_count for pool in self._pools(name))

    def when_paused(self, name: str | None, done: Callable[[bool], None]) -> Callable[[], None]:
        """Call `done(True)` once no server is held, `done(False)` if the pause ends before that. Answers how to give up."""

        return self._when(
            lambda: not self._is_paused(name) or self.held_servers(name) == 0, lambda: done(self._is_paused(name))
        )

    def terminate_holders(self) -> int:
        """Close whoever still holds a server in this pause, and cancel what they run there; how many that were.

        A transaction in which nothing runs is rolled back before its server goes, so one may still be held for a moment.
        """
        if not self.pooler.paused:
            raise OperationError("pooler is not paused/suspended")
        held = [server for server in self.pooler.servers() if server.client is not None]
        for server in held:
            self.pooler.end_holder(server, CloseReason.PAUSE_TIMEOUT)
        if held:
            log.warning("the deadline of the pause has passed: closed %d clients that held a server", len(held))
        return len(held)

    def _refuse_while_paused(self) -> None:
        if self.pooler.paused:
            raise OperationError("already suspended/paused")

    def _is_paused(self, name: str | None) -> bool:
        if name is None:
            return self.pooler.paused
        database = self.pooler.databases.get(name)
        return database is not None and database.paused

    def _tell_waiters(self) -> None:
        for waiting in list(self.pooler.on_server_gone):
            waiting()

    # --- KILL, RECONNECT, DISABLE ----------------------------------------------------------------------------------------

    def kill(self, name: str | None = None) -> None:
        """Drop clients and servers at once, and leave the database(s) paused."""
        self._refuse_while_paused()
        now = self.pooler.clock()
        for database in [self._database(name)] if name else list(self.pooler.databases.values()):
            database.paused = True
        for pool in self._pools(name):
            pool.pause(now)
            self._drop_all(pool, CloseReason.ADMIN_KILLED, ADMIN_SHUTDOWN)

    def kill_client(self, client_id: int) -> None:
        for client in list(self.pooler.clients):
            if client.id == client_id:
                client.disconnect(CloseReason.ADMIN_KILLED, CloseReason.ADMIN_KILLED.text, ADMIN_SHUTDOWN)
                return
        raise OperationError("client not found", UNDEFINED_OBJECT)

    def reconnect(self, name: str | None = None) -> None:
        """Every server connection of today is closed as soon as it is free."""
        for pool in self._pools(name):
            for server in list(pool.servers()):
                server.close_needed = True
                if pool.policy.single_use:  # it would never be free
                    self.pooler.drop_server(server, CloseReason.CLOSE_NEEDED)
            self.pooler.close_unused(pool, CloseReason.CLOSE_NEEDED)
            self.pooler.opening.wake(pool)

    def when_reconnected(self, name: str | None, done: Callable[[], None]) -> Callable[[], None]:
        """WAIT_CLOSE: call `done` once no server is marked any more. Answers how to give up."""

        return self._when(
            lambda: not any(server.close_needed for pool in self._pools(name) for server in pool.servers()), done
        )

    def _when(self, reached: Callable[[], bool], done: Callable[[], None]) -> Callable[[], None]:
        """Call `done` once this holds: now, or after a server has gone or a pause has ended. Answers how to give up."""
        watch = _Watch(self.pooler.on_server_gone, reached, done)
        watch.check()
        return watch.stop

    def disable(self, name: str) -> None:
        self._database(name).disabled = True

    def enable(self, name: str) -> None:
        self._database(name).disabled = False

    # --- RELOAD ----------------------------------------------------------------------------------------------------------

    def apply(self, config: Config) -> None:
        """Take a configuration that has been found good. Connections stay, but for databases that are gone or moved."""
        pooler = self.pooler
        old = pooler.config
        server_tls_changed = old.tls_identity("server") != config.tls_identity("server")
        pooler.apply_settings(config)
        pooler.lookups.follow()
        for name, database in list(pooler.databases.items()):
            settings = config.database(name)
            if settings is None:
                self._remove(database)
                continue
            moved = server_tls_changed or _moved(database.settings, settings)
            database.settings = settings
            database.is_auto = name not in config.databases
            if moved:
                moves.database_moved(pooler, name)
        for pool in list(pooler.pools.values()):
            if pool.policy.primary_only:
                moves.leave(pooler, pool, [server for server in pool.servers() if server.in_hot_standby])
            # The user's secret may be another one now; a server that refused the old one may be tried at once.
            pool.forgive()
            pooler.opening.wake(pool)

    def _remove(self, database: Database) -> None:
        for key, pool in list(self.pooler.pools.items()):
            if pool.database == database.name:
                self._drop_all(pool, CloseReason.DATABASE_REMOVED, DATABASE_DROPPED)
                del self.pooler.pools[key]
        self.pooler.databases.pop(database.name, None)

    # --- SHUTDOWN ----------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Refuse new logins, and let each client go at the end of its transaction (57P01); session clients stay."""
        self.pooler.draining = True
        self.pooler.accepting = False
        self.release_idle_clients()

    def release_idle_clients(self) -> None:
        """Say goodbye to clients of transaction pools that are between transactions and have asked for nothing.

        Not to all at once: they come back to the pods that stay, and a login costs those more than a query.
        """
        idle = (c for c in list(self.pooler.clients) if not c.keeps_server and c.state is ClientState.IDLE)
        for client in islice(idle, LEAVING_AT_ONCE):
            client.leave()

    def refuse_waiting(self) -> None:
        """Nobody who waits, or comes to wait, will be served any more (SHUTDOWN WAIT_FOR_SERVERS)."""
        self._refusing = True
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        for pool in self._pools(None):
            for holder in [*pool.waiting, *pool.waiting_login]:
                holder.disconnect(CloseReason.POOLER_SHUTDOWN, "server shutting down", ADMIN_SHUTDOWN)

    def holders(self, name: str | None = None) -> list[ClientSession]:
        """Clients that hold a server, the longest transaction first: those that a pause waits for."""
        servers = [server for pool in self._pools(name) for server in pool.servers()]
        found = [server.client for server in servers if isinstance(server.client, ClientSession)]
        return sorted(found, key=lambda client: client.server.transaction_started if client.server else 0.0)

    # --- helpers -----------------------------------------------------------------------------------------------------------

    def _drop_all(self, pool: SessionPool, reason: CloseReason, sqlstate: str) -> None:
        for holder in [*pool.clients, *pool.waiting, *pool.waiting_login]:
            holder.disconnect(reason, reason.text, sqlstate)
        for server in list(pool.servers()):
            self.pooler.drop_server(server, reason)

    def _database(self, name: str) -> Database:
        database = self.pooler.database(name)
        if database is None:
            raise OperationError(f"no such database: {name}", INVALID_CATALOG_NAME)
        return database

    def _pools(self, name: str | None) -> list[SessionPool]:
        return [pool for pool in self.pooler.pools.values() if name is None or pool.database == name]


class _Watch:
    """Waits for something to hold. When that is over it lets go of whoever waited: the two would hold each other."""

    def __init__(
        self, listeners: list[Callable[[], None]], reached: Callable[[], bool], done: Callable[[], None]
    ) -> None:
        self._listeners = listeners
        self._reached = reached
        self._done: Callable[[], None] | None = done
        listeners.append(self.check)

    def check(self) -> None:
        if self._done is not None and self._reached():
            done = self._done
            self.stop()
            done()

    def stop(self) -> None:
        if self._done is not None:
            self._done = None
            self._listeners.remove(self.check)


def _moved(old: DatabaseSettings, new: DatabaseSettings) -> bool:
    """The server connections of today lead elsewhere, or were prepared otherwise, than the next ones will."""
    return (old.host, old.port, old.dbname, old.user, old.connect_query) != (
        new.host,
        new.port,
        new.dbname,
        new.user,
        new.connect_query,
    )
