"""How the pooler proves itself to PostgreSQL: passwords from the files, and what clients have shown at their own logins.

What a client showed gets stale: its password is changed, or only its salt (CloudNativePG sets all passwords anew when it
promotes a replica). PostgreSQL then refuses the next server login (28P01), and `refused` looks the secret up again:

- It is what the client proved itself against: PostgreSQL and the store disagree, and those who wait are told so.
- It is one that opens the server by itself (plain, md5): it is used.
- It is a new SCRAM verifier: nobody can log in with that alone. No server is tried before a client has logged in with
  the new password. So that one does, the client that has waited longest is asked to connect again (57P01), one each second;
  all others go on waiting, and on the servers that are there.

A forced user's credentials come from the files alone; no client's proof ever touches them.

PERF: compiled where that is possible (`pgweir.compiled`): every login teaches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgweir.protocol.auth.auth_query import AuthQueryOutcome, Found, LookupFailed
from pgweir.protocol.auth.scram import ScramKeys
from pgweir.protocol.auth.secrets import SecretKind, secret_kind
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ADMIN_SHUTDOWN, INVALID_PASSWORD
from pgweir.protocol.reasons import CloseReason
from pgweir.session.client import ClientSession
from pgweir.session.holder import SessionPool

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler
    from pgweir.session.server import ServerSession

ASK_EVERY: Final = 1.0  # seconds between two clients that are asked to connect again
_OPENS: Final = (SecretKind.PLAIN, SecretKind.MD5)  # stored secrets that a server login can be made with

_Key = tuple[str, str]  # database and pool user


class Credentials:
    """What clients of one user have shown. `stale`: the secret has changed, and none has shown the new one yet. Nobody
    changes it."""

    __slots__ = ("password", "scram_keys", "secret", "stale")

    def __init__(
        self,
        password: str | None = None,
        scram_keys: ScramKeys | None = None,
        secret: str | None = None,  # the stored secret that was proved
        stale: bool = False,
    ) -> None:
        self.password = password
        self.scram_keys = scram_keys
        self.secret = secret
        self.stale = stale

    def is_like(self, password: str | None, scram_keys: ScramKeys | None, secret: str | None) -> bool:
        return self.secret == secret and not self.stale and self.password == password and self.scram_keys == scram_keys


_NOTHING: Final = Credentials()


class ServerCredentials:
    """What is known of every pool's user."""

    __slots__ = ("_asked_at", "_known", "_pooler", "_renewing")

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._known: dict[_Key, Credentials] = {}
        self._renewing: set[_Key] = set()
        self._asked_at: dict[_Key, float] = {}

    def learn(self, pool: SessionPool, password: str | None, scram_keys: ScramKeys | None, secret: str | None) -> None:
        """Remember how a client proved itself against this stored secret, where that is also how its pool logs in."""
        key = pool.database, pool.user
        old = self._known.get(key, _NOTHING)
        if old.is_like(password, scram_keys, secret):
            return  # PERF: as at nearly every login
        if scram_keys is None and secret_kind(password or "") not in _OPENS and old is not _NOTHING:
            return  # nothing that opens a server
        new = Credentials(
            old.password if password is None else password,
            old.scram_keys if scram_keys is None else scram_keys,
            old.secret if secret is None else secret,
        )
        if old.is_like(new.password, new.scram_keys, new.secret):
            return
        self._known[key] = new
        self._try_again(key)

    def authentication(self, server: ServerSession) -> ServerAuthentication:
        """The pooler's side of this server's login."""
        pool = server.pool
        password = self._pooler.config.server_password(pool.database, pool.user)
        known = self._known.get((pool.database, pool.user), _NOTHING)
        if secret_kind(password or "") not in _OPENS:
            server.credentials = known
        return ServerAuthentication(
            pool.user,
            password=known.password if password is None else password,
            scram_keys=known.scram_keys,
            random=self._pooler.edge.random,
            cache=self._pooler.scram_cache,
        )

    def forget_database(self, name: str) -> None:
        for key in [key for key in self._known if key[0] == name]:
            del self._known[key]

    # --- a password that PostgreSQL refuses ------------------------------------------------------------------------------

    def refused(self, server: ServerSession) -> bool:
        """PostgreSQL refused this server's login. True: that may heal, and those who wait are not told."""
        key = server.pool.database, server.pool.user
        used = server.credentials
        if used is None or used.secret is None:
            return False
        if self._known.get(key) is not used:
            self._try_again(key)  # a client has shown something newer meanwhile
            return True
        if key in self._renewing:
            return True
        in_file = self._pooler.config.userlist.get(key[1])
        if in_file:
            return self._renewed(key, used, in_file)
        database = self._pooler.databases.get(key[0])
        if database is None or self._pooler.config.auth_user(database.name) is None:
            return False
        self._renewing.add(key)
        self._pooler.lookups.ask(database, key[1], lambda outcome: self._looked_up(key, used, outcome), anew=True)
        return True

    def _looked_up(self, key: _Key, used: Credentials, outcome: AuthQueryOutcome) -> None:
        self._renewing.discard(key)
        if self._known.get(key) is not used or isinstance(outcome, LookupFailed):
            return  # renewed by a client meanwhile; or asked again after the next refusal
        if self._renewed(key, used, outcome.secret if isinstance(outcome, Found) else None):
            return
        for pool in self._pools(key):
            if pool.failed_at is not None and pool.failure_sqlstate == INVALID_PASSWORD:
                self._pooler.opening.refuse_waiting(pool)

    def _renewed(self, key: _Key, used: Credentials, secret: str | None) -> bool:
        """What the store says now, after a refusal; False: nothing else than before."""
        if secret is None or secret == used.secret:
            return False
        if secret_kind(secret) in _OPENS:
            self._known[key] = Credentials(secret, None, secret)
            self._try_again(key)
        else:
            self._known[key] = Credentials(secret=secret, stale=True)
            for pool in self._pools(key):
                self.ask_for_new(pool)
        return True

    def lost(self, pool: SessionPool) -> bool:
        """No server login can succeed before a client has shown the new password."""
        known = self._known.get((pool.database, pool.user))
        if known is None or not known.stale:
            return False
        return secret_kind(self._pooler.config.server_password(pool.database, pool.user) or "") not in _OPENS

    def ask_for_new(self, pool: SessionPool) -> None:
        """Of those who wait for a password that only a client can show, ask the first to connect again. Now and then."""
        if not self.lost(pool) or pool.paused:
            return
        key = pool.database, pool.user
        now = self._pooler.clock()
        if now - self._asked_at.get(key, float("-inf")) < ASK_EVERY:
            return
        for holder in (*pool.waiting, *pool.waiting_login):
            if isinstance(holder, ClientSession):
                self._asked_at[key] = now
                reason = CloseReason.PASSWORD_CHANGED
                holder.disconnect(reason, reason.text, ADMIN_SHUTDOWN)
                return

    def _try_again(self, key: _Key) -> None:
        for pool in self._pools(key):
            if pool.failure_sqlstate == INVALID_PASSWORD:
                pool.forgive()
            self._pooler.opening.wake(pool)

    def _pools(self, key: _Key) -> list[SessionPool]:
        return [pool for pool in self._pooler.pools.values() if (pool.database, pool.user) == key]
