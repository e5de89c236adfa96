"""SHOW POOLS: one row per database and user, with clients and servers counted by state."""

from __future__ import annotations

from typing import Final

from pgweir.admin.tables.form import Row, Table, View, ints, load_balance_hosts, seconds_and_microseconds, texts
from pgweir.config import CONSOLE_DATABASE
from pgweir.pool.records import ClientState
from pgweir.session.client import ClientSession
from pgweir.session.holder import SessionPool

POOLS_COLUMNS: Final = (
    *texts("database user"),
    *ints("cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel"),
    *ints("sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us"),
    *texts("pool_mode load_balance_hosts"),
)


def pools(view: View) -> Table:
    """One row per database and user: pools that differ in relayed startup parameters alone are one to PgBouncer's readers."""
    groups: dict[tuple[str, str], list[SessionPool]] = {}
    for pool in view.pooler.pools.values():
        groups.setdefault((pool.database, pool.user), []).append(pool)
    rows = [_pool_row(view, *key, group) for key, group in sorted(groups.items())]
    rows.append((CONSOLE_DATABASE, CONSOLE_DATABASE, len(view.consoles.sessions), *(0,) * 12, "statement", None))
    return Table(POOLS_COLUMNS, rows)


def _pool_row(view: View, database: str, user: str, group: list[SessionPool]) -> Row:
    counts = [_pool_counts(pool) for pool in group]
    return (
        *(database, user),
        *(sum(column) for column in zip(*counts, strict=True)),
        *seconds_and_microseconds(max(pool.max_wait(view.now) for pool in group)),
        group[0].policy.mode,
        load_balance_hosts(view, database),
    )


def _pool_counts(pool: SessionPool) -> tuple[int, ...]:
    """The columns from cl_active to sv_login."""
    cancels = [server.cancel_waiters for server in pool.servers() if server.cancel_waiters is not None]
    waiting = (ClientState.WAITING, ClientState.WAITING_LOGIN)
    return (
        sum(isinstance(client, ClientSession) and client.state not in waiting for client in pool.clients),
        pool.waiting_count,
        sum(map(len, cancels)),
        0,  # a cancel request never waits here: it goes out at once
        len(pool.active),
        len(cancels),
        len(pool.being_canceled),
        len(pool.idle),
        len(pool.used),
        len(pool.tested),
        len(pool.logging_in),
    )
