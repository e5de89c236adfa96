"""SHOW REUSE, which is ours: the key of each client's pool, and in which field it differs from the nearest other pool.

"My pool is not being reused" has one answer: two clients share servers when the whole key is the same.
"""

from __future__ import annotations

from typing import Final

from pgweir.admin.tables.form import Row, Table, View, ints, texts
from pgweir.session.client import ClientSession
from pgweir.session.holder import SessionPool

REUSE_COLUMNS: Final = (
    *ints("client_id"),
    *texts("addr application_name database user startup_parameters"),
    *ints("pool_clients pool_servers"),
    *texts("differs_in client_value other_value other_pool"),
)


def reuse(view: View, client_id: int | None = None) -> Table:
    """One row per client and field that differs; one with nulls for a client whose pool is the only one."""
    clients = sorted(view.pooler.clients, key=lambda client: client.id)
    wanted = [client for client in clients if client_id is None or client.id == client_id]
    return Table(REUSE_COLUMNS, [row for client in wanted for row in _rows(view, client)])


def _rows(view: View, client: ClientSession) -> list[Row]:
    pool = client.pool
    key = pool_key(pool)
    start: Row = (
        *(client.id, str(client.origin), client.application_name, pool.database, pool.user, _words(pool)),
        *(len(pool.clients), pool.server_count),
    )
    others = [other for other in view.pooler.pools.values() if other is not pool]
    if not others:
        return [(*start, None, None, None, None)]
    nearest = min(others, key=lambda other: len(differences(key, pool_key(other))))
    there = pool_key(nearest)
    name = f"{nearest.database}/{nearest.user} {_words(nearest)}".rstrip()
    return [(*start, field, key.get(field), there.get(field), name) for field in differences(key, there)]


def pool_key(pool: SessionPool) -> dict[str, str]:
    """What must be equal for a server to be used again, by the name of the field."""
    return {"database": pool.database, "user": pool.user, **dict(pool.relayed)}


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]


def _words(pool: SessionPool) -> str:
    return " ".join(f"{name}={value}" for name, value in pool.relayed)
