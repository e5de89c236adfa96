"""The console's tables as PgBouncer 1.25 has them, column by column: what both the unit and the data-plane tests compare with.

`NAME type`, in order. A `+` marks what is newer than 1.18 (Debian's): asserted as a known difference there. Ours, which come
behind PgBouncer's, are in `OURS_BEHIND`. `PGPOOL` has the views of pgpool's that the console knows, too.
"""

from __future__ import annotations

from dataclasses import dataclass

OIDS = {"text": 25, "int4": 23, "int8": 20, "numeric": 1700}


@dataclass(frozen=True)
class Column:
    name: str
    oid: int
    since_118: bool  # 1.18 has it, too


def _columns(text: str) -> list[Column]:
    """`text: a b+ | int4: c` as columns."""
    found = []
    for group in text.split("|"):
        kind, _, names = group.partition(":")
        for name in names.split():
            found.append(Column(name.rstrip("+"), OIDS[kind.strip()], not name.endswith("+")))
    return found


_SOCKET = """
    text: type user database replication+ state addr | int4: port | text: local_addr | int4: local_port
    | text: connect_time request_time | int4: wait wait_us close_needed | text: ptr link | int4: remote_pid
    | text: tls application_name | int4: prepared_statements+ id+
"""
_BUFFERS = "| int4: recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail"
_OLD_COUNTERS = "xact_count query_count received sent xact_time query_time wait_time"
_NEW_COUNTERS = "client_parse_count+ server_parse_count+ bind_count+ client_login_count+"


def _counters(prefix: str, received: str, sent: str, *, new_prefix: str | None = None) -> str:
    words = {"received": received, "sent": sent}
    old = " ".join(prefix + words.get(name, name) for name in _OLD_COUNTERS.split())
    new = " ".join((prefix if new_prefix is None else new_prefix) + name for name in _NEW_COUNTERS.split())
    return f"{prefix}server_assignment_count+ {old} {new}"


COLUMNS: dict[str, list[Column]] = {
    name: _columns(text)
    for name, text in {
        "CLIENTS": _SOCKET,
        "SERVERS": _SOCKET,
        "SOCKETS": _SOCKET + _BUFFERS,
        "ACTIVE_SOCKETS": _SOCKET + _BUFFERS,
        "POOLS": """
            text: database user | int4: cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active
            sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us
            | text: pool_mode load_balance_hosts+
        """,
        "PEER_POOLS": "int4: peer_id+ cl_active_cancel_req+ cl_waiting_cancel_req+ sv_active_cancel+ sv_login+",
        "PEERS": "int4: peer_id+ | text: host+ | int4: port+ pool_size+",
        "DATABASES": """
            text: name host | int4: port | text: database force_user
            | int4: pool_size min_pool_size reserve_pool_size+ server_lifetime+ | text: pool_mode load_balance_hosts+
            | int4: max_connections current_connections max_client_connections+ current_client_connections+ paused disabled
        """,
        "USERS": """
            text: name pool_size+ reserve_pool_size+ pool_mode | int4: max_user_connections+ current_connections+
            max_user_client_connections+ current_client_connections+
        """,
        "LISTS": "text: list | int4: items",
        "STATS": "text: database | numeric: "
        + _counters("total_", "received", "sent")
        + _counters(" avg_", "recv", "sent"),
        "STATS_TOTALS": "text: database | numeric: " + _counters("", "bytes_received", "bytes_sent"),
        "STATS_AVERAGES": "text: database | numeric: "
        + _counters("", "bytes_received", "bytes_sent", new_prefix="avg_"),
        "TOTALS": "text: name | numeric: value",
        "CONFIG": "text: key value default changeable",
        "MEM": "text: name | int4: size used free memtotal",
        "STATE": "text: key+ value+",
        "VERSION": "text: version",
        "DNS_HOSTS": "text: hostname | int8: ttl | text: addrs",
        "DNS_ZONES": "text: zonename | int8: serial | int4: count",
    }.items()
}
# 1.18's own names for what was renamed since.
RENAMED = {"reserve_pool": "reserve_pool_size"}

# Behind PgBouncer's columns, so that who reads by position goes on working.
OURS_BEHIND = {"CLIENTS": _columns("int4: transaction_seconds")}

PGPOOL = {
    "POOL_NODES": _columns(
        "text: node_id hostname port status pg_status lb_weight role pg_role select_cnt load_balance_node"
        " replication_delay replication_state replication_sync_state last_status_change"
    ),
    "POOL_PROCESSES": _columns(
        "text: pool_pid start_time client_connection_count database username backend_connection_time pool_counter status"
    ),
    "POOL_POOLS": _columns(
        "text: pool_pid start_time client_connection_count pool_id backend_id database username backend_connection_time"
        " client_connection_time client_disconnection_time client_idle_duration majorversion minorversion pool_counter"
        " pool_backendpid pool_connected status load_balance_node client_host client_port statement"
    ),
}
