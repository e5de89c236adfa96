"""Whoever can hold a server: a client (`client`), or a look-up of our own (`lookup`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pgweir.pool.ledger import Pool
from pgweir.pool.records import ClientRecord
from pgweir.protocol.prepared import Statement
from pgweir.protocol.reasons import CloseReason
from pgweir.protocol.variables import Values

if TYPE_CHECKING:
    from pgweir.session.server import ServerSession


SessionPool: TypeAlias = "Pool[ServerSession, Holder]"
# Database, user, and the startup parameters that are relayed: servers that differ in one of these cannot be exchanged.
PoolKey: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]


def pool_key(database: str, user: str, relayed: Mapping[str, str]) -> PoolKey:
    return database, user, tuple(sorted(relayed.items()))


class Writer(Protocol):
    """Where a holder's replies go."""

    def write(self, data: bytes, /) -> None: ...


class Holder(ClientRecord):
    """What `server` and `pooler` know of whoever holds a server."""

    __slots__ = ("keeps_server", "linking", "need", "pool", "server", "stalled", "values", "wire", "write_paused")

    pool: SessionPool
    wire: Writer

    def __init__(self, pool: SessionPool, now: float) -> None:
        self._begin_holder(pool, now)

    def _begin_holder(self, pool: SessionPool, now: float) -> None:
        self._begin_record(now)
        self.pool = pool
        self.server: ServerSession | None = None
        self.linking: ServerSession | None = None  # ours already, but its variables are still being set
        self.values: Values | None = None  # None: any server will do as it is
        self.keeps_server = False  # beyond the transaction (session mode)
        self.need = 0  # bytes to come of a message that is being passed on
        self.stalled = False  # its next message waits until the server's prepared statements are certain
        self.write_paused = False  # its replies are not taken; a server it holds must not be read

    def granted(self, server: ServerSession) -> None:
        """The server is linked and ready for use."""
        raise NotImplementedError

    def go_on(self, server: ServerSession) -> None:
        """What stalled it is over."""

    def disconnect(self, reason: CloseReason, message: str | None = None, sqlstate: str = "08P01") -> None:
        """Say goodbye (with an error, when there is something to say) and go."""
        raise NotImplementedError

    def leave(self) -> None:
        """The process drains, and the transaction is over."""

    def forget_statements(self, kept: Mapping[bytes, Statement]) -> None:
        """DEALLOCATE ALL or DISCARD ALL went through; `kept` are the names that were prepared behind it already."""

    def with_own_names(self, data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
        """The same replies; the errors at `spans` name statements that PostgreSQL knows by other names."""
        return data

    def say_again(self, spoken: bytes, server: ServerSession) -> None:
        """These bytes, which the server has refused as a whole, go to it once more, and then whatever has come since."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...
