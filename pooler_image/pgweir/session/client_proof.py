"""Who a client is: the method that auth_type or the HBA file asks for, its stored secret, and its proof.

`ClientLogin` makes one when the startup packet is in, hands on what the client sends, and is told `proved` or `refuse`.
A look-up, PBKDF2 and a directory take time, and in a storm of logins so does its turn: meanwhile what the client sends is
kept, up to a bound, and not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pgweir.hba import ident_allows, match_hba
from pgweir.ldap import LdapAccepted, LdapFailed, LdapOptions, LdapOutcome, LdapRefused
from pgweir.protocol import messages
from pgweir.protocol.auth.auth_query import AuthQueryOutcome, Found, LookupFailed
from pgweir.protocol.auth.client_auth import (
    Answer,
    ClientAuthentication,
    ClientAuthMethod,
    Continue,
    PasswordSent,
    Succeeded,
    asks_nothing,
)
from pgweir.protocol.auth.heavy import HeavyStep
from pgweir.protocol.errors import (
    ClientError,
    ProtocolError,
    certificate_authentication_failed,
    client_error,
    hba_rejects,
    ldap_authentication_failed,
    no_hba_entry,
    peer_authentication_failed,
)
from pgweir.protocol.reader import MessageReader
from pgweir.session.client import HELD_LIMIT
from pgweir.session.database import Database

if TYPE_CHECKING:
    from pgweir.session.client_login import ClientLogin

log = logging.getLogger(__name__)

# How HBA and auth_type name a method, and what the exchange is then.
_EXCHANGES: Final[dict[str, ClientAuthMethod]] = {
    "trust": "trust",
    "any": "any",
    "plain": "plain",
    "password": "plain",
    "md5": "md5",
    "scram-sha-256": "scram-sha-256",
    "ldap": "ldap",
    # The proof is there already: the peer of the socket, the certificate of the handshake.
    "peer": "any",
    "cert": "any",
}
_WITHOUT_LOOKUP: Final = ("any", "ldap")
_NOTHING_ASKED: Final = Succeeded()
_PASSWORD: Final = messages.F.PASSWORD


class ClientProof:
    """One client's proof. `reader` has what came behind the startup packet; `database` is None for an unknown one and for
    the console: then nothing is looked up, and the exchange is the full one all the same."""

    __slots__ = (
        "_authentication",
        "_busy",
        "_database",
        "_exchange",
        "_has_turn",
        "_is_paused",
        "_ldap",
        "_login",
        "_looked_up_secret",
        "_looking_up",
        "_pooler",
        "_reader",
        "secret",
    )

    def __init__(self, login: ClientLogin, database: Database | None, reader: MessageReader) -> None:
        self.secret: str | None = None
        self._login = login
        self._pooler = login.pooler
        self._database = database
        self._reader = reader
        self._ldap: LdapOptions | None = None
        self._exchange: ClientAuthMethod | None = None
        self._authentication: ClientAuthentication | None = None
        self._busy = False  # a look-up, heavy work, a directory or its turn is being waited for
        self._has_turn = False
        self._looking_up = False
        self._looked_up_secret = False  # the secret is an answer of auth_query
        self._is_paused = False  # so much has come meanwhile that the client is not read

    def begin(self) -> None:
        """Raises ClientError; later errors go to the login's `refuse`."""
        pooler, database = self._pooler, self._database
        method = self._method()
        self._exchange = _EXCHANGES.get(method)
        if self._exchange is None:
            raise client_error("bouncer config error", stage="hba")
        self.secret = pooler.config.userlist.get(self._login.user)
        if (
            not self.secret
            and method not in _WITHOUT_LOOKUP
            and database is not None
            and pooler.lookups.way(database.name).auth_user
        ):
            self._busy = self._looking_up = True
            pooler.lookups.ask(database, self._login.user, self._looked_up)
            return
        self._start("password")

    def failed(self) -> None:
        """The login is refused. A secret that was looked up may be an old one."""
        if self._looked_up_secret and self._database is not None:
            self._pooler.lookups.forget(self._database.name, self._login.user)

    @property
    def is_held_by_pause(self) -> bool:
        """It waits for a look-up, and the servers for that are paused."""
        return self._looking_up and self._database is not None and self._pooler.lookups.is_paused(self._database)

    def data_received(self, data: bytes) -> None:
        """Raises ClientError."""
        authentication = self._authentication
        if not self._busy and authentication is not None:
            body = self._reader.only(data, _PASSWORD)
            if body is not None and self._pooler.turns.take():
                # PERF: what nearly every read of a login is; the rest of this method is for the others.
                self._answer(authentication.receive(_PASSWORD, body))
                return
        incoming = self._reader.feed(data)
        if self._busy:
            if len(self._reader.rest) > HELD_LIMIT and not self._is_paused:
                self._is_paused = True
                self._login.wire.pause_reading()
            return
        if not self._reader.rest:
            return
        if not self._has_turn and not self._pooler.turns.take():
            self._busy = True
            self._pooler.turns.wait(self._turn_has_come)
            return
        self._has_turn = False
        login = self._login
        for type_, body in incoming:
            if type_ == messages.F.TERMINATE:
                login.leave()
                return
            if authentication is None:
                raise client_error("client password pkt before startup packet", stage="password")
            self._answer(authentication.receive(type_, body))
            if login.is_proved or self._busy:
                return

    # --- which method, and whether it is fulfilled already -----------------------------------------------------------

    def _method(self) -> str:
        """auth_type, or what the first HBA line that fits says. Raises ClientError where that says no."""
        login, config = self._login, self._pooler.config
        origin, tls = login.origin, login.tls
        method = config.settings.auth_type
        self._ldap = config.ldap
        ident_map = None
        if method == "hba":
            rule = match_hba(
                config.hba,
                transport="unix" if origin.is_unix else "tcp",
                tls=tls is not None,
                address=origin.address,
                database=login.database_name,
                user=login.user,
                replication=login.wants_physical_replication,
            )
            whence = (origin.address, login.user, login.database_name, tls is not None)
            if rule is None:
                raise no_hba_entry(*whence)
            if rule.method == "reject":
                raise hba_rejects(*whence)
            method, ident_map, self._ldap = rule.method, rule.map, rule.ldap
        if method == "peer" and not self._is_named(origin.peer_user, ident_map):
            raise peer_authentication_failed(login.user, f"the peer of the socket is {origin.peer_user!r}")
        if method == "cert":
            name = tls.common_name if tls is not None else None
            if not self._is_named(name, ident_map):
                raise certificate_authentication_failed(login.user, f"the certificate's common name is {name!r}")
        return method

    def _is_named(self, system_user: str | None, ident_map: str | None) -> bool:
        maps, user = self._pooler.config.ident, self._login.user
        return system_user is not None and ident_allows(maps, ident_map, system_user=system_user, user=user)

    # --- the secret, looked up -----------------------------------------------------------------------------------------

    def _looked_up(self, outcome: AuthQueryOutcome) -> None:
        """One answer may be for hundreds."""
        self._looking_up = False
        if self._pooler.turns.take():
            self._take_secret(outcome)
        else:
            self._pooler.turns.wait(lambda: self._take_secret(outcome))

    def _take_secret(self, outcome: AuthQueryOutcome) -> None:
        if self._login.is_over:
            return
        try:
            if isinstance(outcome, LookupFailed):
                log.warning("%s error in auth_query: %s", self._login.name(), outcome.message)
                raise client_error("bouncer config error", stage="auth_query")
            if isinstance(outcome, Found):
                self.secret = outcome.secret
                self._looked_up_secret = True
            self._start("auth_query")
        except (ClientError, ProtocolError) as error:
            self._refuse(error)

    # --- the exchange --------------------------------------------------------------------------------------------------

    def _start(self, stage: str) -> None:
        pooler, login, exchange = self._pooler, self._login, self._exchange
        assert exchange is not None
        if asks_nothing(exchange, self.secret is not None):
            if pooler.turns.take():
                self._succeed(_NOTHING_ASKED)
            else:
                self._busy = True
                pooler.turns.wait(lambda: self._goes_on(lambda: _NOTHING_ASKED))
            return
        authentication = self._authentication = ClientAuthentication(
            exchange,
            user=login.user,
            secret=self.secret,
            random=pooler.cancels.random,
            mock_key=pooler.mock_key,
            scram_iterations=pooler.settings.scram_iterations,
            cache=pooler.scram_cache,
            stage=stage,
        )
        login.wire.write(authentication.start())
        self._free()

    def _succeed(self, proof: Succeeded) -> None:
        """WHY read on first: from here on the wire is the session's, which does not know that it is not read."""
        if self._is_paused:
            self._is_paused = False
            self._login.wire.resume_reading()
        self._login.proved(proof)

    def _answer(self, answer: Answer | HeavyStep[Answer]) -> None:
        # PERF: `match` asks these classes what their attributes are called, each time.
        if isinstance(answer, Continue):
            self._login.wire.write(answer.data)
        elif isinstance(answer, Succeeded):
            if answer.data:
                self._login.wire.write(answer.data)
            self._succeed(answer)
        elif isinstance(answer, PasswordSent):
            self._ask_directory(answer.password)
        else:
            self._wait_for(answer)

    def _wait_for(self, step: HeavyStep[Answer]) -> None:
        self._busy = True
        self._pooler.edge.compute(step.run, lambda result: self._goes_on(lambda: step.resume(result)))

    def _ask_directory(self, password: str) -> None:
        if self._ldap is None:
            raise client_error("bouncer config error", stage="ldap")
        user = self._login.user

        def judged(outcome: LdapOutcome) -> Answer:
            match outcome:
                case LdapAccepted():
                    return Succeeded(password=password)
                case LdapRefused(reason):
                    raise ldap_authentication_failed(user, reason)
                case LdapFailed(reason):
                    log.warning("%s LDAP server: %s", self._login.name(), reason)
                    raise ldap_authentication_failed(user, reason)

        self._busy = True
        self._pooler.edge.ask_ldap(self._ldap, user, password, lambda outcome: self._goes_on(lambda: judged(outcome)))

    def _goes_on(self, resume: Callable[[], Answer | HeavyStep[Answer]]) -> None:
        """What was waited for is there."""
        if self._login.is_over:
            return
        self._busy = False
        try:
            self._answer(resume())
            if not self._busy and not self._login.is_proved:
                self._free()
        except (ClientError, ProtocolError) as error:
            self._refuse(error)

    def _turn_has_come(self) -> None:
        if self._login.is_over:
            return
        self._has_turn = True
        try:
            self._free()
        except (ClientError, ProtocolError) as error:
            self._refuse(error)

    def _refuse(self, error: ClientError | ProtocolError) -> None:
        if isinstance(error, ProtocolError):
            error = ClientError(error.sqlstate, error.message, stage="password")
        self._login.refuse(error)

    def _free(self) -> None:
        """Read on, beginning with what came meanwhile."""
        self._busy = False
        if self._is_paused:
            self._is_paused = False
            self._login.wire.resume_reading()
        if not self._reader.is_empty:
            self.data_received(b"")
