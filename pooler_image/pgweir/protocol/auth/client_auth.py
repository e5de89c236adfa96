"""A client proves who it is: one object per login, messages in, answers out.

Whatever is wrong with the user (unknown, no secret, a secret of the wrong kind), the exchange is the full one and ends
in the ordinary failure, with PostgreSQL's words and 28P01; the true cause is in the error's `reason`, for our log.
Certificates, HBA and the look-up of the secret come before this and are not its business. session/client drives it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.heavy import HeavyStep
from pgweir.protocol.auth.md5 import md5_response, md5_secret
from pgweir.protocol.auth.secrets import SecretKind, secret_kind
from pgweir.protocol.errors import (
    INVALID_PASSWORD,
    PROTOCOL_VIOLATION,
    ClientError,
    ProtocolError,
    client_error,
    password_authentication_failed,
)

_T = TypeVar("_T")
ClientAuthMethod = Literal["trust", "any", "plain", "md5", "scram-sha-256", "ldap"]
METHODS: Final[tuple[ClientAuthMethod, ...]] = ("trust", "any", "plain", "md5", "scram-sha-256", "ldap")


# PERF: not frozen: that makes one of these three times as dear, and a login has three.
@dataclass(slots=True)
class Continue:
    """Send `data` and wait for the client's next message."""

    data: bytes


@dataclass(slots=True)
class Succeeded:
    """Send `data` (it may be empty), then AuthenticationOk and the rest of the greeting.

    `scram_keys`: the client proved itself against a stored SCRAM secret, and these log in to a server that has the
    same one. `password`: the client sent its password itself.
    """

    data: bytes = b""
    scram_keys: scram.ScramKeys | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PasswordSent:
    """Somebody else judges this password (ldap): the session asks there."""

    password: str = field(repr=False)


Answer = Continue | Succeeded | PasswordSent


def asks_nothing(method: ClientAuthMethod, *, known: bool) -> bool:
    """Whether the client is in without a word (trust, any). Raises ClientError for one that trust does not know."""
    if method == "trust" and not known:
        raise client_error('"trust" authentication failed', stage="password")
    return method == "trust" or method == "any"


_SASL: Final = messages.authentication_sasl([scram.MECHANISM])


