"""What SHOW shows: one pure builder per table, named for it. Columns, types and words are PgBouncer 1.25's.

A builder reads the running pooler through `View` and changes nothing. `waiters` is ours: who waits, since when, for which
limit, and who holds what they wait for. Called by `commands` (console), `metrics` and `rest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pgweir import VERSION_LINE
from pgweir.admin.service import Consoles, Service
from pgweir.config import CONSOLE_DATABASE, Config
from pgweir.pool.ledger import Limit
from pgweir.pool.records import ClientState, ServerRecord
from pgweir.pool.stats import COUNTERS, Stats
from pgweir.protocol.messages import INT4_OID, INT8_OID, TEXT_OID
from pgweir.session.client import ClientSession
from pgweir.session.holder import Holder, SessionPool
from pgweir.session.pooler import Pooler
from pgweir.session.server import ServerSession
from pgweir.session.wire import Origin
from pgweir.settings import DatabaseSettings, ReloadClass, format_value, show_order

NUMERIC_OID: Final = 1700
CONSOLE_POOL_SIZE: Final = 2  # what PgBouncer prints for its console

Value = str | int | None
Row = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[tuple[str, int], ...]  # name, type
    rows: list[Row]

    def dictionaries(self) -> list[dict[str, Value]]:
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class View:
    """A running pooler at one moment."""

    pooler: Pooler
    consoles: Consoles
    now: float  # of the pooler's clock
    wall: float  # the same moment by the calendar
    config_path: str = ""

    @classmethod
    def of(cls, service: Service, wall: float) -> View:
        return cls(service.pooler, service.consoles, service.pooler.clock(), wall, str(service.config_path))

    @property
    def config(self) -> Config:
        return self.pooler.config

    def time(self, moment: float) -> str:
        """A moment of the pooler's clock, as the calendar has it."""
        local = datetime.fromtimestamp(self.wall - (self.now - moment)).astimezone()
        return f"{local:%Y-%m-%d %H:%M:%S %Z}"

    def database_names(self) -> list[str]:
        """Configured ones, and those that `*` made."""
        return sorted({*self.config.databases, *self.pooler.databases})


def _texts(names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, TEXT_OID) for name in names.split())


def _ints(names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, INT4_OID) for name in names.split())


