"""SHOW CLIENTS, SERVERS and SOCKETS: one row per connection."""

from __future__ import annotations

from typing import Final

from pgweir.admin.tables.form import Row, Table, View, ints, seconds_and_microseconds, texts
from pgweir.config import CONSOLE_DATABASE
from pgweir.pool.records import ClientState
from pgweir.session import replication
from pgweir.session.client import ClientSession
from pgweir.session.server import ServerSession
from pgweir.session.wire import Origin

SOCKET_COLUMNS: Final = (
    *texts("type user database replication state addr"),
    *ints("port"),
    *texts("local_addr"),
    *ints("local_port"),
    *texts("connect_time request_time"),
    *ints("wait wait_us close_needed"),
    *texts("ptr link"),
    *ints("remote_pid"),
    *texts("tls application_name"),
    *ints("prepared_statements id"),
)
CLIENTS_COLUMNS: Final = (*SOCKET_COLUMNS, *ints("transaction_seconds"))
_BUFFER_COLUMNS: Final = ints("recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail")


def pointer(record_id: int) -> str:
    """What PgBouncer prints for an object's address: something to join `ptr` and `link` by."""
    return f"0x{record_id:x}"


def clients(view: View) -> Table:
    """PgBouncer's columns, and behind them how long the client has been in its transaction. The oldest comes first: a leak."""
    found = sorted(view.pooler.clients, key=lambda client: (_transaction_started(client) or view.now, client.id))
    rows = [(*_client_row(view, client), _transaction_seconds(view, client)) for client in found]
    return Table(CLIENTS_COLUMNS, rows + [(*row, None) for row in _console_rows(view)])


def _transaction_seconds(view: View, client: ClientSession) -> int | None:
    started = _transaction_started(client)
    return int(view.now - started) if started else None


def _transaction_started(client: ClientSession) -> float:
    """0.0 outside of one."""
    return client.server.transaction_started if client.server is not None else 0.0


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
        *("C", client.user, client.database, replication.word(client.pool.relayed), state),
        *_client_address(client.origin),
        *(view.time(client.connected_at), view.time(client.requested_at)),
        *seconds_and_microseconds(wait),
        *(0, pointer(client.id), pointer(server.id) if server is not None else ""),
        *(client.origin.peer_pid or 0, str(client.tls or ""), client.application_name),
        *(len(client.statements), client.id),
    )


def _client_address(origin: Origin) -> Row:
    if origin.address is None:
        return "unix", origin.port, "unix", origin.port
    return origin.address, origin.port, origin.local_address, origin.local_port


def _console_rows(view: View, state: str = "idle") -> list[Row]:
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
        *("S", server.pool.user, server.pool.database, replication.word(server.pool.relayed), state),
        *("unix" if on_socket else server.address or server.host, server.port),
        *("unix" if on_socket else server.local_address, server.port if on_socket else server.local_port),
        *(view.time(server.connected_at), view.time(server.requested_at or server.connected_at)),
        *seconds_and_microseconds(view.now - server.query_started if server.query_open else 0.0),
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
