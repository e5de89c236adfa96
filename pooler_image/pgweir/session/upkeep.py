"""What a clock decides, three times a second: the rules of `pool.janitor`, acted on. `lifecycle` calls `tick`."""

from __future__ import annotations

import logging
import math
from typing import Final

from pgweir.pool import janitor
from pgweir.pool.records import ClientState, ServerState
from pgweir.protocol import messages
from pgweir.protocol.errors import CANNOT_CONNECT_NOW, CONNECTION_FAILURE, IDLE_SESSION_TIMEOUT, TOO_MANY_CONNECTIONS
from pgweir.protocol.reasons import CloseReason
from pgweir.session.client import ClientSession
from pgweir.session.holder import Holder, PoolKey, SessionPool
from pgweir.session.pooler import CLOSE_SQLSTATES, Pooler
from pgweir.session.wire import printable

log = logging.getLogger(__name__)

MAX_UNUSED_RELAYED: Final = 100  # pools of relayed startup parameters in which nobody is
STRANGERS_DATABASE_FOR: Final = 10.0  # seconds that a database of the template is kept into which nobody has come
QUEUED_NOTICE: Final = "No server connection available in postgres backend, client being queued"


def tick(pooler: Pooler) -> None:
    """Three times a second: everything that a clock decides."""
    now = pooler.clock()
    for login in [login for login in pooler.logins if login.is_overdue(now)]:
        login.time_out()
    pooler.overflow.tick(now)
    _make_pools_of_forced_users(pooler)
    if pooler.settings.max_server_connections:
        pooler.opening.keep_within(pooler.settings.max_server_connections)
    for pool in list(pooler.pools.values()):
        _tick_pool(pooler, pool, now)
    _forget_pools(pooler, now)
    _forget_relayed_pools(pooler)
    pooler.cancels.peers.tick(now)
    _forget_unused(pooler, now)


def _tick_pool(pooler: Pooler, pool: SessionPool, now: float) -> None:
    for server, reason in list(janitor.overdue_servers(pool, now)):
        pooler.drop_server(server, reason)
    for server in janitor.stale_servers(pool, now):
        pool.place(server, ServerState.USED)
    for server in janitor.stuck_servers(pool, now):
        for other in janitor.silent_servers(pool, server.query_started):
            if other.address == server.address:  # its machine may have vanished, and all the others on it with it
                pooler.drop_server(other, CloseReason.SERVER_CHECK_FAILED)
        pooler.drop_server(server, CloseReason.SERVER_CHECK_FAILED)
    for server in janitor.outdated_holders(pool):
        pooler.drop_server(server, CloseReason.CONFIGURATION_CHANGED)
    for server, reason in list(janitor.overdue_holders(pool, now)):
        pooler.end_holder(server, reason)
    for client in janitor.overdue_logins(pool, now, pooler.settings.client_login_timeout):
        _end_overdue_waiter(pooler, client, CloseReason.CLIENT_LOGIN_TIMEOUT)
    for client, reason in list(janitor.overdue_waiters(pool, now)):
        _end_overdue_waiter(pooler, client, reason)
    for client in janitor.waiters_to_notify(pool, now):
        client.notified = True
        if isinstance(client, ClientSession):
            client.wire.write(messages.notice_response("NOTICE", "00000", QUEUED_NOTICE))
    silent = [server.client for server in janitor.idle_holders(pool, now)]
    for holder in [*janitor.idle_clients(pool, now, pool.policy.client_idle_limit), *silent]:
        if isinstance(holder, ClientSession):
            _end_silent_client(holder)
    for client in janitor.idle_clients(pool, now, pool.policy.client_idle_timeout):
        if isinstance(client, ClientSession):
            client.disconnect(
                CloseReason.CLIENT_IDLE_TIMEOUT, CloseReason.CLIENT_IDLE_TIMEOUT.text, IDLE_SESSION_TIMEOUT
            )
    if pool.paused:
        pooler.close_unused(pool, CloseReason.PAUSED)
    pooler.credentials.ask_for_new(pool)
    pooler.opening.wake(pool)


def _end_silent_client(client: ClientSession) -> None:
    """The detail is pgpool's, whose users look for it."""
    limit = f"{client.pool.policy.client_idle_limit:g}"
    client.disconnect(
        CloseReason.CLIENT_IDLE_LIMIT,
        CloseReason.CLIENT_IDLE_LIMIT.text,
        IDLE_SESSION_TIMEOUT,
        detail=f"child connection forced to terminate due to client_idle_limit:{limit} is reached",
    )


