"""Cancel requests for other processes of the same group: to which of them, how many at a time, and when no more.

There are two ways to have peers. PgBouncer's: `peer_id`, and an entry in [peers] for each of the others. And that of the
pods of one Deployment, which nobody can list beforehand: a name that leads to all of them, and peer ids that follow from
their addresses. Several addresses may make the same id; then all of those are asked.

Whoever can connect can send keys, and each may name another process: what strangers can cause here is bounded in number
and in time, and nothing is handed on for ever. Never looks at clients; called by session/cancels with keys that are not
its own, and by session/upkeep.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from pgweir.pool.rate import RateLimit
from pgweir.protocol import cancel_keys

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1000  # cancel requests that wait for a connection to one peer; more are dropped
RESOLVED_FOR: Final = 1.0  # seconds that the addresses of the pods are used before they are asked for again
# Of keys that other pods may have given out. All clients of a pod may cancel at the same moment; no one goes on like that.
FOREIGN_BURST: Final = 500
FOREIGN_PER_SECOND: Final = 100.0
COMPLAINT_EVERY: Final = 10.0

Done = Callable[[], None]


class PeerPool:
    """The connections to one peer, each for one cancel request, and those who wait for one."""

    __slots__ = ("_pooler", "active", "connecting", "host", "peer_id", "port", "size", "waiting")

    def __init__(self, pooler: Pooler, peer_id: int, host: str) -> None:
        self._pooler = pooler
        self.peer_id = peer_id
        self.host = host
        self.port = 0
        self.size = 0  # 0: no limit
        self.connecting = 0
        self.active = 0  # connected: the peer has been told, and is at work
        self.waiting: deque[tuple[float, bytes, Done]] = deque()

    @property
    def idle(self) -> bool:
        return not (self.connecting or self.active or self.waiting)

    def carry(self, key: bytes, done: Done) -> None:
        """Tell the peer; `done` when it has finished, or when that came to nothing."""
        if not self.size or self.connecting + self.active < self.size:
            self._send(key, done)
        elif len(self.waiting) < MAX_WAITING:
            self.waiting.append((self._pooler.clock(), key, done))
        else:
            done()

    def _send(self, key: bytes, done: Done) -> None:
        connected = False
        self.connecting += 1

        def sent() -> None:
            nonlocal connected
            connected = True
            self.connecting -= 1
            self.active += 1

        def finished() -> None:
            if connected:
                self.active -= 1
            else:
                self.connecting -= 1
            done()
            if self.waiting:
                _, next_key, next_done = self.waiting.popleft()
                self._send(next_key, next_done)

        self._pooler.edge.send_cancel_to_peer(self.host, self.port, key, sent, finished)

    def drop_waiting(self, since: float) -> None:
        """Those who have waited since then get no connection any more."""
        while self.waiting and self.waiting[0][0] <= since:
            self.waiting.popleft()[2]()


class Peers:
    """The other processes of the group."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._listed: dict[int, PeerPool] = {}
        self._pods: dict[str, PeerPool] = {}
        self._name = ""  # of all pods; empty: there is none, and peers are listed
        self._address = ""  # our own
        self._derived_id = 0
        self._addresses: tuple[str, ...] = ()
        self._resolved_at = float("-inf")
        self._unresolved: list[tuple[int, bytes, Done]] | None = None  # what waits for the addresses to come
        self._limit = RateLimit(per_second=FOREIGN_PER_SECOND, burst=FOREIGN_BURST)
        self._complained_at = float("-inf")

    def discover(self, name: str, address: str) -> None:
        """The peers are whoever this name leads to; `address` is the one by which it leads here."""
        self._derived_id = cancel_keys.derived_peer_id(address)
        self._name, self._address = name, address

    @property
    def discovered(self) -> bool:
        """Peers are found by name."""
        return bool(self._name)

    @property
    def own_id(self) -> int:
        """What keys that we give out say; 0: we have no peers."""
        return self._derived_id or self._pooler.settings.peer_id

    def forward(self, key: bytes, done: Done) -> None:
        """Hand a key that is none of ours on to the process that gave it out; `done` in any case."""
        peer_id = cancel_keys.peer_of(key)
        onward = cancel_keys.next_hop(key)
        if not self.own_id or onward is None:
            done()
        elif peer_id in self._pooler.config.peers:
            if peer_id == self.own_id:  # our own entry: we know best that nobody has this key
                done()
            else:
                self._listed_pool(peer_id).carry(onward, done)
        elif self._name and not cancel_keys.comes_from_a_peer(key):  # a pod that hands it on has asked all the others
            self._ask_pods(peer_id, onward, done)
        else:
            done()

    def pools(self) -> Iterator[PeerPool]:
        """For SHOW PEER_POOLS: those of [peers], and those of pods that are in use."""
        for peer_id in sorted(self._pooler.config.peers):
            if peer_id != self.own_id:
                yield self._listed_pool(peer_id)
        for address in self._addresses:
            if address in self._pods:
                yield self._pods[address]

    def pods(self) -> list[tuple[int, str]]:
        """For SHOW PEERS: peer id and address of each pod that was found when they were last asked for."""
        return [(cancel_keys.derived_peer_id(address), address) for address in self._addresses]

    def tick(self, now: float) -> None:
        timeout = self._pooler.settings.cancel_wait_timeout
        for pools in (self._listed, self._pods):
            for name, pool in list(pools.items()):
                if timeout:
                    pool.drop_waiting(now - timeout)
                if pool.idle:
                    del pools[name]  # type: ignore[arg-type]  # a key of the very dict it came from

    # --- [peers] ----------------------------------------------------------------------------------------------------

    def _listed_pool(self, peer_id: int) -> PeerPool:
        settings = self._pooler.config.peers[peer_id]
        pool = self._listed.get(peer_id)
        if pool is None:
            pool = self._listed[peer_id] = PeerPool(self._pooler, peer_id, settings.host or "")
        pool.host, pool.port = settings.host or "", settings.port
        default = self._pooler.settings.default_pool_size
        pool.size = default if settings.pool_size is None else settings.pool_size
        return pool

    # --- pods -------------------------------------------------------------------------------------------------------

    def _ask_pods(self, peer_id: int, key: bytes, done: Done) -> None:
        now = self._pooler.clock()
        if not self._limit.allows(now):
            if now - self._complained_at >= COMPLAINT_EVERY:
                self._complained_at = now
                log.warning("more cancel requests for other pods than any client can mean: some are dropped")
            done()
        elif self._unresolved is not None:
            self._unresolved.append((peer_id, key, done))
        elif now - self._resolved_at < RESOLVED_FOR:
            self._carry(peer_id, key, done)
        else:
            self._unresolved = [(peer_id, key, done)]
            self._pooler.edge.resolve(self._name, self._found)

    def _found(self, addresses: tuple[str, ...]) -> None:
        """The name led there (nowhere: it could not be resolved, and the addresses known are as good as any)."""
        if addresses:
            self._addresses = tuple(sorted(address for address in addresses if address != self._address))
        self._resolved_at = self._pooler.clock()
        waiting, self._unresolved = self._unresolved or [], None
        for peer_id, key, done in waiting:
            self._carry(peer_id, key, done)

    def _carry(self, peer_id: int, key: bytes, done: Done) -> None:
        """To every pod whose address makes this id; `done` after the last of them."""
        matches = [address for id_, address in self.pods() if id_ == peer_id]
        left = len(matches)

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        if not matches:
            done()
        for address in matches:
            pool = self._pods.get(address)
            if pool is None:
                pool = self._pods[address] = PeerPool(self._pooler, peer_id, address)
            pool.port = self._pooler.settings.listen_port
            pool.size = self._pooler.settings.default_pool_size
            pool.carry(key, one_done)
