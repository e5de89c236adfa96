"""How the pooler proves itself to PostgreSQL: passwords from the files, and what clients have shown at their own logins.

A forced user's credentials come from the files alone; no client's proof ever touches them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgweir.protocol.auth.scram import ScramKeys
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.session.holder import SessionPool

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler


class Credentials:
    """How the pooler logs in to the servers of one pool."""

    __slots__ = ("password", "scram_keys")

    def __init__(self, password: str | None = None, scram_keys: ScramKeys | None = None) -> None:
        self.password = password
        self.scram_keys = scram_keys


class ServerCredentials:
    """What is known of every pool's user."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._known: dict[tuple[str, str], Credentials] = {}  # by database and pool user

    def learn(self, pool: SessionPool, password: str | None, scram_keys: ScramKeys | None) -> None:
        """Remember how a client proved itself, where that is also how its pool logs in."""
        known = self._known.setdefault((pool.database, pool.user), Credentials())
        if password is not None:
            known.password = password
        if scram_keys is not None:
            known.scram_keys = scram_keys

    def authentication(self, pool: SessionPool) -> ServerAuthentication:
        known = self._known.get((pool.database, pool.user)) or Credentials()
        password = self._pooler.config.server_password(pool.database, pool.user)
        if password is None:
            password = known.password
        return ServerAuthentication(
            pool.user,
            password=password,
            scram_keys=known.scram_keys,
            random=self._pooler.edge.random,
            cache=self._pooler.scram_cache,
        )

    def forget_database(self, name: str) -> None:
        for key in [key for key in self._known if key[0] == name]:
            del self._known[key]