def _connection_budget(pooler: Pooler, pool: SessionPool) -> str:
    """What PostgreSQL's max_connections must have room for, with the numbers of this moment."""
    policy = pool.policy
    size = f"{policy.size + policy.reserve_size}" if policy.size else "any number of"
    return (
        f"This pooler has {sum(1 for _ in pooler.servers())} server connections and may open {size} for each user of"
        f" database {pool.database}; max_connections of PostgreSQL must be larger than the sum over all users, databases"
        " and instances, plus 10 for everybody else."
    )


def _end_overdue_waiter(pooler: Pooler, client: Holder, reason: CloseReason) -> None:
    pool = client.pool
    if pool.failed_at is not None and reason is CloseReason.QUERY_WAIT_TIMEOUT:
        sqlstate = pool.failure_sqlstate or CONNECTION_FAILURE
        message = f"query_wait_timeout: {pool.failure}"
        if sqlstate == TOO_MANY_CONNECTIONS and isinstance(client, ClientSession):
            client.disconnect(reason, message, sqlstate, hint=_connection_budget(pooler, pool))
        else:
            client.disconnect(reason, message, sqlstate)
    elif client.state is ClientState.WAITING_LOGIN:
        client.disconnect(reason, "client_login_timeout (server down)", CANNOT_CONNECT_NOW)
    else:
        client.disconnect(reason, reason.text, CLOSE_SQLSTATES[reason])


def _make_pools_of_forced_users(pooler: Pooler) -> None:
    """min_pool_size is kept without clients where the user is known beforehand."""
    for name, settings in pooler.config.databases.items():
        user = settings.user
        if user is None or (name, user, ()) in pooler.pools or not pooler.config.min_pool_size(name):
            continue
        database = pooler.database(name)
        if database is not None and not database.disabled:
            pooler.pool(database, user)


def _forget_pools(pooler: Pooler, now: float) -> None:
    """pool_idle_timeout: pools without clients and servers. Those of replication have no future without their client."""
    timeout = pooler.settings.pool_idle_timeout
    for key, pool in list(pooler.pools.items()):
        if pool.clients or pool.server_count:
            pool.unused_since = 0.0
        elif not timeout and not pool.policy.single_use:
            continue
        elif not pool.unused_since:
            pool.unused_since = now
        elif pool.policy.single_use or now - pool.unused_since > timeout:
            _forget_pool(pooler, key)


def _forget_pool(pooler: Pooler, key: PoolKey) -> None:
    pool = pooler.pools[key]
    log.info("forgot unused pool: %s", printable(f"{pool.database}/{pool.user}"))
    pooler.databases[pool.database].past.add(pool.stats)
    del pooler.pools[key]


def _forget_relayed_pools(pooler: Pooler) -> None:
    """startup_parameters = relay: a client makes a pool by every new value, with a server in it, which outlive the client.
    Those that nobody is in are kept for the next client that says the same; the ones used last, and no more."""
    unused = [
        (max((server.released_at for server in (*pool.idle, *pool.used)), default=pool.emptied_at), key)
        for key, pool in pooler.pools.items()
        if pool.relayed and not pool.policy.single_use and not pool.clients and not pool.held_count
    ]
    for _, key in sorted(unused)[: max(0, len(unused) - MAX_UNUSED_RELAYED)]:
        pooler.close_unused(pooler.pools[key], CloseReason.EVICTED)
        _forget_pool(pooler, key)


def _forget_unused(pooler: Pooler, now: float) -> None:
    """Databases that the `*` template made go after autodb_idle_timeout: anybody may ask for any name. Those that nobody has
    come into (auth_query has asked there on behalf of strangers) go soon."""
    timeout = pooler.settings.autodb_idle_timeout or math.inf
    made = {name: database for name, database in pooler.databases.items() if database.is_auto}
    if not made:
        return
    busy = {login.database_name for login in pooler.logins}
    busy.update(pool.database for pool in pooler.pools.values() if pool.clients or pool.server_count)
    unused = set()
    for name, database in made.items():
        if name in busy or database.paused or database.disabled:
            database.idle_since = now
        elif now - database.idle_since > (timeout if database.was_entered else STRANGERS_DATABASE_FOR):
            log.info("forgot unused auto-database: %s", printable(name))
            unused.add(name)
    for name in unused:
        del pooler.databases[name]
        pooler.credentials.forget_database(name)
    for key in [key for key in pooler.pools if key[0] in unused]:
        del pooler.pools[key]
