"""Which settings the `parameters` of a Pooler, of one of its databases and of one of its users may name.

Pure data over the catalogue. Read by the CRD generator, by validation.py and by desired/. A setting that the operator
must hold in its own hand (where to listen, file names, the pool mode that has a field of its own) is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pgweir.settings import DATABASE_SETTINGS, SETTINGS, USER_SETTINGS, ReloadClass, SettingInfo, Support

# What CloudNativePG's Pooler accepts: a manifest moves over with its parameters unchanged.
_COMPATIBLE: Final = frozenset(
    """
    application_name_add_host auth_type auth_user autodb_idle_timeout cancel_wait_timeout client_idle_timeout
    client_login_timeout client_tls_ciphers client_tls_sslmode client_tls13_ciphers default_pool_size disable_pqexec
    dns_max_ttl dns_nxdomain_ttl idle_transaction_timeout ignore_startup_parameters listen_backlog log_connections
    log_disconnections log_pooler_errors log_stats max_client_conn max_db_connections max_packet_size
    max_prepared_statements max_user_connections min_pool_size pkt_buf query_timeout query_wait_timeout
    reserve_pool_size reserve_pool_timeout sbuf_loopcnt server_check_delay server_check_query server_connect_timeout
    server_fast_close server_idle_timeout server_lifetime server_login_retry server_reset_query
    server_reset_query_always server_round_robin server_tls_ciphers server_tls13_ciphers server_tls_protocols
    server_tls_sslmode stats_period suspend_timeout tcp_defer_accept tcp_socket_buffer tcp_keepalive tcp_keepcnt
    tcp_keepidle tcp_keepintvl tcp_user_timeout track_extra_parameters verbose
    """.split()  # noqa: SIM905 - a list of 58 lines reads worse
)

# What people asked for and could not set there. The rule: it has an effect in our data plane, needs no file and no secret in
# the pod (auth_ldap_options has a password; auth_dbname is part of the look-up), and the operator does not write it itself.
_OURS: Final = frozenset(
    """
    auth_query_cache_time client_idle_limit client_overflow client_tls_ecdhcurve client_tls_protocols
    keep_server_of_lost_client login_notify_message max_db_client_connections max_server_connections
    max_user_client_connections pool_idle_timeout query_wait_notify reserved_connections scram_iterations
    server_tls_sslnegotiation startup_parameters stats_users target_session_attrs transaction_timeout uncached_databases
    """.split()  # noqa: SIM905 - a list of 58 lines reads worse
)

PARAMETERS: Final[Mapping[str, SettingInfo]] = MappingProxyType(
    {
        name: info
        for name, info in sorted(SETTINGS.items())
        if name in _COMPATIBLE or (name in _OURS and info.support is Support.WORKS)
    }
)

RESTARTING: Final = tuple(name for name, info in PARAMETERS.items() if info.reload is ReloadClass.RESTART)
"""A change of one of these rolls the pods; every other one is taken up by them as they run."""

# Where PostgreSQL is, and how users are looked up there, is the Pooler's own; a password stands in a Secret.
_NOT_OF_AN_ENTRY: Final = frozenset(
    {"host", "port", "load_balance_hosts", "target_session_attrs", "password", "auth_user", "auth_query", "auth_dbname"}
)

DATABASE_PARAMETERS: Final[Mapping[str, SettingInfo]] = MappingProxyType(
    {name: info for name, info in sorted(DATABASE_SETTINGS.items()) if name not in _NOT_OF_AN_ENTRY}
)
USER_PARAMETERS: Final[Mapping[str, SettingInfo]] = MappingProxyType(dict(sorted(USER_SETTINGS.items())))

MAX_ENTRIES: Final = 100
"""Of databases, and of users."""

MAX_ENTRY_VALUE_LENGTH: Final = 512

MAX_VALUE_LENGTH: Final = 1024
"""Of one value, in characters: the API server's cost estimate of the rules needs a bound."""

MAX_PARAMETERS: Final = 100

# WHY no octal and no hexadecimal, which PgBouncer reads: in a manifest "010" is a slip, not the number eight.
WHOLE_NUMBER_PATTERN: Final = "^(0|[1-9][0-9]{0,9})$"
TIME_PATTERN: Final = "^(0|[1-9][0-9]{0,9})([.][0-9]{1,6})?$"


def usable_choices(info: SettingInfo) -> tuple[str, ...]:
    return tuple(word for word in info.choices if word not in info.refused_choices)


def expected(info: SettingInfo) -> str:
    """What to write instead of a value that cannot be."""
    return info.support_note if info.support is Support.REFUSED else info.expected
