"""The [pgbouncer] section as one table: every setting, its default, range, reload class and meaning.

Data alone. A setting that has no effect here, or that is refused, says why in its own line. One file, however long: it is
one table, in the order of docs/settings.md, which is written from it; parts of it would be read by nobody alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgweir.settings.declaration import INT_MAX, PEER_ID_MAX, UINT_MAX, Kind, ReloadClass, catalogue, setting

DEFAULT_AUTH_QUERY: Final = (
    "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END"
    " FROM pg_authid WHERE rolname=$1 AND rolcanlogin"
)
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
POOL_MODES: Final = ("session", "transaction", "statement")
AUTH_TYPES: Final = ("any", "trust", "plain", "md5", "scram-sha-256", "cert", "hba", "ldap", "pam")
TLS_PROTOCOLS: Final = ("tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3", "all", "secure", "legacy")
SYSLOG_FACILITIES: Final = ("auth", "authpriv", "daemon", "user", *(f"local{n}" for n in range(8)))

_RESTART: Final = ReloadClass.RESTART
_NO_SYSLOG: Final = "Log records go to standard output, standard error or `logfile`; a container has no syslog."
_NO_TLS13: Final = (
    "remove this line: the TLS 1.3 cipher suites cannot be chosen here, because Python's ssl module has no call for it;"
    " the library's own defaults apply"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The parsed [pgbouncer] section; each attribute has the setting's own name."""

    # Process
    conffile: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Process",
        meaning="Path of the configuration file.",
        no_effect="RELOAD always reads the file that was named on the command line.",
    )
    job_name: str = setting(
        "pgbouncer",
        kind=Kind.TEXT,
        group="Process",
        reload=_RESTART,
        meaning="Name of the service.",
        no_effect="It names a service on Windows only.",
    )
    service_name: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Process",
        reload=_RESTART,
        meaning="Another spelling of job_name, known on Windows only.",
        refused="remove this line: service_name exists on Windows only",
        listed=False,
    )
    pidfile: str = setting(
        "",
        kind=Kind.TEXT,
        group="Process",
        reload=_RESTART,
        meaning="File that receives the process id; needed for running as a daemon. Empty: none is written.",
    )
    suspend_timeout: float = setting(
        10.0,
        kind=Kind.TIME,
        group="Process",
        meaning="How long SUSPEND waits for buffers to drain before it closes the connections that lag.",
        no_effect="SUSPEND is refused: a restart goes through so_reuseport and SIGTERM, and no client is stopped for it.",
    )
    user: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Process",
        reload=_RESTART,
        meaning="Unix user to become at start, when started as root.",
    )

    # Logging and statistics
    log_connections: bool = setting(
        True, kind=Kind.BOOL, group="Logging and statistics", meaning="Log each login and each new server connection."
    )
    log_disconnections: bool = setting(
        True, kind=Kind.BOOL, group="Logging and statistics", meaning="Log each closed connection with its reason."
    )
    log_pooler_errors: bool = setting(
        True, kind=Kind.BOOL, group="Logging and statistics", meaning="Log each error that the pooler tells a client."
    )
    log_stats: bool = setting(
        True, kind=Kind.BOOL, group="Logging and statistics", meaning="Log a line of totals every stats_period."
    )
    logfile: str = setting(
        "",
        kind=Kind.TEXT,
        group="Logging and statistics",
        meaning="Log to this file too, and reopen it on RELOAD. Empty: none.",
    )
    stats_period: int = setting(
        60,
        kind=Kind.INT,
        minimum=1,
        group="Logging and statistics",
        unit="seconds",
        meaning="Period over which averages are computed, and between two log lines of totals.",
    )
    syslog: bool = setting(
        False, kind=Kind.BOOL, group="Logging and statistics", meaning="Log to syslog too.", no_effect=_NO_SYSLOG
    )
    syslog_facility: str = setting(
        "daemon",
        kind=Kind.ENUM,
        choices=SYSLOG_FACILITIES,
        group="Logging and statistics",
        meaning="Facility under which syslog files the records.",
        no_effect=_NO_SYSLOG,
    )
    syslog_ident: str = setting(
        "pgbouncer",
        kind=Kind.TEXT,
        group="Logging and statistics",
        meaning="Name of the program in syslog.",
        no_effect=_NO_SYSLOG,
    )
    verbose: int = setting(
        0,
        kind=Kind.INT,
        maximum=3,
        default_text=None,
        group="Logging and statistics",
        meaning="How much more to log; 1 and above add debugging records.",
    )

    # Sockets and buffers
    listen_addr: tuple[str, ...] = setting(
        (),
        kind=Kind.LIST,
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="Addresses to listen on; * means all of them, empty means the Unix socket alone.",
    )
    listen_backlog: int = setting(
        128,
        kind=Kind.INT,
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="How many connections the kernel queues before they are accepted.",
    )
    listen_port: int = setting(
        6432,
        kind=Kind.INT,
        maximum=65535,
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="TCP port; also part of the Unix socket's file name.",
    )
    max_packet_size: int = setting(
        INT_MAX,
        kind=Kind.INT,
        minimum=1,
        maximum=UINT_MAX,
        group="Sockets and buffers",
        unit="bytes",
        meaning="Longest single message that is let through.",
    )
    peer_id: int = setting(
        0,
        kind=Kind.INT,
        maximum=PEER_ID_MAX,
        group="Sockets and buffers",
        meaning="Number of this process among its peers, to which cancel requests are handed on; 0: it has none.",
    )
    pkt_buf: int = setting(
        4096,
        kind=Kind.INT,
        group="Sockets and buffers",
        reload=_RESTART,
        unit="bytes",
        meaning="Size of the buffer that belongs to a connection.",
        no_effect="Reads are as large as the event loop makes them, and idle connections hold no buffer.",
    )
    sbuf_loopcnt: int = setting(
        5,
        kind=Kind.INT,
        group="Sockets and buffers",
        meaning="How many buffers one connection may fill before others get their turn.",
        no_effect="The event loop serves every ready connection once per turn.",
    )
    so_reuseport: bool = setting(
        False,
        kind=Kind.BOOL,
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="Let several processes listen on the same port (SO_REUSEPORT).",
    )
    tcp_defer_accept: int = setting(
        1,
        kind=Kind.INT,
        group="Sockets and buffers",
        meaning="Accept a TCP connection only once it has sent data (TCP_DEFER_ACCEPT); 0: at once.",
    )
    tcp_keepalive: bool = setting(
        True, kind=Kind.BOOL, group="Sockets and buffers", meaning="Probe silent TCP connections (SO_KEEPALIVE)."
    )
    tcp_keepcnt: int = setting(
        0,
        kind=Kind.INT,
        group="Sockets and buffers",
        meaning="Unanswered probes after which a peer is dead; 0: system default.",
    )
    tcp_keepidle: int = setting(
        0,
        kind=Kind.INT,
        group="Sockets and buffers",
        unit="seconds",
        meaning="Silence before the first probe; 0: system default.",
    )
    tcp_keepintvl: int = setting(
        0,
        kind=Kind.INT,
        group="Sockets and buffers",
        unit="seconds",
        meaning="Time between two probes; 0: system default.",
    )
    tcp_socket_buffer: int = setting(
        0,
        kind=Kind.INT,
        group="Sockets and buffers",
        unit="bytes",
        meaning="Kernel buffer of a TCP socket, each way; 0: system default.",
    )
    tcp_user_timeout: int = setting(
        0,
        kind=Kind.INT,
        group="Sockets and buffers",
        unit="milliseconds",
        meaning="How long sent data may stay unacknowledged (TCP_USER_TIMEOUT); 0: system default.",
    )
    unix_socket_dir: str = setting(
        "/tmp",  # noqa: S108 -- the default that clients of PgBouncer expect
        kind=Kind.TEXT,
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="Folder of the Unix socket, or @name for an abstract one; empty: none."
        " Also where a server without a host is looked for.",
    )
    unix_socket_group: str = setting(
        "",
        kind=Kind.TEXT,
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="Group that owns the Unix socket. Empty: the group of the process.",
    )
    unix_socket_mode: int = setting(
        0o777,
        kind=Kind.INT,
        maximum=0o7777,
        default_text="0777",
        group="Sockets and buffers",
        reload=_RESTART,
        meaning="File mode of the Unix socket; begin it with 0 to write it in octal.",
    )

    # Pooling and server connections
    autodb_idle_timeout: float = setting(
        3600.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Forget a database that came from the * entry after this time without use; 0: never.",
    )
    client_overflow: str = setting(
        "refuse",
        since=2,
        kind=Kind.ENUM,
        choices=("refuse", "wait"),
        group="Pooling and server connections",
        meaning="What happens to a client beyond max_client_conn: refuse turns it away; wait keeps it in the order of"
        " arrival until a place is free, for query_wait_timeout at most. As many wait as listen_backlog says.",
    )
    default_pool_size: int = setting(
        20,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Server connections of one pool, that is of one database and user; 0: no limit.",
    )
    disable_pqexec: bool = setting(
        False,
        kind=Kind.BOOL,
        group="Pooling and server connections",
        reload=_RESTART,
        meaning="Refuse the simple query protocol, which allows several statements in one message.",
    )
    max_client_conn: int = setting(
        100,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Client connections altogether; the console is exempt.",
    )
    reserved_connections: int = setting(
        0,
        since=2,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Keep this many of max_client_conn free: a client beyond the rest is refused at once, whatever"
        " client_overflow says, with PostgreSQL's words (Sorry, too many clients already); 0: none.",
    )
    max_db_client_connections: int = setting(
        0,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Client connections per database; 0: no limit.",
    )
    max_db_connections: int = setting(
        0,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Server connections per database, over all users; 0: no limit.",
    )
    max_prepared_statements: int = setting(
        200,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Named prepared statements kept on a server connection in transaction and statement mode;"
        " 0: they are not tracked.",
    )
    max_server_connections: int = setting(
        0,
        since=2,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Server connections of this process, over all databases and users, look-ups and replication included;"
        " 0: no limit. Lowered, idle ones go within a second, others when they are given back.",
    )
    max_user_client_connections: int = setting(
        0, kind=Kind.INT, group="Pooling and server connections", meaning="Client connections per user; 0: no limit."
    )
    max_user_connections: int = setting(
        0,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Server connections per user, over all databases; 0: no limit.",
    )
    min_pool_size: int = setting(
        0,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Server connections that a pool in use keeps open even when idle.",
    )
    pool_idle_timeout: float = setting(
        0.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Forget a pool that has had neither clients nor servers for this time; 0: never.",
    )
    pool_mode: str = setting(
        "session",
        kind=Kind.ENUM,
        choices=POOL_MODES,
        group="Pooling and server connections",
        meaning="When a client gives its server connection back: at disconnect, after each transaction,"
        " or after each statement.",
    )
    reserve_pool_size: int = setting(
        0,
        kind=Kind.INT,
        group="Pooling and server connections",
        meaning="Further server connections for a pool whose clients wait too long; 0: none.",
    )
    reserve_pool_timeout: float = setting(
        5.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Wait after which a client may use the reserve; 0: the reserve is off.",
    )
    server_check_delay: float = setting(
        30.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Idle time after which a server connection is checked before use.",
    )
    server_check_query: str = setting(
        "<empty>",
        kind=Kind.TEXT,
        group="Pooling and server connections",
        meaning="Query of that check; <empty> sends an empty query, no text turns checks off.",
    )
    server_connect_timeout: float = setting(
        15.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Limit for connecting and logging in to a server; 0: none.",
    )
    server_fast_close: bool = setting(
        False,
        kind=Kind.BOOL,
        group="Pooling and server connections",
        meaning="In session mode, close a server connection that RECONNECT or a new configuration has outdated"
        " between two transactions, and its client with it; else it serves its client to the end.",
    )
    server_idle_timeout: float = setting(
        600.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Close a server connection that was idle for this long; 0: never.",
    )
    server_lifetime: float = setting(
        3600.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Close an unused server connection of this age; 0: use each one once.",
    )
    server_login_retry: float = setting(
        15.0,
        kind=Kind.TIME,
        group="Pooling and server connections",
        meaning="Longest pause between two attempts to connect and log in. After a first failure it is a quarter of a"
        " second, and doubles; after a refusal for good (a wrong password) all of it.",
    )
    server_reset_query: str = setting(
        "DISCARD ALL",
        kind=Kind.TEXT,
        group="Pooling and server connections",
        meaning="Query that cleans a server connection when a session-mode client lets go of it; empty: none.",
    )
    server_reset_query_always: bool = setting(
        False,
        kind=Kind.BOOL,
        group="Pooling and server connections",
        meaning="Run server_reset_query in every pool mode.",
    )
    server_round_robin: bool = setting(
        False,
        kind=Kind.BOOL,
        group="Pooling and server connections",
        meaning="Use the server connection that has been idle longest rather than the most recent one.",
    )
    target_session_attrs: str = setting(
        "any",
        since=2,
        kind=Kind.ENUM,
        choices=("any", "primary"),
        group="Pooling and server connections",
        meaning="primary: a server in hot standby is never used; its connection is closed, and those who wait go on"
        " waiting, with several hosts for the next one. libpq's word; unknown to PgBouncer.",
    )
    keep_server_of_lost_client: bool = setting(
        True,
        since=2,
        kind=Kind.BOOL,
        group="Pooling and server connections",
        meaning="Clean and keep the server connection of a client that vanished without saying goodbye; 0: close it.",
    )
    uncached_databases: tuple[str, ...] = setting(
        (),
        since=2,
        kind=Kind.LIST,
        group="Pooling and server connections",
        meaning="Databases whose server connections are closed as soon as their client lets go of them.",
    )

    # Timeouts and notices towards clients
    cancel_wait_timeout: float = setting(
        10.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Drop a cancel request that has not reached its server or peer within this time; 0: after 10 s.",
    )
    client_idle_timeout: float = setting(
        0.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Close a client that is idle outside a transaction for this long; 0: never.",
    )
    client_idle_limit: float = setting(
        0.0,
        since=2,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Close a client that has asked nothing for this long, also one that holds a server connection or is"
        " inside a transaction; 0: never.",
    )
    client_login_timeout: float = setting(
        60.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Limit for a client's login; 0: none.",
    )
    idle_transaction_timeout: float = setting(
        0.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Close a client that idles inside a transaction for this long; 0: never.",
    )
    login_notify_message: str = setting(
        "",
        kind=Kind.TEXT,
        group="Timeouts and notices towards clients",
        meaning="Notice sent to each client after its login; empty: none.",
    )
    query_timeout: float = setting(
        0.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Limit for one query, its wait included; 0: none.",
    )
    query_wait_notify: int = setting(
        5,
        kind=Kind.INT,
        group="Timeouts and notices towards clients",
        unit="seconds",
        meaning="Tell a client that it is queued, by a notice, after this wait; 0: never.",
    )
    query_wait_timeout: float = setting(
        120.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Disconnect a client that found no server connection for this long; 0: it waits for ever.",
    )
    transaction_timeout: float = setting(
        0.0,
        kind=Kind.TIME,
        group="Timeouts and notices towards clients",
        meaning="Limit for one transaction; 0: none.",
    )

    # Session parameters
    application_name_add_host: bool = setting(
        False,
        kind=Kind.BOOL,
        group="Session parameters",
        meaning="Append the client's address and port to its application_name at login.",
    )
    ignore_startup_parameters: tuple[str, ...] = setting(
        (),
        kind=Kind.LIST,
        group="Session parameters",
        meaning="Startup parameters that are accepted and dropped instead of refused.",
    )
    track_extra_parameters: tuple[str, ...] = setting(
        ("IntervalStyle",),
        kind=Kind.LIST,
        group="Session parameters",
        reload=_RESTART,
        meaning="Further parameters, of those that the server reports, whose value follows each client.",
    )
    startup_parameters: str = setting(
        "reject",
        kind=Kind.ENUM,
        choices=("reject", "ignore", "relay"),
        group="Session parameters",
        meaning="What happens to startup parameters that are neither tracked nor ignored by name: reject refuses the"
        " login, ignore drops them, relay sends them to the server, in a pool of their own"
        " (of pools that nobody is in, the last 100 stay).",
    )

    # DNS
    dns_max_ttl: float = setting(
        15.0,
        kind=Kind.TIME,
        group="DNS",
        meaning="How long the addresses of a name are kept. A name in use is then looked up again, and servers at"
        " addresses that it has lost are closed when they are free; 0: looked up for each connection.",
    )
    dns_nxdomain_ttl: float = setting(
        15.0,
        kind=Kind.TIME,
        group="DNS",
        meaning="How long a failed look-up is remembered; 0: it is repeated with the next attempt to connect.",
    )
    dns_zone_check_period: float = setting(
        0.0,
        kind=Kind.TIME,
        group="DNS",
        meaning="How often zone serials are compared; 0: never.",
        no_effect="Names are looked up by the system's resolver, which cannot compare zone serials.",
    )
    resolv_conf: str = setting(
        "",
        kind=Kind.TEXT,
        group="DNS",
        reload=_RESTART,
        meaning="Another resolv.conf than the system's.",
        no_effect="Names are looked up by the system's resolver, which reads its own file.",
    )

    # Authentication and console access
    admin_users: tuple[str, ...] = setting(
        (),
        kind=Kind.LIST,
        group="Authentication and console access",
        meaning="Users who may run every console command.",
    )
    auth_dbname: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Authentication and console access",
        meaning="Entry of [databases] in which auth_query runs; unset: the one the client asks for.",
    )
    auth_file: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Authentication and console access",
        meaning="File with user names and their secrets.",
    )
    auth_hba_file: str = setting(
        "",
        kind=Kind.TEXT,
        group="Authentication and console access",
        meaning="File with the rules of auth_type hba.",
    )
    auth_ident_file: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Authentication and console access",
        meaning="File that maps system user names to database users, for cert and peer.",
    )
    auth_ldap_options: str | None = setting(
        None,
        since=2,
        kind=Kind.OPTIONAL_TEXT,
        group="Authentication and console access",
        meaning="Options of auth_type ldap: those that PostgreSQL has on a line of pg_hba.conf behind the word ldap.",
        secret=True,
    )
    auth_query: str = setting(
        DEFAULT_AUTH_QUERY,
        kind=Kind.TEXT,
        group="Authentication and console access",
        meaning="Query that answers a user's name and secret for the name $1.",
    )
    auth_query_cache_time: float = setting(
        0.0,
        since=2,
        kind=Kind.TIME,
        group="Authentication and console access",
        meaning="How long a secret that auth_query found is kept, so that not every login asks; one that no longer fits is"
        " asked for again with the next login. 0: nothing is kept. Unknown to PgBouncer.",
    )
    auth_type: str = setting(
        "md5",
        kind=Kind.ENUM,
        choices=AUTH_TYPES,
        refused_choices=("pam",),
        words_since=(("ldap", 2),),
        group="Authentication and console access",
        meaning="How clients prove who they are. md5 takes SCRAM where the stored secret is a SCRAM one.",
    )
    auth_user: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="Authentication and console access",
        meaning="User that runs auth_query for users who are not in auth_file; unset: there is no look-up.",
    )
    scram_iterations: int = setting(
        4096,
        kind=Kind.INT,
        minimum=1,
        maximum=1_000_000,
        group="Authentication and console access",
        meaning="Iterations of the SCRAM verifier that is made from a plain password.",
    )
    stats_users: tuple[str, ...] = setting(
        (),
        kind=Kind.LIST,
        group="Authentication and console access",
        meaning="Users who may look at everything in the console and change nothing.",
    )

    # TLS towards clients
    client_tls13_ciphers: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="TLS towards clients",
        meaning="Cipher suites of TLS 1.3.",
        refused=_NO_TLS13,
    )
    client_tls_ca_file: str = setting(
        "",
        kind=Kind.TEXT,
        group="TLS towards clients",
        meaning="Certificates that client certificates are verified with.",
    )
    client_tls_cert_file: str = setting(
        "", kind=Kind.TEXT, group="TLS towards clients", meaning="Certificate that is shown to clients."
    )
    client_tls_ciphers: str = setting(
        "default",
        kind=Kind.TEXT,
        group="TLS towards clients",
        meaning="Ciphers up to TLS 1.2: default, secure, fast, normal, all, or an OpenSSL cipher list.",
    )
    client_tls_dheparams: str = setting(
        "auto",
        kind=Kind.ENUM,
        choices=("none", "auto", "legacy"),
        group="TLS towards clients",
        meaning="Parameters of the DHE key exchange.",
        no_effect="OpenSSL chooses the parameters.",
    )
    client_tls_ecdhcurve: str = setting(
        "auto",
        kind=Kind.TEXT,
        group="TLS towards clients",
        meaning="Curve of the ECDHE key exchange: auto, or a curve's name.",
    )
    client_tls_key_file: str = setting(
        "", kind=Kind.TEXT, group="TLS towards clients", meaning="Private key of client_tls_cert_file."
    )
    client_tls_protocols: str = setting(
        "secure",
        kind=Kind.TEXT,
        choices=TLS_PROTOCOLS,
        group="TLS towards clients",
        meaning="TLS versions; secure means 1.2 and 1.3, all and legacy mean every version.",
    )
    client_tls_sslmode: str = setting(
        "disable",
        kind=Kind.ENUM,
        choices=SSL_MODES,
        group="TLS towards clients",
        meaning="TLS towards clients: disable offers none, allow and prefer offer it, require insists on it,"
        " verify-ca and verify-full insist on a client certificate too.",
    )

    # TLS towards servers
    server_tls13_ciphers: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        group="TLS towards servers",
        meaning="Cipher suites of TLS 1.3.",
        refused=_NO_TLS13,
    )
    server_tls_ca_file: str = setting(
        "",
        kind=Kind.TEXT,
        group="TLS towards servers",
        meaning="Certificates that server certificates are verified with.",
    )
    server_tls_cert_file: str = setting(
        "", kind=Kind.TEXT, group="TLS towards servers", meaning="Certificate that is shown to servers."
    )
    server_tls_ciphers: str = setting(
        "default",
        kind=Kind.TEXT,
        group="TLS towards servers",
        meaning="Ciphers up to TLS 1.2: default, secure, fast, normal, all, or an OpenSSL cipher list.",
    )
    server_tls_key_file: str = setting(
        "", kind=Kind.TEXT, group="TLS towards servers", meaning="Private key of server_tls_cert_file."
    )
    server_tls_protocols: str = setting(
        "secure",
        kind=Kind.TEXT,
        choices=TLS_PROTOCOLS,
        group="TLS towards servers",
        meaning="TLS versions; secure means 1.2 and 1.3, all and legacy mean every version.",
    )
    server_tls_sslmode: str = setting(
        "prefer",
        kind=Kind.ENUM,
        choices=SSL_MODES,
        group="TLS towards servers",
        meaning="TLS towards servers: disable never asks, allow and prefer go on in clear text where the server has"
        " none, require insists, verify-ca checks the chain, verify-full the host name too.",
    )
    server_tls_sslnegotiation: str = setting(
        "postgres",
        since=2,
        kind=Kind.ENUM,
        choices=("postgres", "direct"),
        group="TLS towards servers",
        meaning="postgres asks the server for TLS first; direct begins with it, which saves a round trip and needs"
        " PostgreSQL 17 and server_tls_sslmode = require or stricter. Unknown to PgBouncer.",
    )


SETTINGS: Final = catalogue(Settings)
