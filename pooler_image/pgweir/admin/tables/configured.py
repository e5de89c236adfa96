"""What is configured, and how much of it there is: databases, users, peers, settings, and the process itself."""

from __future__ import annotations

from typing import Final

from pgweir import VERSION_LINE
from pgweir.admin.tables.form import Row, Table, View, ints, load_balance_hosts, texts
from pgweir.config import CONSOLE_DATABASE
from pgweir.protocol.messages import INT8_OID
from pgweir.settings import DatabaseSettings, ReloadClass, format_value, show_order

CONSOLE_POOL_SIZE: Final = 2  # what PgBouncer prints for its console

DATABASES_COLUMNS: Final = (
    *texts("name host"),
    *ints("port"),
    *texts("database force_user"),
    *ints("pool_size min_pool_size reserve_pool_size server_lifetime"),
    *texts("pool_mode load_balance_hosts"),
    *ints("max_connections current_connections max_client_connections current_client_connections paused disabled"),
)
CONFIG_COLUMNS: Final = texts("key value default changeable")


def databases(view: View) -> Table:
    rows = [row for name in view.database_names() if (row := _database_row(view, name)) is not None]
    console: Row = (
        *(CONSOLE_DATABASE, None, view.config.settings.listen_port, CONSOLE_DATABASE, CONSOLE_DATABASE),
        *(CONSOLE_POOL_SIZE, 0, 0, int(view.config.settings.server_lifetime), "statement", None),
        *(0, 0, 0, len(view.consoles.sessions), 0, 0),
    )
    return Table(DATABASES_COLUMNS, [*rows, console])


def _database_row(view: View, name: str) -> Row | None:
    config, pooler = view.config, view.pooler
    entry: DatabaseSettings | None = config.database(name)
    if entry is None:
        return None
    running = pooler.databases.get(name)
    settings = config.settings
    pool_size = settings.default_pool_size if entry.pool_size is None else entry.pool_size
    reserve = settings.reserve_pool_size if entry.reserve_pool_size is None else entry.reserve_pool_size
    return (
        *(name, entry.host, entry.port, entry.dbname or name, entry.user),
        *(pool_size, config.min_pool_size(name), reserve, int(config.server_lifetime(name))),
        *(entry.pool_mode, load_balance_hosts(view, name)),
        config.max_db_connections(name),
        sum(pool.server_count for pool in pooler.pools.values() if pool.database == name),
        config.max_db_client_connections(name),
        pooler.roster.of_database.get(name, 0),
        int(pooler.paused or (running is not None and running.paused)),
        int(running is not None and running.disabled),
    )


def user_names(view: View) -> list[str]:
    config = view.config
    known = {
        CONSOLE_DATABASE,
        *config.userlist,
        *config.users,
        *config.settings.admin_users,
        *config.settings.stats_users,
    }
    known |= {pool.user for pool in view.pooler.pools.values()} | set(view.pooler.roster.of_user)
    known |= {entry.user for entry in config.databases.values() if entry.user is not None}
    return sorted(known)


def users(view: View) -> Table:
    columns = (
        *texts("name pool_size reserve_pool_size pool_mode"),
        *ints("max_user_connections current_connections max_user_client_connections current_client_connections"),
    )
    rows: list[Row] = []
    for name in user_names(view):
        own = view.config.users.get(name)
        rows.append(
            (
                name,
                f"{own.pool_size:9d}" if own is not None and own.pool_size is not None else "",
                f"{own.reserve_pool_size:9d}" if own is not None and own.reserve_pool_size is not None else "",
                own.pool_mode if own is not None else None,
                view.config.max_user_connections(name),
                sum(pool.server_count for pool in view.pooler.pools.values() if pool.user == name),
                view.config.max_user_client_connections(name),
                view.pooler.roster.of_user.get(name, 0),
            )
        )
    return Table(columns, rows)


def peers(view: View) -> Table:
    """Those of the configuration, and the pods that were found when they were last needed."""
    settings = view.config.settings
    default = settings.default_pool_size
    rows: list[Row] = [
        (peer.peer_id, peer.host, peer.port, default if peer.pool_size is None else peer.pool_size)
        for _, peer in sorted(view.config.peers.items())
    ]
    found = view.pooler.cancels.peers.pods()
    rows.extend((peer_id, address, settings.listen_port, default) for peer_id, address in found)
    return Table((*ints("peer_id"), *texts("host"), *ints("port pool_size")), rows)


def peer_pools(view: View) -> Table:
    rows: list[Row] = [
        (pool.peer_id, pool.active, len(pool.waiting) + pool.connecting, pool.active, pool.connecting)
        for pool in view.pooler.cancels.peers.pools()
    ]
    return Table(ints("peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"), rows)


def lists(view: View) -> Table:
    pooler = view.pooler
    used = len(pooler.clients) + len(view.consoles.sessions)
    rows: list[Row] = [
        ("databases", len(view.database_names()) + 1),
        ("users", len(user_names(view))),
        ("peers", len(view.config.peers)),
        ("pools", len(pooler.pools) + 1),
        ("peer_pools", sum(1 for _ in pooler.cancels.peers.pools())),
        # PgBouncer counts unused memory slots here; nobody can use that number. How many more clients may come:
        ("free_clients", max(0, pooler.settings.max_client_conn - pooler.roster.count())),
        ("used_clients", used),
        ("login_clients", len(pooler.logins)),
        ("free_servers", 0),
        ("used_servers", sum(pool.server_count for pool in pooler.pools.values())),
        ("dns_names", len(pooler.names)),
        ("dns_zones", 0),  # the system's resolver knows no zones
        ("dns_queries", len(pooler.names.pending)),
        ("dns_pending", len(pooler.names.pending)),
    ]
    return Table((*texts("list"), *ints("items")), rows)


def config(view: View) -> Table:
    rows: list[Row] = []
    for info in show_order():
        value = format_value(info, getattr(view.config.settings, info.name))
        if info.name == "conffile":
            value = view.config_path
        if info.secret and value:
            value = "****"
        rows.append((info.name, value, info.default_text, "yes" if info.reload is ReloadClass.RELOAD else "no"))
    return Table(CONFIG_COLUMNS, rows)


def state(view: View) -> Table:
    paused = view.pooler.paused
    words = {True: "yes", False: "no"}
    return Table(texts("key value"), [("active", words[not paused]), ("paused", words[paused]), ("suspended", "no")])


def version(view: View) -> Table:
    return Table(texts("version"), [(VERSION_LINE,)])


def mem(view: View) -> Table:
    """Python has no slabs: what there is of each kind is counted, its size is not known."""
    pooler = view.pooler
    counts = {
        "client_cache": len(pooler.clients) + len(pooler.logins),
        "server_cache": sum(pool.server_count for pool in pooler.pools.values()),
        "db_cache": len(pooler.databases),
        "pool_cache": len(pooler.pools),
        "peer_cache": len(view.config.peers),
        "prepared_statement_cache": len(pooler.statements),
    }
    rows: list[Row] = [(name, 0, count, 0, 0) for name, count in counts.items()]
    return Table((*texts("name"), *ints("size used free memtotal")), rows)


def dns_hosts(view: View) -> Table:
    rows: list[Row] = [
        (name.host, max(0, int(name.expires_at - view.now)), ",".join(name.addresses) or None)
        for name in sorted(view.pooler.names, key=lambda name: name.host)
    ]
    return Table((*texts("hostname"), ("ttl", INT8_OID), *texts("addrs")), rows)


def dns_zones(view: View) -> Table:
    return Table((*texts("zonename"), ("serial", INT8_OID), *ints("count")), [])