def _numerics(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple((name, NUMERIC_OID) for name in names)


def _split(seconds: float) -> tuple[int, int]:
    """Seconds, and the microseconds beyond them."""
    whole = max(0, int(seconds * 1_000_000))
    return whole // 1_000_000, whole % 1_000_000


# --- pools ---------------------------------------------------------------------------------------------------------------

POOLS_COLUMNS: Final = (
    *_texts("database user"),
    *_ints("cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel"),
    *_ints("sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us"),
    *_texts("pool_mode load_balance_hosts"),
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
        *_split(max(pool.max_wait(view.now) for pool in group)),
        group[0].policy.mode,
        _load_balance_hosts(view, database),
    )


def _pool_counts(pool: SessionPool) -> tuple[int, ...]:
    """The columns from cl_active to sv_login."""
    cancels = [server.cancel_waiters for server in pool.servers() if server.cancel_waiters is not None]
    waiting = (ClientState.WAITING, ClientState.WAITING_LOGIN)
    return (
        sum(isinstance(client, ClientSession) and client.state not in waiting for client in pool.clients),
        len(pool.waiting) + len(pool.waiting_login),
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


def _load_balance_hosts(view: View, name: str) -> str | None:
    entry = view.config.database(name)
    return view.config.load_balance_hosts(name) if entry is not None and len(entry.hosts) > 1 else None


# --- clients and servers ---------------------------------------------------------------------------------------------------

SOCKET_COLUMNS: Final = (
    *_texts("type user database replication state addr"),
    *_ints("port"),
    *_texts("local_addr"),
    *_ints("local_port"),
    *_texts("connect_time request_time"),
    *_ints("wait wait_us close_needed"),
    *_texts("ptr link"),
    *_ints("remote_pid"),
    *_texts("tls application_name"),
    *_ints("prepared_statements id"),
)
_BUFFER_COLUMNS: Final = _ints("recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail")


def pointer(record_id: int) -> str:
    """What PgBouncer prints for an object's address: something to join `ptr` and `link` by."""
    return f"0x{record_id:x}"


def clients(view: View) -> Table:
    rows = [_client_row(view, client) for client in sorted(view.pooler.clients, key=lambda client: client.id)]
    return Table(SOCKET_COLUMNS, rows + _console_rows(view))


def _client_row(view: View, client: ClientSession, *, socket_words: bool = False) -> Row:
    server = client.server or client.linking
    waiting = client.state in (ClientState.WAITING, ClientState.WAITING_LOGIN)
    state = "waiting" if waiting else "active" if server is not None else "idle"
    if socket_words:
        state = "cl_waiting" if waiting else "cl_active"
    if waiting:
        wait = view.now - client.waiting_since
    else:
        wait = view.now - server.query_started if server is not None and server.query_open else 0.0
    return (
        *("C", client.user, client.database, "none", state),
        *_client_address(client.origin),
        *(view.time(client.connected_at), view.time(client.requested_at)),
        *_split(wait),
        *(0, pointer(client.id), pointer(server.id) if server is not None else ""),
        *(client.origin.peer_pid or 0, str(client.tls or ""), client.application_name),
        *(len(client.statements), client.id),
    )


def _client_address(origin: Origin) -> Row:
    if origin.address is None:
        return "unix", origin.port, "unix", origin.port
    return origin.address, origin.port, origin.local_address, origin.local_port


def _console_rows(view: View, state: str = "active") -> list[Row]:
    return [
        (
            *("C", console.user, CONSOLE_DATABASE, "none", state),
            *_client_address(console.origin),
            *(view.time(console.connected_at), view.time(console.requested_at), 0, 0, 0),
            *(pointer(console.id), "", console.origin.peer_pid or 0, str(console.tls or "")),
            *(console.application_name, 0, console.id),
        )
        for console in sorted(view.consoles.sessions, key=lambda console: console.id)
    ]


def servers(view: View) -> Table:
    found = sorted(view.pooler.servers(), key=lambda server: server.id)
    return Table(SOCKET_COLUMNS, [_server_row(view, server, server.state.value) for server in found])


def _server_row(view: View, server: ServerSession, state: str) -> Row:
    on_socket = server.host.startswith(("/", "@"))
    return (
        *("S", server.pool.user, server.pool.database, "none", state),
        *("unix" if on_socket else server.host, server.port),
        *("unix" if on_socket else server.local_address, server.port if on_socket else server.local_port),
        *(view.time(server.connected_at), view.time(server.requested_at)),
        *_split(view.now - server.query_started if server.query_open else 0.0),
        *(int(server.close_needed), pointer(server.id)),
        *(pointer(server.client.id) if server.client is not None else "", server.pid),
        *(str(server.tls or ""), server.application_name, len(server.exchange.statements), server.id),
    )


_SOCKET_STATES: Final = {"new": "sv_login"}


def sockets(view: View) -> Table:
    """Clients, servers and logins in one table. The pooler keeps no buffers of its own to report positions in."""
    rows = [_client_row(view, client, socket_words=True) for client in view.pooler.clients]
    rows += _console_rows(view, "cl_active")
    for server in view.pooler.servers():
        rows.append(_server_row(view, server, _SOCKET_STATES.get(server.state.value, f"sv_{server.state.value}")))
    for login in view.pooler.logins:
        started = view.time(login.started_at)
        who: Row = ("C", login.user, login.database_name, "none", "cl_login", *_client_address(login.origin))
        rows.append(
            (*who, started, started, 0, 0, 0, "", "", login.origin.peer_pid or 0, str(login.tls or ""), "", 0, 0)
        )
    return Table((*SOCKET_COLUMNS, *_BUFFER_COLUMNS), [(*row, *(0,) * len(_BUFFER_COLUMNS)) for row in rows])


# --- who waits, and why ------------------------------------------------------------------------------------------------------

WAITERS_COLUMNS: Final = (
    *_texts("database user"),
    *_ints("client_id"),
    *_texts("addr application_name since"),
    *_ints("wait wait_us"),
    *_texts("reason holder holder_addr holder_application_name holder_state"),
    *_ints("holder_client_id holder_pid holder_seconds"),
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
                *_split(view.now - waiter.waiting_since),
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


# --- statistics ----------------------------------------------------------------------------------------------------------------

_STATS_WORDS: Final = {"received": "bytes_received", "sent": "bytes_sent"}
_TOTALS_WORDS: Final = {
    "received": "client_bytes",
    "sent": "server_bytes",
    "client_parse_count": "ps_client_parse_count",
    "server_parse_count": "ps_server_parse_count",
    "bind_count": "ps_bind_count",
}
_AVG_ONLY: Final = COUNTERS[-4:]  # these four carry avg_ in SHOW STATS_AVERAGES, too
_TIMES: Final = ("xact_time", "query_time", "wait_time")


def _total_values(stats: Stats) -> list[int]:
    """In the order of COUNTERS; times in microseconds."""
    return [int(getattr(stats, name) * (1_000_000 if name in _TIMES else 1)) for name in COUNTERS]


def _average_values(averages: Mapping[str, float]) -> list[int]:
    return [int(averages.get(name, 0.0) * (1_000_000 if name in _TIMES else 1)) for name in COUNTERS]


def _stats_rows(view: View) -> Iterator[tuple[str, list[int], list[int]]]:
    for name, database in sorted(view.pooler.databases.items()):
        yield name, _total_values(view.pooler.stats(database)), _average_values(database.averages.values())
    yield CONSOLE_DATABASE, _total_values(view.consoles.stats), _average_values({})


STATS_COLUMNS: Final = (
    *_texts("database"),
    *_numerics(f"total_{name}" for name in COUNTERS),
    *_numerics("avg_" + {"received": "recv"}.get(name, name) for name in COUNTERS),
)


def stats(view: View) -> Table:
    return Table(STATS_COLUMNS, [(name, *totals, *averages) for name, totals, averages in _stats_rows(view)])


def stats_totals(view: View) -> Table:
    columns = (*_texts("database"), *_numerics(_STATS_WORDS.get(name, name) for name in COUNTERS))
    return Table(columns, [(name, *totals) for name, totals, _ in _stats_rows(view)])


def stats_averages(view: View) -> Table:
    names = (f"avg_{name}" if name in _AVG_ONLY else _STATS_WORDS.get(name, name) for name in COUNTERS)
    return Table((*_texts("database"), *_numerics(names)), [(name, *avg) for name, _, avg in _stats_rows(view)])


def totals(view: View) -> Table:
    rows = list(_stats_rows(view))
    names = [_TOTALS_WORDS.get(name, name) for name in COUNTERS]
    summed = [(f"total_{name}", sum(row[1][at] for row in rows)) for at, name in enumerate(names)]
    averaged = [(f"avg_{name}", sum(row[2][at] for row in rows)) for at, name in enumerate(names)]
    return Table((*_texts("name"), *_numerics(["value"])), [*summed, *averaged])


# --- what is configured, and how much of it there is ---------------------------------------------------------------------------

DATABASES_COLUMNS: Final = (
    *_texts("name host"),
    *_ints("port"),
    *_texts("database force_user"),
    *_ints("pool_size min_pool_size reserve_pool_size server_lifetime"),
    *_texts("pool_mode load_balance_hosts"),
    *_ints("max_connections current_connections max_client_connections current_client_connections paused disabled"),
)


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
        *(entry.pool_mode, _load_balance_hosts(view, name)),
        config.max_db_connections(name),
        sum(pool.server_count for pool in pooler.pools.values() if pool.database == name),
        config.max_db_client_connections(name),
        sum(client.database == name for client in pooler.clients),
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
    known |= {pool.user for pool in view.pooler.pools.values()} | {client.user for client in view.pooler.clients}
    known |= {entry.user for entry in config.databases.values() if entry.user is not None}
    return sorted(known)


def users(view: View) -> Table:
    columns = (
        *_texts("name pool_size reserve_pool_size pool_mode"),
        *_ints("max_user_connections current_connections max_user_client_connections current_client_connections"),
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
                sum(client.user == name for client in view.pooler.clients),
            )
        )
    return Table(columns, rows)


def peers(view: View) -> Table:
    default = view.config.settings.default_pool_size
    rows: list[Row] = [
        (peer.peer_id, peer.host, peer.port, default if peer.pool_size is None else peer.pool_size)
        for _, peer in sorted(view.config.peers.items())
    ]
    return Table((*_ints("peer_id"), *_texts("host"), *_ints("port pool_size")), rows)


def peer_pools(view: View) -> Table:
    return Table(_ints("peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"), [])


def lists(view: View) -> Table:
    pooler = view.pooler
    used = len(pooler.clients) + len(view.consoles.sessions)
    rows: list[Row] = [
        ("databases", len(view.database_names()) + 1),
        ("users", len(user_names(view))),
        ("peers", len(view.config.peers)),
        ("pools", len(pooler.pools) + 1),
        ("peer_pools", 0),
        # PgBouncer counts unused memory slots here; nobody can use that number. How many more clients may come:
        ("free_clients", max(0, pooler.settings.max_client_conn - pooler.client_count())),
        ("used_clients", used),
        ("login_clients", len(pooler.logins)),
        ("free_servers", 0),
        ("used_servers", sum(pool.server_count for pool in pooler.pools.values())),
        *((f"dns_{name}", 0) for name in ("names", "zones", "queries", "pending")),
    ]
    return Table((*_texts("list"), *_ints("items")), rows)


def config(view: View) -> Table:
    rows: list[Row] = []
    for info in show_order():
        value = format_value(info, getattr(view.config.settings, info.name))
        if info.name == "conffile":
            value = view.config_path
        if info.secret and value:
            value = "****"
        rows.append((info.name, value, info.default_text, "yes" if info.reload is ReloadClass.RELOAD else "no"))
    return Table(_texts("key value default changeable"), rows)


def state(view: View) -> Table:
    paused = view.pooler.paused
    words = {True: "yes", False: "no"}
    return Table(_texts("key value"), [("active", words[not paused]), ("paused", words[paused]), ("suspended", "no")])


def version(view: View) -> Table:
    return Table(_texts("version"), [(VERSION_LINE,)])


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
    return Table((*_texts("name"), *_ints("size used free memtotal")), rows)


def dns_hosts(view: View) -> Table:
    return Table((*_texts("hostname"), ("ttl", INT8_OID), *_texts("addrs")), [])


def dns_zones(view: View) -> Table:
    return Table((*_texts("zonename"), ("serial", INT8_OID), *_ints("count")), [])


Builder = Callable[[View], Table]
TABLES: Final[Mapping[str, Builder]] = {
    "CLIENTS": clients,
    "CONFIG": config,
    "DATABASES": databases,
    "DNS_HOSTS": dns_hosts,
    "DNS_ZONES": dns_zones,
    "LISTS": lists,
    "MEM": mem,
    "PEERS": peers,
    "PEER_POOLS": peer_pools,
    "POOLS": pools,
    "SERVERS": servers,
    "SOCKETS": sockets,
    "ACTIVE_SOCKETS": sockets,
    "STATE": state,
    "STATS": stats,
    "STATS_AVERAGES": stats_averages,
    "STATS_TOTALS": stats_totals,
    "TOTALS": totals,
    "USERS": users,
    "VERSION": version,
    "WAITERS": waiters,
}


def one_value(name: str, value: Any) -> Table:
    """A table of one row and one column."""
    return Table(((name, INT4_OID if isinstance(value, int) else TEXT_OID),), [(value,)])
