"""When servers are somewhere else than they were: by a new configuration, another answer of the resolver, the operator's word.

Connections to where they were are closed as soon as they are free, logins under way are given up, and those who wait are
served by the new place at once. `operations` (RELOAD), the edge (names) and `switchover` call it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pgweir.pool.records import ServerState
from pgweir.protocol.reasons import CloseReason

if TYPE_CHECKING:
    from pgweir.session.holder import SessionPool
    from pgweir.session.pooler import Pooler
    from pgweir.session.server import ServerSession

_UNUSED = (ServerState.LOGIN, ServerState.IDLE, ServerState.USED)


def database_moved(pooler: Pooler, name: str) -> None:
    """Every server of this database leads elsewhere than the next one will."""
    pooler.databases[name].forget_hosts()
    for pool in [pool for pool in pooler.pools.values() if pool.database == name]:
        pool.proven = False  # whoever logs in now is greeted by the new place
        leave(pooler, pool, list(pool.servers()))


def addresses_changed(pooler: Pooler, host: str, addresses: Collection[str]) -> None:
    """The resolver gives other addresses for this name than before. The one that the operator has named stays good."""
    pinned = pooler.names.pinned(host, pooler.clock())
    addresses = [*addresses, pinned] if pinned else addresses
    for pool in list(pooler.pools.values()):
        database = pooler.databases.get(pool.database)
        if database is None or host not in database.settings.hosts:
            continue
        leave(pooler, pool, [s for s in pool.servers() if s.host == host and s.address and s.address not in addresses])


def routed(pooler: Pooler, host: str, address: str) -> None:
    """The operator says where this name leads: logins that are still on their way somewhere else are given up, too."""
    for pool in list(pooler.pools.values()):
        database = pooler.databases.get(pool.database)
        if database is not None and host in database.settings.hosts:
            leave(pooler, pool, [s for s in pool.servers() if s.host == host and s.address != address])


def leave(pooler: Pooler, pool: SessionPool, servers: list[ServerSession]) -> None:
    """Close these as soon as nobody uses them, and open others for those who wait."""
    for server in servers:
        server.close_needed = True
    pool.forgive()  # what failed there says nothing of the new place
    for server in servers:
        if server.state in _UNUSED:
            pooler.drop_server(server, CloseReason.CLOSE_NEEDED)
    pooler.opening.wake(pool)
