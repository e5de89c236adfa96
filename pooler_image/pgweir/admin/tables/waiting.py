"""SHOW WAITERS, which is ours: who waits, since when, for which limit, and who holds what they wait for."""

from __future__ import annotations

from typing import Final

from pgweir.admin.tables.form import Row, Table, View, ints, seconds_and_microseconds, texts
from pgweir.pool.ledger import Limit
from pgweir.pool.records import ServerRecord
from pgweir.session.client import ClientSession
from pgweir.session.holder import Holder, SessionPool

WAITERS_COLUMNS: Final = (
    *texts("database user"),
    *ints("client_id"),
    *texts("addr application_name since"),
    *ints("wait wait_us"),
    *texts("reason holder holder_addr holder_application_name holder_state"),
    *ints("holder_client_id holder_pid holder_seconds"),
)


def waiters(view: View) -> Table:
    """One row per waiting client, the longest wait first; the holder is the one who has kept a server longest."""
    rows: list[tuple[float, Row]] = []
    for pool in view.pooler.pools.values():
        queue = [*pool.waiting, *pool.waiting_login]
        if not queue:
            continue
        reason, rivals = _reason(view, pool)
        held = _holder(view, rivals)
        for waiter in queue:
            user, address, application_name = _who(waiter)
            row: Row = (
                *(pool.database, user, waiter.id, address, application_name),
                view.time(waiter.waiting_since),
                *seconds_and_microseconds(view.now - waiter.waiting_since),
                reason,
                *held,
            )
            rows.append((waiter.waiting_since, row))
    return Table(WAITERS_COLUMNS, [row for _, row in sorted(rows, key=lambda pair: pair[0])])


def _reason(view: View, pool: SessionPool) -> tuple[str, list[SessionPool]]:
    """What the pool's clients wait for, in words, and the pools whose servers stand in their way."""
    everywhere = list(view.pooler.pools.values())
    of_database = [other for other in everywhere if other.database == pool.database]
    of_user = [other for other in everywhere if other.user == pool.user]
    in_database = sum(other.server_count for other in of_database)
    in_user = sum(other.server_count for other in of_user)
    policy = pool.policy
    match pool.may_open(view.now, database_servers=in_database, user_servers=in_user):
        case Limit.PAUSED:
            return "paused", [pool]
        case Limit.LOGIN_RETRY:
            retry = max(0.0, policy.login_retry - (view.now - (pool.failed_at or 0.0)))
            return f"the last server login failed, next try in {retry:.1f}s: {pool.failure}", [pool]
        case Limit.POOL_SIZE:
            reserve = f" + reserve_pool_size={policy.reserve_size}" if policy.reserve_size else ""
            return f"pool_size={policy.size}{reserve}: all {pool.server_count} servers are taken", [pool]
        case Limit.MAX_DB_CONNECTIONS:
            return f"max_db_connections={policy.max_db_connections} of database {pool.database}", of_database
        case Limit.MAX_USER_CONNECTIONS:
            return f"max_user_connections={policy.max_user_connections} of user {pool.user}", of_user
        case _:  # something is on its way: a login, a check, or one that is opened within a third of a second
            return ("a server is being checked" if pool.tested else "a server login is in progress"), [pool]


def _holder(view: View, rivals: list[SessionPool]) -> Row:
    servers = [server for pool in rivals for server in pool.active if server.client is not None]
    if not servers:
        return None, None, None, None, None, None, None
    server = min(servers, key=_held_since)
    assert server.client is not None
    return (
        *_who(server.client),
        "active" if server.query_open else "idle in transaction" if server.in_transaction else "idle",
        server.client.id,
        server.pid,
        int(view.now - _held_since(server)),
    )


def _who(holder: Holder) -> tuple[str, str, str]:
    """User, address and application_name; a look-up of our own has only the first."""
    if isinstance(holder, ClientSession):
        return holder.user, str(holder.origin), holder.application_name
    return holder.pool.user, "", "auth_query"


def _held_since(server: ServerRecord) -> float:
    return server.transaction_started or server.requested_at
