"""Whether PostgreSQL has restarted, seen by logging in again and again: what ends a hold that waits for that.

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
from pgweir.session.holds import Hold
from pgweir.session.server import ServerSession

if TYPE_CHECKING:
    from pgweir.session.holder import SessionPool
    from pgweir.session.pooler import Pooler

EVERY: Final = 0.2  # seconds between two looks
PATIENCE: Final = 1.0  # seconds for one of them
_AWAY: Final = ("08", "57")  # classes of what PostgreSQL says while it goes down or comes up


class Probe:
    """The looks of one hold."""

    def __init__(self, pooler: Pooler, order: Hold, restarted: Callable[[], None]) -> None:
        self.pool: SessionPool | None = None
        self._pooler = pooler
        self._order = order
        self._restarted = restarted
        self._was_away = False
        self._started: bytes | None = None  # what it said of its start, before

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
        model = max(pools, key=lambda pool: (pool.welcome is not None, len(pool.clients)))
        policy = replace(model.policy, connect_timeout=PATIENCE)
        self.pool = Pool(model.database, model.user, policy, model.relayed)
        server = ServerSession(pooler, self.pool, pooler.clock())
        self.pool.open(server, for_client=False)
        pooler.edge.connect(server)

    def logged_in(self, server: ServerSession, answer: Sequence[bytes | None]) -> None:
        """It is there: the same that was there before, or one that has started since."""
        self._close(server)
        started = answer[1] if len(answer) > 1 else None
        if server.in_hot_standby:
            self._was_away = True  # as the primary that it was
        elif self._was_away or (self._started is not None and started != self._started):
            self._end()
            return
        self._started = started
        self._look_again()

    def failed(self, server: ServerSession, sqlstate: str, *, answered: bool) -> None:
        """No login. Where PostgreSQL refuses this user, or has no room, it is there all the same."""
        self._close(server)
        if not answered or sqlstate.startswith(_AWAY):
            self._was_away = True
        elif self._was_away:
            self._end()
            return
        self._look_again()

    def _close(self, server: ServerSession) -> None:
        server.pool.place(server, ServerState.CLOSED)
        self._pooler.hang_up(server, say_goodbye=True)

    def _end(self) -> None:
        if self._pooler.holds.current is self._order:
            self._restarted()

    def _look_again(self) -> None:
        self._pooler.edge.later(EVERY, self.look)
