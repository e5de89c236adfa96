"""SHOW WAITERS, which is ours: who waits, since when, for which limit, and who holds what they wait for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgweir.admin.tables.form import Row, Table, View, ints, seconds_and_microseconds, texts
from pgweir.pool.ledger import Limit, Open
from pgweir.pool.records import ServerRecord
from pgweir.protocol.errors import TOO_MANY_CONNECTIONS
from pgweir.session.client import ClientSession
from pgweir.session.holder import Holder, SessionPool
from pgweir.session.overflow import Candidate

WAITERS_COLUMNS: Final = (
    *texts("database user"),
    *ints("client_id"),
    *texts("addr application_name since"),
    *ints("wait wait_us"),
    *texts("limit reason holder holder_addr holder_application_name holder_state"),
    *ints("holder_client_id holder_pid holder_seconds"),
)
_NOBODY: Final[Row] = (None,) * 7


@dataclass(frozen=True, slots=True)
class Binding:
    """What a pool's clients wait for."""

    # One word: a setting's name, `paused`, `hold`, `target`, `password`, `max_connections` (PostgreSQL's), `login`, `check`.
    limit: str
    reason: str  # the same as a sentence, with the numbers
    rivals: tuple[SessionPool, ...]  # the pools whose servers stand in their way


def waiters(view: View) -> Table:
    """One row per waiting client, the longest wait first; the holder is the one who has kept a server longest."""
    rows: list[tuple[float, Row]] = []
    for pool in view.pooler.pools.values():
        queue = [*pool.waiting, *pool.waiting_login]
        if not queue:
            continue
        found = binding(view, pool)
        held = _holder(view, found.rivals)
        for waiter in queue:
            user, address, application_name = _who(waiter)
            row: Row = (
                *(pool.database, user, waiter.id, address, application_name),
                view.time(waiter.waiting_since),
                *seconds_and_microseconds(view.now - waiter.waiting_since),
                *(found.limit, found.reason),
                *held,
            )
            rows.append((waiter.waiting_since, row))
    rows += [(since, _without_place(view, login, since)) for login, since in view.pooler.overflow.waiting.items()]
    return Table(WAITERS_COLUMNS, [row for _, row in sorted(rows, key=lambda pair: pair[0])])


def _without_place(view: View, login: Candidate, since: float) -> Row:
    """A client beyond max_client_conn (client_overflow = wait): it has no number yet, and no server is held from it."""
    overflow = view.pooler.overflow
    return (
        *(login.database_name, login.user, None, str(login.origin), ""),
        view.time(since),
        *seconds_and_microseconds(view.now - since),
        *("max_client_conn", f"max_client_conn: all {overflow.limit} places are taken"),
        *_NOBODY,
    )


def binding(view: View, pool: SessionPool) -> Binding:
    """The limit that keeps this pool's waiters waiting, asked of the rules that decide about opening a server."""
    if pool.paused:  # asked first: a server that is still being reset would hide it from the ledger
        hold = view.pooler.holds.current
        if hold is None or view.pooler.paused:
            return Binding("paused", "paused", (pool,))
        so_far = f"{hold.age(view.now):.1f} of at most {hold.ceiling:g} s"
        return Binding("hold", f"held for {hold.purpose}: {so_far} (hold {hold.id})", (pool,))
    if view.pooler.credentials.lost(pool):
        return Binding("password", f"the password of {pool.user} has changed: a client must show the new one", (pool,))
    everywhere = view.pooler.pools.values()
    of_database = tuple(other for other in everywhere if other.database == pool.database)
    of_user = tuple(other for other in everywhere if other.user == pool.user)
    decision = pool.may_open(
        view.now,
        database_servers=sum(other.server_count for other in of_database),
        user_servers=sum(other.server_count for other in of_user),
        all_servers=sum(other.server_count for other in everywhere),
    )
    policy = pool.policy
    match decision:
        case Limit.POOL_SIZE:
            reserve = f" + reserve_pool_size={policy.reserve_size}" if policy.reserve_size else ""
            return Binding(
                "pool_size", f"pool_size={policy.size}{reserve}: all {pool.server_count} servers are taken", (pool,)
            )
        case Limit.MAX_DB_CONNECTIONS:
            reason = f"max_db_connections={policy.max_db_connections} of database {pool.database}"
            return Binding("max_db_connections", reason, of_database)
        case Limit.MAX_USER_CONNECTIONS:
            reason = f"max_user_connections={policy.max_user_connections} of user {pool.user}"
            return Binding("max_user_connections", reason, of_user)
        case Limit.MAX_SERVER_CONNECTIONS:
            reason = f"max_server_connections={policy.max_server_connections} of this process"
            return Binding("max_server_connections", reason, tuple(everywhere))
    if pool.failed_at is not None:
        return _target(view, pool, decision)
    if pool.tested and not pool.logging_in:
        return Binding("check", "a server is being checked or reset", (pool,))
    return Binding("login", "a server login is in progress", (pool,))


def _target(view: View, pool: SessionPool, decision: Open | Limit) -> Binding:
    """PostgreSQL is away, or lets nobody in: the last attempt's error, and when the next one is due."""
    following = "trying again now"
    if decision is Limit.LOGIN_RETRY:
        following = f"next try in {max(0.0, pool.retry_at - view.now):.1f}s"
    limit = "max_connections" if pool.failure_sqlstate == TOO_MANY_CONNECTIONS else "target"
    return Binding(limit, f"the last server login failed, {following}: {pool.failure}", (pool,))


def _holder(view: View, rivals: tuple[SessionPool, ...]) -> Row:
    servers = [server for pool in rivals for server in pool.active if server.client is not None]
    if not servers:
        return _NOBODY
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
