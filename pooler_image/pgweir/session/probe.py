"""What PostgreSQL is up to while clients are held, seen by logging in again and again.

It ends a hold that waits for a restart when PostgreSQL has gone and come back. It ends one for a switchover when another
primary stands in the place of the one that was to leave: whoever ordered it may be gone before the word that ends it.

The connections stand in a pool of their own that is in no book: nobody is given one, no limit counts them, and no PAUSE waits for
them. They use the credentials of the pool that has the most clients, and are closed as soon as they have answered, so that they
hold up no shutdown. `switchover` starts it, `opening` says how each login went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pgweir.pool.ledger import Pool
from pgweir.pool.records import ServerState
from pgweir.session.holds import EndedBy, Hold, ReleaseWhen
from pgweir.session.server import ServerSession

if TYPE_CHECKING:
    from pgweir.session.holder import SessionPool
    from pgweir.session.pooler import Pooler

EVERY: Final = 0.2  # seconds between two looks
PATIENCE: Final = 1.0  # seconds for one of them, and more for the next where that was too little (a starved node)
MOST_PATIENCE: Final = 4.0
_AWAY: Final = ("08", "57")  # classes of what PostgreSQL says while it goes down or comes up


class Probe:
    """The looks of one hold."""

    def __init__(self, pooler: Pooler, order: Hold, end: Callable[[EndedBy], None]) -> None:
        self.pool: SessionPool | None = None
        self._pooler = pooler
        self._order = order
        self._end_it = end
        self._was_away = False
        self._started: bytes | None = None  # what it said of its start, before
        # Where the primary is that has still to go down. WHY more than one: nobody may be let onto it, and the operator may
        # have been told of an address that it no longer has.
        self._old = {order.leaving.encode()}
        self._refused: set[SessionPool] = set()  # whose credentials PostgreSQL does not take any more
        self._model: SessionPool | None = None
        self._patience = PATIENCE

    def look(self) -> None:
        """Log in once. Ends with the hold."""
        pooler = self._pooler
        if pooler.holds.current is not self._order:
            pooler.probe = None if pooler.probe is self else pooler.probe
            return
        pools = [pool for pool in pooler.pools.values() if not pool.policy.single_use]
        if not pools:
            self._look_again()  # nobody has asked for anything yet
            return
        self._model = model = max(pools, key=self._preference)
        policy = replace(model.policy, connect_timeout=self._patience)
        self.pool = Pool(model.database, model.user, policy, model.relayed)
        server = ServerSession(pooler, self.pool, pooler.clock())
        self.pool.open(server, for_client=False)
        pooler.edge.connect(server)

    def _preference(self, pool: SessionPool) -> tuple[bool, bool, int]:
        return pool not in self._refused, pool.welcome is not None, len(pool.clients)

    def logged_in(self, server: ServerSession, answer: Sequence[bytes | None]) -> None:
        """It is there: the same that was there before, or another."""
        self._close(server)
        _, started, address = answer if len(answer) == 3 else (None, None, None)
        if server.in_hot_standby:
            self._was_away = True  # as the primary that it was
        elif self._order.release_when is ReleaseWhen.RESTARTED:
            if self._was_away or (self._started is not None and started != self._started):
                self._end(EndedBy.RESTARTED)
                return
        elif address is not None and address not in self._old:
            if self._was_away:
                self._end(EndedBy.MOVED)
                return
            self._old.add(address)  # it was to be elsewhere: the operator's word was out of date
        self._was_away = self._was_away or address in self._old  # whoever is seen elsewhere from now on is another
        self._started = started
        self._look_again()

    def failed(self, server: ServerSession, sqlstate: str, *, answered: bool) -> None:
        """No login. Where PostgreSQL refuses this user, or has no room, it is there all the same."""
        if not answered and self._pooler.clock() - server.connected_at >= self._patience:
            self._patience = min(MOST_PATIENCE, 2 * self._patience)
        self._close(server)
        if not answered or sqlstate.startswith(_AWAY):
            self._was_away = True
        elif self._was_away and self._order.release_when is ReleaseWhen.RESTARTED:
            self._end(EndedBy.RESTARTED)
            return
        elif self._model is not None:
            self._refused.add(self._model)  # a promotion gives passwords a new salt: another user may know more
            if len(self._refused) == len(self._pooler.pools):
                self._refused.clear()
        self._look_again()

    def _close(self, server: ServerSession) -> None:
        server.pool.place(server, ServerState.CLOSED)
        self._pooler.hang_up(server, say_goodbye=True)

    def _end(self, ended_by: EndedBy) -> None:
        if self._pooler.holds.current is self._order:
            self._end_it(ended_by)

    def _look_again(self) -> None:
        self._pooler.edge.later(EVERY, self.look)