class ClientAuthentication:
    """`start` gives the request to send; b"" means that nothing is asked and the client is in (trust, any).

    `receive` answers what comes next, or the work after which that is known. `secret` is None for an unknown user and ""
    for one without a password; `stage` is where it was looked for, for the log. `random` gives that many random bytes;
    `mock_key` is a random key of this process. `cache` keeps the keys of plain secrets over logins.
    """

    __slots__ = (
        "_cache",
        "_exchange",
        "_iterations",
        "_kind",
        "_known",
        "_method",
        "_mock_key",
        "_random",
        "_receive",
        "_salt",
        "_secret",
        "_stage",
        "_user",
    )

    def __init__(
        self,
        method: ClientAuthMethod,
        *,
        user: str,
        secret: str | None,
        random: Callable[[int], bytes],
        mock_key: bytes,
        scram_iterations: int = scram.DEFAULT_ITERATIONS,
        cache: scram.ScramCache | None = None,
        stage: str = "password",
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown authentication method {method!r}: one of {', '.join(METHODS)} is expected")
        self._method = method
        self._user = user
        self._secret = secret or ""
        self._known = secret is not None
        self._kind = secret_kind(self._secret)
        self._random = random
        self._mock_key = mock_key
        self._iterations = scram_iterations
        self._cache = cache if cache is not None else scram.ScramCache()
        self._stage = stage
        self._salt = b""
        self._exchange: scram.ScramServer | None = None
        self._receive: Callable[[bytes], Answer | HeavyStep[Answer]] | None = None

    def __repr__(self) -> str:
        return f"ClientAuthentication({self._method}, user={self._user!r}, secret={self._kind})"

    def start(self) -> bytes:
        """The request to send; call it once, before anything is received."""
        if asks_nothing(self._method, known=self._known):
            return b""
        if self._method in ("plain", "ldap"):
            self._receive = self._cleartext if self._method == "plain" else self._elsewhere
            return messages.authentication_cleartext()
        # WHY: an unknown user under md5 gets a SCRAM mock, as in PostgreSQL with its default password_encryption:
        # an md5 challenge would tell strangers from the users of today, whose secrets are SCRAM.
        if self._method == "md5" and self._kind in (SecretKind.PLAIN, SecretKind.MD5):
            self._receive = self._md5
            self._salt = self._random(4)
            return messages.authentication_md5(self._salt)
        self._receive = self._sasl_initial
        return _SASL

    def receive(self, type_: int, body: bytes) -> Answer | HeavyStep[Answer]:
        """The client's next message; ClientError, whatever is wrong with it."""
        receive, self._receive = self._receive, None
        if receive is None:
            raise client_error("client password pkt before startup packet", stage="password")
        if type_ != messages.F.PASSWORD:
            text = f"expected password response, got message type {type_}"
            raise ClientError(PROTOCOL_VIOLATION, text, stage="password")
        answer = _blamed(receive, body)
        if isinstance(answer, HeavyStep):
            return HeavyStep(answer.run, lambda result: _blamed(answer.resume, result))
        return answer

    # --- cleartext and md5 ------------------------------------------------------------------------

    def _elsewhere(self, body: bytes) -> PasswordSent:
        return PasswordSent(self._sent_password(body))

    def _cleartext(self, body: bytes) -> Answer | HeavyStep[Answer]:
        """Heavy where the secret is SCRAM, and after every failure: so that a failure takes equally long for a wrong
        password and for an unknown user, whatever is stored."""
        password = self._sent_password(body)
        if (self._kind is SecretKind.PLAIN and _equal(password, self._secret)) or (
            self._kind is SecretKind.MD5 and _equal(md5_secret(self._user, password), self._secret)
        ):
            return Succeeded(password=password)
        stored = scram.parse_verifier(self._secret)
        if stored is not None and stored.iterations > scram.MAX_ITERATIONS:
            raise self._failure(
                f"the stored secret asks for {stored.iterations} SCRAM iterations, "
                f"more than {scram.MAX_ITERATIONS} are refused"
            )
        verifier = stored or self._mock_verifier()

        def judged(matches: bool) -> Answer:
            if stored is None or not matches:
                raise self._failure()
            return Succeeded(password=password)

        return HeavyStep(lambda: scram.password_matches(password, verifier), judged)

    def _md5(self, body: bytes) -> Succeeded:
        answer = self._sent_password(body)
        stored = self._secret if self._kind is SecretKind.MD5 else md5_secret(self._user, self._secret)
        if not _equal(answer, md5_response(stored, self._salt)):
            raise self._failure()
        return Succeeded()

    def _sent_password(self, body: bytes) -> str:
        password = messages.parse_password(body)
        if not password:
            raise ClientError(INVALID_PASSWORD, "empty password returned by client", stage="password")
        return password

    # --- SCRAM ------------------------------------------------------------------------------------

    def _sasl_initial(self, body: bytes) -> Answer | HeavyStep[Answer]:
        mechanism, data = messages.parse_sasl_initial_response(body)
        if mechanism != scram.MECHANISM:
            raise client_error("client selected an invalid SASL authentication mechanism", stage="password")
        if data is None:
            # Allowed by the protocol: the client wants an empty challenge before it speaks.
            self._receive = self._sasl_first
            return Continue(messages.authentication_sasl_continue(b""))
        return self._sasl_first(data)

    def _sasl_first(self, data: bytes) -> Answer | HeavyStep[Answer]:
        verifier = self._verifier()
        if isinstance(verifier, HeavyStep):
            return verifier.then(lambda made: self._challenge(made, data))
        return self._challenge(verifier, data)

    def _challenge(self, verifier: scram.Verifier, data: bytes) -> Answer:
        exchange = self._exchange = scram.ScramServer(verifier, scram.make_nonce(self._random))
        self._receive = self._sasl_final
        return Continue(messages.authentication_sasl_continue(exchange.first(data)))

    def _sasl_final(self, data: bytes) -> Succeeded:
        exchange = self._exchange
        assert exchange is not None
        proved = exchange.final(data)
        if proved is None:
            raise self._failure("SASL authentication failed")
        answer, keys = proved
        # Keys of an ad hoc verifier open no server: its salt is ours alone.
        stored = self._kind is SecretKind.SCRAM
        return Succeeded(messages.authentication_sasl_final(answer), keys if stored else None)

    def _verifier(self) -> scram.Verifier | HeavyStep[scram.Verifier]:
        if self._kind is not SecretKind.PLAIN:
            return scram.parse_verifier(self._secret) or self._mock_verifier()
        salt = scram.salt_of(self._user, self._mock_key)
        keys = self._cache.keys(self._secret, salt, self._iterations)
        if isinstance(keys, HeavyStep):
            return keys.then(lambda found: scram.verifier_of(found, salt, self._iterations))
        return scram.verifier_of(keys, salt, self._iterations)

    def _mock_verifier(self) -> scram.Verifier:
        return scram.mock_verifier(self._user, self._mock_key, self._iterations)

    def _failure(self, reason: str = "password authentication failed") -> ClientError:
        """One text for the client; for the log, what it was, and who knew."""
        stage = "password"
        if not self._known:
            reason, stage = f"{reason} (no such user)", self._stage
        elif self._kind is SecretKind.EMPTY:
            reason = f"{reason} (the user has no password)"
        elif self._kind is SecretKind.MD5 and self._method == "scram-sha-256":
            reason = f"{reason} (the stored secret is md5: it cannot serve SCRAM)"
        return password_authentication_failed(self._user, reason, stage)


def _blamed(receive: Callable[[Any], _T], received: Any) -> _T:
    """What the client has sent wrongly is the client's fault, and at this stage."""
    try:
        return receive(received)
    except ProtocolError as error:
        raise ClientError(error.sqlstate, error.message, stage="password") from None


def _equal(left: str, right: str) -> bool:
    return hmac.compare_digest(messages.encode(left), messages.encode(right))
