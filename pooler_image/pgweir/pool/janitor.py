"""What is overdue in a pool: pure rules over the ledger's book, asked a few times a second with the time handed in."""

from __future__ import annotations

from collections.abc import Iterator

from pgweir.pool.ledger import Client, Pool, Server
from pgweir.pool.records import ClientState
from pgweir.protocol.reasons import CloseReason


def overdue_servers(pool: Pool[Server, Client], now: float) -> Iterator[tuple[Server, CloseReason]]:
    """Unused servers that have to go: too many, too old, idle too long."""
    policy = pool.policy
    excess = pool.server_count - (policy.size + policy.reserve_size) if policy.size else 0
    spare = pool.server_count - policy.min_size
    closed_for_age = False
    for server in [*pool.used, *pool.idle]:
        unused_for = now - server.released_at
        if server.close_needed:
            yield server, CloseReason.CLOSE_NEEDED
        elif excess > 0:
            excess -= 1
            yield server, CloseReason.POOL_TOO_BIG
        elif policy.idle_timeout and unused_for > policy.idle_timeout and spare > 0:
            spare -= 1
            yield server, CloseReason.SERVER_IDLE_TIMEOUT
        elif pool.is_outlived(server, now) and not (closed_for_age and policy.size):
            closed_for_age = True
            yield server, CloseReason.SERVER_LIFETIME


def stale_servers(pool: Pool[Server, Client], now: float) -> list[Server]:
    """Idle servers that must be checked before their next use."""
    delay = pool.policy.check_delay
    if not pool.policy.check_query:
        return []
    return [server for server in pool.idle if now - server.checked_at >= delay]


def stuck_servers(pool: Pool[Server, Client], now: float) -> list[Server]:
    """Servers that do not answer a query of our own: reset, check, or the variables of the client that is to have it."""
    limit = pool.policy.connect_timeout
    asked = [*pool.tested, *(server for server in pool.active if server.own_query)]
    return [server for server in asked if now - server.query_started > limit] if limit else []


def silent_servers(pool: Pool[Server, Client], since: float) -> list[Server]:
    """Unused servers of which nothing was heard since a moment when another one failed to answer."""
    return [server for server in (*pool.idle, *pool.used) if server.checked_at <= since]


def outdated_holders(pool: Pool[Server, Client]) -> list[Server]:
    """server_fast_close: servers that lead to where nobody wants to go any more, between two transactions of a session."""
    if not pool.policy.fast_close:
        return []
    return [
        server
        for server in pool.active
        if server.close_needed and not (server.query_open or server.in_transaction or server.own_query)
    ]


def overdue_holders(pool: Pool[Server, Client], now: float) -> Iterator[tuple[Server, CloseReason]]:
    """Servers whose client has used them for too long in one way or another."""
    policy = pool.policy
    if not (policy.query_timeout or policy.idle_transaction_timeout or policy.transaction_timeout):
        return
    for server in list(pool.active):
        if server.query_open and policy.query_timeout and now - server.query_started > policy.query_timeout:
            yield server, CloseReason.QUERY_TIMEOUT
        elif (
            policy.transaction_timeout
            and server.transaction_started
            and now - server.transaction_started > policy.transaction_timeout
        ):
            yield server, CloseReason.TRANSACTION_TIMEOUT
        elif (
            policy.idle_transaction_timeout
            and server.in_transaction
            and not server.query_open
            and now - server.settled_at > policy.idle_transaction_timeout
        ):
            yield server, CloseReason.IDLE_TRANSACTION_TIMEOUT


def overdue_logins(pool: Pool[Server, Client], now: float, limit: float) -> list[Client]:
    """Clients that have proved themselves and wait for the pool's first server beyond client_login_timeout."""
    if pool.paused or not limit:
        return []
    return [client for client in pool.waiting_login if now - client.waiting_since > limit]


def overdue_waiters(pool: Pool[Server, Client], now: float) -> Iterator[tuple[Client, CloseReason]]:
    """Clients that have waited too long for a server. Nobody is overdue while the pool is paused."""
    if pool.paused:
        return
    policy = pool.policy
    limit = policy.query_wait_timeout
    for queue in (pool.waiting, pool.waiting_login):
        for client in list(queue):
            waited = now - client.waiting_since
            if limit and waited > limit:
                yield client, CloseReason.QUERY_WAIT_TIMEOUT
            elif policy.query_timeout and client.state is ClientState.WAITING and waited > policy.query_timeout:
                yield client, CloseReason.QUERY_TIMEOUT
            else:
                break  # they stand in the order of their arrival


def waiters_to_notify(pool: Pool[Server, Client], now: float) -> Iterator[Client]:
    """Clients that shall be told, once for each wait, that they are queued (query_wait_notify)."""
    after = pool.policy.query_wait_notify
    if after:
        for client in pool.waiting:
            if now - client.waiting_since < after:
                break
            if not client.notified:
                yield client


def idle_clients(pool: Pool[Server, Client], now: float, limit: float) -> list[Client]:
    """Clients that hold no server and have asked for none for this time (client_idle_timeout, client_idle_limit)."""
    if not limit or now < pool.idle_due.get(limit, 0.0):
        return []
    idle = [client for client in pool.clients if client.state is ClientState.IDLE]
    # PERF: nobody is due before the one that has been idle for longest; 5,000 clients cost 1 ms to look at, three times a second.
    oldest = min((client.requested_at for client in idle), default=now)
    pool.idle_due[limit] = max(oldest + limit, now + min(limit / 100, 1.0))
    return [client for client in idle if now - client.requested_at > limit]


def idle_holders(pool: Pool[Server, Client], now: float) -> list[Server]:
    """Servers whose client has asked nothing for client_idle_limit."""
    limit = pool.policy.client_idle_limit
    if not limit:
        return []
    return [server for server in pool.active if not server.query_open and now - server.settled_at > limit]
