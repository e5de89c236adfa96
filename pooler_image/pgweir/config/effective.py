"""Config: what all files said, frozen, and which value wins.

Where a setting can be given globally, per database and per user, Config alone knows the precedence. It reads
nothing and never changes; `loading` makes it, sessions, pool, console and metrics ask it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeVar

from pgweir.hba import HbaRule, IdentEntry
from pgweir.ldap import LdapOptions
from pgweir.settings import SETTINGS, DatabaseSettings, PeerSettings, Settings, UserSettings

CONSOLE_DATABASE: Final = "pgbouncer"
TEMPLATE: Final = "*"

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    settings: Settings = field(default_factory=Settings)
    databases: Mapping[str, DatabaseSettings] = field(default_factory=dict)  # without the template
    template: DatabaseSettings | None = None  # the entry `*`
    users: Mapping[str, UserSettings] = field(default_factory=dict)
    peers: Mapping[int, PeerSettings] = field(default_factory=dict)
    userlist: Mapping[str, str] = field(default_factory=dict, repr=False)  # name -> secret
    hba: tuple[HbaRule, ...] = ()
    ident: Mapping[str, tuple[IdentEntry, ...]] = field(default_factory=dict)
    ldap: LdapOptions | None = None  # of auth_type ldap; an HBA rule has its own
    digest: str = ""  # SHA-256 over all files read
    file_digests: Mapping[str, str] = field(default_factory=dict)  # TLS setting -> SHA-256 of the file it names
    warnings: tuple[str, ...] = ()
    base_dir: Path | None = None

    # Which database and user a client means

    def database(self, name: str) -> DatabaseSettings | None:
        """The entry for the database a client asks for, `dbname` filled in; made from the template if need be."""
        found = self.databases.get(name)
        if found is not None or self.template is None or name == CONSOLE_DATABASE:
            return found
        return replace(self.template, name=name, dbname=self.template.dbname or name)

    def server_password(self, database: str, user: str) -> str | None:
        """What a server login as `user` goes by: a forced user's own password, else the secret in auth_file."""
        entry = self.database(database)
        if entry is not None and entry.password is not None and entry.user == user:
            return entry.password
        return self.userlist.get(user)

    def file(self, name: str) -> Path:
        """Where a file named in a setting lies."""
        return (self.base_dir or Path()) / name

    def tls_identity(self, side: Literal["client", "server"]) -> str:
        """Differs between two configurations exactly when the TLS settings of that side, or their files, do."""
        prefix = f"{side}_tls"
        parts = [f"{name}={getattr(self.settings, name)!r}" for name in SETTINGS if name.startswith(prefix)]
        parts += [f"{name}:{digest}" for name, digest in sorted(self.file_digests.items()) if name.startswith(prefix)]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    # Which value wins. `user` is the user whose pool it is: the forced one where the entry has one, else the client's.
    # A size or limit of 0 means "no limit" where the setting says so; these functions only choose.

    def pool_mode(self, database: str, user: str) -> str:
        return self._of_user(user).pool_mode or self._of_database(database).pool_mode or self.settings.pool_mode

    def pool_size(self, database: str, user: str) -> int:
        return _first(
            self._of_user(user).pool_size, self._of_database(database).pool_size, self.settings.default_pool_size
        )

    def reserve_pool_size(self, database: str, user: str) -> int:
        return _first(
            self._of_user(user).reserve_pool_size,
            self._of_database(database).reserve_pool_size,
            self.settings.reserve_pool_size,
        )

    def min_pool_size(self, database: str) -> int:
        return _first(self._of_database(database).min_pool_size, self.settings.min_pool_size)

    def max_db_connections(self, database: str) -> int:
        return _first(self._of_database(database).max_db_connections, self.settings.max_db_connections)

    def max_db_client_connections(self, database: str) -> int:
        return _first(self._of_database(database).max_db_client_connections, self.settings.max_db_client_connections)

    def max_user_connections(self, user: str) -> int:
        return _first(self._of_user(user).max_user_connections, self.settings.max_user_connections)

    def max_user_client_connections(self, user: str) -> int:
        return _first(self._of_user(user).max_user_client_connections, self.settings.max_user_client_connections)

    def query_wait_timeout(self, database: str, user: str) -> float:
        """0: wait for ever."""
        return _first(
            self._of_user(user).query_wait_timeout,
            self._of_database(database).query_wait_timeout,
            self.settings.query_wait_timeout,
        )

    # For the following, 0 in an entry means "not set", as in PgBouncer.

    def server_lifetime(self, database: str) -> float:
        if database in self.settings.uncached_databases:
            return 0.0
        return self._of_database(database).server_lifetime or self.settings.server_lifetime

    def query_timeout(self, user: str) -> float:
        return self._of_user(user).query_timeout or self.settings.query_timeout

    def idle_transaction_timeout(self, user: str) -> float:
        return self._of_user(user).idle_transaction_timeout or self.settings.idle_transaction_timeout

    def transaction_timeout(self, user: str) -> float:
        return self._of_user(user).transaction_timeout or self.settings.transaction_timeout

    def client_idle_timeout(self, user: str) -> float:
        return self._of_user(user).client_idle_timeout or self.settings.client_idle_timeout

    def auth_user(self, database: str) -> str | None:
        return self._of_database(database).auth_user or self.settings.auth_user

    def auth_query(self, database: str) -> str:
        return self._of_database(database).auth_query or self.settings.auth_query

    def auth_dbname(self, database: str) -> str:
        """Name of the entry in which the look-up runs: the database itself where nothing else is said."""
        return self._of_database(database).auth_dbname or self.settings.auth_dbname or database

    def target_session_attrs(self, database: str) -> str:
        return self._of_database(database).target_session_attrs or self.settings.target_session_attrs

    def load_balance_hosts(self, database: str) -> str:
        return self._of_database(database).load_balance_hosts or "round-robin"

    def _of_database(self, name: str) -> DatabaseSettings:
        return self.databases.get(name) or self.template or _NO_DATABASE

    def _of_user(self, name: str) -> UserSettings:
        return self.users.get(name) or _NO_USER


_NO_DATABASE: Final = DatabaseSettings(name="")
_NO_USER: Final = UserSettings(name="")


def _first(*values: Number | None) -> Number:
    """The first one that is set; the last one, which is global, always is."""
    for value in values:  # PERF: at every login; a generator takes four times as long
        if value is not None:
            return value
    raise AssertionError("a global setting has no value")
