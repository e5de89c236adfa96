"""auth_query: a user's stored secret, asked of PostgreSQL on a pool of `auth_user`.

A look-up holds a server like a client does, for one query; so the size of that pool bounds how many run at a time. None of a
client's variables reach that connection. Those who ask for the same user at the same time share one query. A secret that was
found is kept for auth_query_cache_time (0: not at all), and forgotten as soon as a proof against it fails.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pgweir.config import Config
from pgweir.pool.records import ClientState
from pgweir.protocol import framing
from pgweir.protocol.auth.auth_query import (
    AuthQueryOutcome,
    AuthQueryResult,
    Found,
    LookupFailed,
    auth_query_messages,
)
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.reader import MessageReader
from pgweir.protocol.reasons import CloseReason
from pgweir.protocol.variables import Values
from pgweir.session.database import Database
from pgweir.session.holder import Holder, PoolKey, SessionPool, pool_key
from pgweir.session.server import check_out
from pgweir.settings import DatabaseSettings

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler
    from pgweir.session.server import ServerSession

Answer = Callable[[AuthQueryOutcome], None]
Key = tuple[str, str]  # database and user

_CLIENT_IDLE: Final = ClientState.IDLE  # PERF: a member of an enumeration costs a look-up in its class
_ASKED: Final = (framing.PARSE, framing.BIND, framing.DESCRIBE, framing.EXECUTE, framing.SYNC)

MAX_KNOWN_WAYS: Final = 1_000  # anybody may ask for any name, where a template makes databases
KEPT_AT_MOST: Final = 10_000  # secrets; the oldest goes
MAX_KNOWN_ANSWERS: Final = 256  # answers of PostgreSQL's that are kept with what they say
MAX_KNOWN_ANSWER: Final = 1024  # bytes of one


class Way:
    """Where logins to one database look a secret up, under one configuration."""

    __slots__ = ("auth_user", "config", "defaults", "epoch", "pool_key", "query", "settings", "target", "welcome")

    def __init__(self, config: Config, database: str) -> None:
        self.config = config
        self.auth_user = config.auth_user(database)  # None: nowhere
        self.target = config.auth_dbname(database)
        self.query = config.auth_query(database)
        self.settings: DatabaseSettings | None = None  # of the target, that the key of the pool is of
        self.pool_key: PoolKey = ("", "", ())
        # A server's own variables: of this greeting, and as the tracker had them at this time.
        self.welcome: dict[str, str] | None = None
        self.epoch = -1
        self.defaults: Values = ()


class Lookups:
    """All look-ups under way, and how the last one ended."""

    __slots__ = ("_asking", "_kept", "_pooler", "_running", "_ways", "answers", "last_error", "last_ok")

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._ways: dict[str, Way] = {}  # by the database that is logged in to
        self._running: dict[Key, list[Answer]] = {}
        self._asking: dict[Key, Lookup] = {}
        self._kept: OrderedDict[Key, tuple[float, Found]] = OrderedDict()  # with the time until which it is good
        self.answers: dict[bytes, Found] = {}  # what PostgreSQL has said, byte by byte, and what that says
        self.last_ok: bool | None = None
        self.last_error: str | None = None

    def __len__(self) -> int:
        return len(self._running)

    def is_paused(self, database: Database) -> bool:
        """A look-up for logins to this database has to wait for a RESUME."""
        target = self._pooler.databases.get(self._pooler.config.auth_dbname(database.name))
        stopped = self._pooler.paused or self._pooler.holds.current is not None
        return stopped or (target is not None and target.paused)

    def forget(self, database: str | None = None, user: str = "") -> None:
        """What is kept of this user may be outdated; without a name: all of it (a configuration is new)."""
        if database is None:
            self._ways.clear()
            self._kept.clear()
            self.answers.clear()
        else:
            self._kept.pop((database, user), None)

    def way(self, database: str) -> Way:
        """PERF: kept, since each of its parts is a search through the configuration."""
        way = self._ways.get(database)
        if way is None or way.config is not self._pooler.config:
            if len(self._ways) >= MAX_KNOWN_WAYS:
                self._ways.clear()
            way = self._ways[database] = Way(self._pooler.config, database)
        return way

    def ask(self, database: Database, user: str, answer: Answer, anew: bool = False) -> None:
        """Call `answer` with what auth_query says about this user, for logins to this database. `anew`: what is kept does
        not count."""
        key = (database.name, user)
        if anew:
            self._kept.pop(key, None)
        elif key in self._kept:
            good_until, found = self._kept[key]
            if self._pooler.clock() < good_until:
                answer(found)
                return
            del self._kept[key]
        waiting = self._running.get(key)
        if waiting is not None:
            waiting.append(answer)
            return
        pooler = self._pooler
        way = self.way(database.name)
        target = pooler.databases.get(way.target)
        if target is None:
            target = pooler.database(way.target)
        if way.auth_user is None or target is None or target.disabled:
            answer(LookupFailed("auth_query cannot run: its database is not configured or disabled"))
            return
        self._running[key] = [answer]
        if way.settings is not target.settings:
            way.settings = target.settings
            way.pool_key = pool_key(target.name, target.pool_user(way.auth_user), {})
        pool = pooler.pools.get(way.pool_key)
        if pool is None:
            pool = pooler.pool(target, way.pool_key[1])
        lookup = Lookup(pooler, pool, way, key)
        self._asking[key] = lookup
        lookup.start()

    def follow(self) -> None:
        """The configuration is new: look-ups that wait where it does not send them any more are asked where it does."""
        config = self._pooler.config
        for (name, user), lookup in list(self._asking.items()):
            database = self._pooler.database(name, keep=False)
            target = None if database is None else self._pooler.databases.get(config.auth_dbname(name))
            auth_user = config.auth_user(name)
            if database is None or target is None or auth_user is None:
                there = False
            else:
                there = (lookup.pool.database, lookup.pool.user) == (target.name, target.pool_user(auth_user))
            if database is not None and not there and lookup.withdraw():
                del self._asking[name, user]
                for answer in self._running.pop((name, user), ()):
                    self.ask(database, user, answer)

    def done(self, key: Key, outcome: AuthQueryOutcome) -> None:
        self._asking.pop(key, None)
        self.last_error = outcome.message if isinstance(outcome, LookupFailed) else None
        self.last_ok = self.last_error is None
        keep_for = self._pooler.settings.auth_query_cache_time
        if keep_for and isinstance(outcome, Found):
            self._kept[key] = self._pooler.clock() + keep_for, outcome
            if len(self._kept) > KEPT_AT_MOST:
                self._kept.popitem(last=False)
        for answer in self._running.pop(key, ()):
            answer(outcome)


class _Nobody:
    """Takes what a server still says to a look-up that is over."""

    def write(self, data: bytes, /) -> None: ...


_NOBODY: Final = _Nobody()


class Lookup(Holder):
    """One query for one user."""

    __slots__ = ("_is_done", "_key", "_pooler", "_reader", "_result", "_way")

    def __init__(self, pooler: Pooler, pool: SessionPool, way: Way, key: Key) -> None:
        self._begin_holder(pool, pooler.clock())
        self._pooler = pooler
        self._way = way
        self._key = key
        self._is_done = False
        self._reader: MessageReader | None = None  # these two as long as nothing was read that had to be
        self._result: AuthQueryResult | None = None
        self.wire = self  # the server's bytes come to `write`
        self.state = _CLIENT_IDLE

    def start(self) -> None:
        if self.pool.welcome is not None:
            # A client of this pool may have left its own on a server; the look-up runs with the server's defaults.
            way, tracker = self._way, self._pooler.tracker
            if way.welcome is not self.pool.welcome or way.epoch != tracker.epoch:
                way.welcome = self.pool.welcome
                way.defaults = tracker.values(way.welcome)
                way.epoch = tracker.epoch
            self.values = way.defaults
        self.pool.clients.add(self)
        server = check_out(self._pooler, self)
        if server is not None:
            self.granted(server)

    def granted(self, server: ServerSession) -> None:
        assert server.wire is not None
        server.query_open = True
        server.query_started = server.transaction_started = self._pooler.clock()
        for kind in _ASKED:
            server.exchange.expect(kind)
        server.wire.write(auth_query_messages(self._way.query, self._key[1]))

    def write(self, data: bytes) -> None:
        """What PostgreSQL answers. PERF: while a user's secret is the same, so is the answer, byte by byte; one that came whole,
        in one read, is kept with what it says (only ever after PostgreSQL was asked: it saves reading, not asking)."""
        whole = self._reader is None
        if self._reader is None:
            known = self._pooler.lookups.answers.get(data)
            if known is not None:
                self._finish(known)
                return
            self._reader = MessageReader()
            self._result = AuthQueryResult()
        assert self._result is not None
        try:
            for type_, body in self._reader.feed(data):
                outcome = self._result.receive(type_, body)
                if outcome is not None:
                    if whole and isinstance(outcome, Found) and len(data) <= MAX_KNOWN_ANSWER and self._reader.is_empty:
                        answers = self._pooler.lookups.answers
                        if len(answers) >= MAX_KNOWN_ANSWERS:
                            answers.clear()
                        answers[data] = outcome
                    # The server settles (and is released) right after this write: tell when that is done.
                    self._finish(outcome)
                    return
        except ProtocolError as error:
            self._finish(LookupFailed(error.message, error.sqlstate))

    def disconnect(self, reason: CloseReason, message: str | None = None, sqlstate: str = "08P01") -> None:
        """No server could be had, or it was lost."""
        self.pool.leave_queue(self)
        self._finish(LookupFailed(message or reason.text, sqlstate))

    def withdraw(self) -> bool:
        """Stop waiting; False: it has a server already, and the answer is on its way."""
        if self.state is not ClientState.WAITING:
            return False
        self.pool.forget_client(self)
        self.state = ClientState.CLOSED
        self._is_done = True
        self.wire = _NOBODY
        return True

    def _finish(self, outcome: AuthQueryOutcome) -> None:
        self.pool.clients.discard(self)
        self.wire = _NOBODY  # WHY: what holds itself waits for the collector
        if not self._is_done:
            self._is_done = True
            self._pooler.lookups.done(self._key, outcome)
