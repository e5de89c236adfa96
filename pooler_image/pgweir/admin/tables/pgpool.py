"""pgpool's views, for those who come from there: SHOW POOL_NODES, POOL_PROCESSES, POOL_POOLS. All columns are text, as there.

There are no child processes here, so a "process" is a client and a "pool" is a server connection; `pool_pid` is the client's id
in SHOW CLIENTS, which KILL_CLIENT takes. Columns that mean nothing here have a neutral value, listed in docs/differences.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pgweir.admin.nodes import Address
from pgweir.admin.tables.form import Row, Table, View, texts
from pgweir.pool.records import ClientState
from pgweir.session.client import ClientSession
from pgweir.session.server import ServerSession
from pgweir.settings import DatabaseSettings

POOL_NODES_COLUMNS: Final = texts(
    "node_id hostname port status pg_status lb_weight role pg_role select_cnt load_balance_node replication_delay"
    " replication_state replication_sync_state last_status_change"
)
POOL_PROCESSES_COLUMNS: Final = texts(
    "pool_pid start_time client_connection_count database username backend_connection_time pool_counter status"
)
POOL_POOLS_COLUMNS: Final = texts(
    "pool_pid start_time client_connection_count pool_id backend_id database username backend_connection_time"
    " client_connection_time client_disconnection_time client_idle_duration majorversion minorversion pool_counter"
    " pool_backendpid pool_connected status load_balance_node client_host client_port statement"
)
EXECUTE: Final = "Execute command"
IDLE: Final = "Idle"
IDLE_IN_TRANSACTION: Final = "Idle in transaction"
WAIT: Final = "Wait for connection"


# --- nodes ---


def nodes(view: View) -> list[Address]:
    """Every host that a database may be on, in the order of the configuration."""
    found: dict[Address, None] = {}
    for name in view.database_names():
        entry = view.config.database(name)
        if entry is not None:
            found.update(dict.fromkeys(_hosts(view, entry)))
    return list(found)


def pool_nodes(view: View) -> Table:
    """As they were seen last; `commands` has them looked at first."""
    rows = [_node_row(view, number, address) for number, address in enumerate(nodes(view))]
    return Table(POOL_NODES_COLUMNS, rows)


def _hosts(view: View, entry: DatabaseSettings) -> list[Address]:
    return [(host, entry.port) for host in entry.hosts or (view.config.settings.unix_socket_dir,)]


def _node_row(view: View, number: int, address: Address) -> Row:
    seen = view.nodes.seen(address)
    standby = view.pooler.standbys.get(address)
    role = "unknown" if standby is None else "standby" if standby else "primary"
    pg_status = "unknown" if seen.status == "waiting" else seen.status
    changed = datetime.fromtimestamp(seen.since).strftime("%Y-%m-%d %H:%M:%S") if seen.since else ""
    return (
        *(
            str(number),
            address[0],
            str(address[1]),
            seen.status,
            pg_status,
            f"{_weight(view, address):.6f}",
            role,
            role,
        ),
        *("0", "false", "0", "", "", changed),
    )


def _weight(view: View, address: Address) -> float:
    """The part of new connections that goes there, in the first database that has it."""
    for name in view.database_names():
        entry = view.config.database(name)
        hosts = _hosts(view, entry) if entry is not None else []
        if address in hosts:
            if view.config.load_balance_hosts(name) == "disable":
                return float(hosts[0] == address)
            return 1 / len(hosts)
    return 0.0


# --- clients and servers ---


def pool_processes(view: View) -> Table:
    """One row per client."""
    rows = [_process_row(view, client) for client in sorted(view.pooler.clients, key=lambda client: client.id)]
    return Table(POOL_PROCESSES_COLUMNS, rows)


def _process_row(view: View, client: ClientSession) -> Row:
    server = client.server
    return (
        *(str(client.id), view.moment(client.connected_at), "1", client.database, client.user),
        view.moment(server.connected_at) if server is not None else "",
        *(_uses(client), status(client)),
    )


def status(client: ClientSession) -> str:
    """pgpool's four words. A client that is queued is what comes nearest to a process that waits for a connection."""
    if client.state in (ClientState.WAITING, ClientState.WAITING_LOGIN):
        return WAIT
    server = client.server
    if client.linking is not None or (server is not None and server.query_open):
        return EXECUTE
    return IDLE_IN_TRANSACTION if server is not None and server.in_transaction else IDLE


def _uses(client: ClientSession) -> str:
    """How often servers of the client's pool were given to clients."""
    return str(client.pool.stats.server_assignment_count)


def pool_pools(view: View) -> Table:
    """One row per server connection that exists; pgpool also lists its empty places."""
    places = {address: number for number, address in enumerate(nodes(view))}
    servers = sorted(view.pooler.servers(), key=lambda server: server.id)
    return Table(POOL_POOLS_COLUMNS, [_pool_row(view, server, places) for server in servers])


def _pool_row(view: View, server: ServerSession, places: dict[Address, int]) -> Row:
    client = server.client if isinstance(server.client, ClientSession) else None
    pool = server.pool
    idle = client is not None and not server.query_open
    return (
        *(
            str(client.id) if client is not None else "0",
            view.moment(client.connected_at) if client is not None else "",
        ),
        *("1" if client is not None else "0", str(server.id), str(places.get((server.host, server.port), 0))),
        *(pool.database, pool.user, view.moment(server.connected_at)),
        view.moment(client.connected_at) if client is not None else "",
        view.moment(server.released_at) if client is None else "",
        str(int(view.now - server.settled_at)) if idle and server.settled_at else "0",
        *("3", "0", str(pool.stats.server_assignment_count), str(server.pid), str(int(client is not None))),
        *(status(client) if client is not None else IDLE, "false"),
        *(_client_host(client), str(client.origin.port) if client is not None else "", ""),
    )


def _client_host(client: ClientSession | None) -> str:
    if client is None:
        return ""
    return client.origin.address or "[local]"
