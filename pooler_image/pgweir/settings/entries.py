"""What an entry of [databases], [users] or [peers] may say. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgweir.settings.declaration import Kind, catalogue, setting
from pgweir.settings.table import POOL_MODES


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseSettings:
    """One entry of [databases]; None means "not set here", and the global setting counts."""

    name: str
    host: str | None = setting(
        None,
        kind=Kind.OPTIONAL_TEXT,
        meaning="Server: a name, an address, a folder or @name of a Unix socket, or a comma-separated list of these."
        " Unset: the Unix socket in unix_socket_dir.",
    )
    port: int = setting(5432, kind=Kind.INT, minimum=1, maximum=65535, meaning="The server's port.")
    dbname: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="Database on the server. Unset: the name the client asks for."
    )
    user: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="Log in to the server as this user, whoever the client is."
    )
    password: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, secret=True, meaning="Password of user. Unset: the one in auth_file."
    )
    auth_user: str | None = setting(None, kind=Kind.OPTIONAL_TEXT, meaning="auth_user of this database.")
    auth_query: str | None = setting(None, kind=Kind.OPTIONAL_TEXT, meaning="auth_query of this database.")
    auth_dbname: str | None = setting(None, kind=Kind.OPTIONAL_TEXT, meaning="auth_dbname of this database.")
    pool_size: int | None = setting(
        None, kind=Kind.INT, unset_below=0, meaning="default_pool_size of this database's pools."
    )
    min_pool_size: int | None = setting(
        None, kind=Kind.INT, unset_below=0, meaning="min_pool_size of this database's pools."
    )
    reserve_pool_size: int | None = setting(
        None,
        kind=Kind.INT,
        unset_below=0,
        aliases=("reserve_pool",),
        meaning="reserve_pool_size of this database's pools.",
    )
    pool_mode: str | None = setting(None, kind=Kind.ENUM, choices=POOL_MODES, meaning="pool_mode of this database.")
    max_db_connections: int | None = setting(
        None, kind=Kind.INT, unset_below=1, meaning="max_db_connections of this database; 0: the global limit."
    )
    max_db_client_connections: int | None = setting(
        None, kind=Kind.INT, unset_below=1, meaning="max_db_client_connections of this database; 0: the global limit."
    )
    server_lifetime: float | None = setting(
        None, kind=Kind.TIME, meaning="server_lifetime of this database; 0: the global value."
    )
    query_wait_timeout: float | None = setting(
        None, kind=Kind.TIME, unset_below=0, meaning="query_wait_timeout of this database; 0: wait for ever."
    )
    load_balance_hosts: str | None = setting(
        None,
        kind=Kind.ENUM,
        choices=("disable", "round-robin"),
        meaning="With several hosts: use them in turn (round-robin), or one until it fails (disable).",
    )
    target_session_attrs: str | None = setting(
        None,
        since=2,
        kind=Kind.ENUM,
        choices=("any", "primary"),
        meaning="target_session_attrs of this database.",
    )
    connect_query: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="Query that runs on each new server connection before its first use."
    )
    client_encoding: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="client_encoding that server connections start with."
    )
    datestyle: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="DateStyle that server connections start with."
    )
    timezone: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="TimeZone that server connections start with."
    )
    application_name: str | None = setting(
        None, kind=Kind.OPTIONAL_TEXT, meaning="application_name that server connections start with."
    )

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts in their order; empty where the Unix socket in unix_socket_dir is meant."""
        return tuple(part for part in (p.strip() for p in (self.host or "").split(",")) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class UserSettings:
    """One entry of [users]; None means "not set here"."""

    name: str
    pool_size: int | None = setting(None, kind=Kind.INT, unset_below=0, meaning="Pool size of this user's pools.")
    reserve_pool_size: int | None = setting(
        None, kind=Kind.INT, unset_below=0, meaning="reserve_pool_size of this user's pools."
    )
    pool_mode: str | None = setting(None, kind=Kind.ENUM, choices=POOL_MODES, meaning="pool_mode of this user.")
    max_user_connections: int | None = setting(
        None, kind=Kind.INT, unset_below=1, meaning="max_user_connections of this user; 0: the global limit."
    )
    max_user_client_connections: int | None = setting(
        None, kind=Kind.INT, unset_below=1, meaning="max_user_client_connections of this user; 0: the global limit."
    )
    query_timeout: float | None = setting(
        None, kind=Kind.TIME, meaning="query_timeout of this user; 0: the global value."
    )
    query_wait_timeout: float | None = setting(
        None, kind=Kind.TIME, unset_below=0, meaning="query_wait_timeout of this user; 0: wait for ever."
    )
    idle_transaction_timeout: float | None = setting(
        None, kind=Kind.TIME, meaning="idle_transaction_timeout of this user; 0: the global value."
    )
    transaction_timeout: float | None = setting(
        None, kind=Kind.TIME, meaning="transaction_timeout of this user; 0: the global value."
    )
    client_idle_timeout: float | None = setting(
        None, kind=Kind.TIME, meaning="client_idle_timeout of this user; 0: the global value."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerSettings:
    """One entry of [peers]: another process of the same group."""

    peer_id: int
    host: str | None = setting(None, kind=Kind.OPTIONAL_TEXT, meaning="Address of the peer, or folder of its socket.")
    port: int = setting(6432, kind=Kind.INT, minimum=1, maximum=65535, meaning="Port of the peer.")
    pool_size: int | None = setting(
        None, kind=Kind.INT, unset_below=0, meaning="Connections to the peer; unset: default_pool_size."
    )


DATABASE_SETTINGS: Final = catalogue(DatabaseSettings)
USER_SETTINGS: Final = catalogue(UserSettings)
PEER_SETTINGS: Final = catalogue(PeerSettings)
