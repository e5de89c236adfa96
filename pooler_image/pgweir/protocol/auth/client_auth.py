"""A client proves who it is: one object per login, messages in, answers out.

Whatever is wrong with the user (unknown, no secret, a secret of the wrong kind), the exchange is the full one and ends
in the ordinary failure, with PostgreSQL's words and 28P01; the true cause is in the error's `reason`, for our log.
Certificates, HBA and the look-up of the secret come before this and are not its business. session/client drives it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pgweir.protocol import framing, messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.heavy import HeavyStep
from pgweir.protocol.auth.md5 import known_md5_secret, md5_response, md5_secret
from pgweir.protocol.auth.secrets import SecretKind, secret_kind
from pgweir.protocol.errors import (
    INVALID_PASSWORD,
    PROTOCOL_VIOLATION,
    ClientError,
    ProtocolError,
    client_error,
    password_authentication_failed,
)

ClientAuthMethod = Literal["trust", "any", "plain", "md5", "scram-sha-256", "ldap"]
METHODS: Final[tuple[ClientAuthMethod, ...]] = ("trust", "any", "plain", "md5", "scram-sha-256", "ldap")
_METHODS: Final = frozenset(METHODS)


# PERF: neither is a dataclass, which is interpreted: a login makes up to three of these.
class Continue:
    """Send `data` and wait for the client's next message."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Succeeded:
    """Send `data` (it may be empty), then AuthenticationOk and the rest of the greeting.

    `scram_keys`: the client proved itself against a stored SCRAM secret, and these log in to a server that has the
    same one. `password`: the client sent its password itself.
    """

    __slots__ = ("data", "password", "scram_keys")

    def __init__(
        self, data: bytes = b"", scram_keys: scram.ScramKeys | None = None, password: str | None = None
    ) -> None:
        self.data = data
        self.scram_keys = scram_keys
        self.password = password


@dataclass(frozen=True, slots=True)
class PasswordSent:
    """Somebody else judges this password (ldap): the session asks there."""

    password: str = field(repr=False)


Answer = Continue | Succeeded | PasswordSent


def asks_nothing(method: ClientAuthMethod, known: bool) -> bool:
    """Whether the client is in without a word (trust, any). Raises ClientError for one that trust does not know."""
    if method == "trust" and not known:
        raise client_error('"trust" authentication failed', stage="password")
    return method == "trust" or method == "any"


_SASL: Final = messages.authentication_sasl([scram.MECHANISM])
_MD5_REQUEST: Final = messages.authentication_md5(bytes(4))[:-4]  # up to the salt
_CHOSEN: Final = scram.MECHANISM.encode() + b"\0"  # as a client's first SASL message begins
_PASSWORD: Final = messages.F.PASSWORD
_is_same: Final = hmac.compare_digest
# PERF: a member of an enumeration costs a look-up in its class.
_EMPTY: Final = SecretKind.EMPTY
_PLAIN: Final = SecretKind.PLAIN
_MD5: Final = SecretKind.MD5
_SCRAM: Final = SecretKind.SCRAM

# What the client's next message is.
_UNASKED: Final = 0
_CLEARTEXT: Final = 1
_FOR_OTHERS: Final = 2  # cleartext, judged elsewhere
_MD5_ANSWER: Final = 3
_SASL_CHOICE: Final = 4  # the mechanism, and most often the first of SCRAM
_SASL_FIRST: Final = 5
_SASL_FINAL: Final = 6


class ClientAuthentication:
    """`start` gives the request to send; b"" means that nothing is asked and the client is in (trust, any).

    `receive` answers what comes next, or the work after which that is known. `secret` is None for an unknown user and ""
    for one without a password; `stage` is where it was looked for, for the log. `random` gives that many random bytes;
    `mock_key` is a random key of this process. `cache` keeps the keys of plain secrets over logins.
    """

    __slots__ = (
        "_cache",
        "_exchange",
        "_expects",
        "_iterations",
        "_kind",
        "_known",
        "_method",
        "_mock_key",
        "_random",
        "_salt",
        "_secret",
        "_stage",
        "_stored",
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
        if method not in _METHODS:
            raise ValueError(f"unknown authentication method {method!r}: one of {', '.join(METHODS)} is expected")
        self._method = method
        self._user = user
        self._secret = secret or ""
        self._known = secret is not None
        self._stored = scram.parse_verifier(self._secret)
        self._kind = secret_kind(self._secret) if self._stored is None else _SCRAM
        self._random = random
        self._mock_key = mock_key
        self._iterations = scram_iterations
        self._cache = cache if cache is not None else scram.ScramCache()
        self._stage = stage
        self._salt = b""
        self._exchange: scram.ScramServer | None = None
        self._expects = _UNASKED

    def __repr__(self) -> str:
        return f"ClientAuthentication({self._method}, user={self._user!r}, secret={self._kind})"

    def start(self) -> bytes:
        """The request to send; call it once, before anything is received."""
        if asks_nothing(self._method, self._known):
            return b""
        if self._method in ("plain", "ldap"):
            self._expects = _CLEARTEXT if self._method == "plain" else _FOR_OTHERS
            return messages.authentication_cleartext()
        # WHY: an unknown user under md5 gets a SCRAM mock, as in PostgreSQL with its default password_encryption:
        # an md5 challenge would tell strangers from the users of today, whose secrets are SCRAM.
        if self._method == "md5" and (self._kind is _PLAIN or self._kind is _MD5):
            self._expects = _MD5_ANSWER
            self._salt = self._random(4)
            return _MD5_REQUEST + self._salt
        self._expects = _SASL_CHOICE
        return _SASL

    def receive(self, type_: int, body: bytes) -> Answer | HeavyStep[Answer]:
        """The client's next message; ClientError, whatever is wrong with it."""
        expects, self._expects = self._expects, _UNASKED
        if expects == _UNASKED:
            raise client_error("client password pkt before startup packet", stage="password")
        if type_ != _PASSWORD:
            text = f"expected password response, got message type {type_}"
            raise ClientError(PROTOCOL_VIOLATION, text, stage="password")
        try:
            answer = self._judge(expects, body)
        except ProtocolError as error:
            raise _blamed(error) from None
        if isinstance(answer, HeavyStep):
            return _with_blame(answer)
        return answer

    def _judge(self, expects: int, body: bytes) -> Answer | HeavyStep[Answer]:
        if expects == _SASL_FINAL:
            return self._sasl_final(body)
        if expects == _SASL_CHOICE:
            return self._sasl_choice(body)
        if expects == _SASL_FIRST:
            return self._sasl_first(body)
        if expects == _MD5_ANSWER:
            return self._md5(body)
        if expects == _CLEARTEXT:
            return self._cleartext(messages.decode(_sent_password(body)))
        return PasswordSent(messages.decode(_sent_password(body)))

    # --- cleartext and md5 ------------------------------------------------------------------------

    def _cleartext(self, password: str) -> Answer | HeavyStep[Answer]:
        """Heavy where the secret is SCRAM, and after every failure: so that a failure takes equally long for a wrong
        password and for an unknown user, whatever is stored."""
        if (self._kind is _PLAIN and _equal(password, self._secret)) or (
            self._kind is _MD5 and _equal(md5_secret(self._user, password), self._secret)
        ):
            return Succeeded(password=password)
        stored = self._stored
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
        answer = _sent_password(body)
        stored = self._secret if self._kind is _MD5 else known_md5_secret(self._user, self._secret)
        if not _is_same(answer, md5_response(stored, self._salt).encode()):
            raise self._failure()
        return Succeeded()

    # --- SCRAM ------------------------------------------------------------------------------------

    def _sasl_choice(self, body: bytes) -> Answer | HeavyStep[Answer]:
        at = len(_CHOSEN)
        if len(body) > at + 4 and body.startswith(_CHOSEN):
            _, size = framing.unpack_header(body, at - 1)  # a NUL and a length are laid out as a header is
            if at + 4 + size == len(body):  # PERF: as it should be, which it is at every login
                return self._sasl_first(framing.cut(body, at + 4, len(body)))
        mechanism, data = messages.parse_sasl_initial_response(body)
        if mechanism != scram.MECHANISM:
            raise client_error("client selected an invalid SASL authentication mechanism", stage="password")
        if data is None:
            # Allowed by the protocol: the client wants an empty challenge before it speaks.
            self._expects = _SASL_FIRST
            return Continue(messages.authentication_sasl_continue(b""))
        return self._sasl_first(data)

    def _sasl_first(self, data: bytes) -> Answer | HeavyStep[Answer]:
        verifier = self._verifier()
        if isinstance(verifier, HeavyStep):
            return verifier.then(lambda made: self._challenge(made, data))
        return self._challenge(verifier, data)

    def _challenge(self, verifier: scram.Verifier, data: bytes) -> Answer:
        exchange = self._exchange = scram.ScramServer(verifier, scram.make_nonce(self._random))
        self._expects = _SASL_FINAL
        return Continue(messages.authentication_sasl_continue(exchange.first(data)))

    def _sasl_final(self, data: bytes) -> Succeeded:
        exchange = self._exchange
        assert exchange is not None
        proved = exchange.final(data)
        if proved is None:
            raise self._failure("SASL authentication failed")
        answer, keys = proved
        # Keys of an ad hoc verifier open no server: its salt is ours alone.
        return Succeeded(messages.authentication_sasl_final(answer), keys if self._kind is _SCRAM else None)

    def _verifier(self) -> scram.Verifier | HeavyStep[scram.Verifier]:
        if self._kind is not _PLAIN:
            return self._stored or self._mock_verifier()
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
        elif self._kind is _EMPTY:
            reason = f"{reason} (the user has no password)"
        elif self._kind is _MD5 and self._method == "scram-sha-256":
            reason = f"{reason} (the stored secret is md5: it cannot serve SCRAM)"
        return password_authentication_failed(self._user, reason, stage)


def _blamed(error: ProtocolError) -> ClientError:
    """What the client has sent wrongly is the client's fault, and at this stage."""
    return ClientError(error.sqlstate, error.message, stage="password")


def _with_blame(step: HeavyStep[Answer]) -> HeavyStep[Answer]:
    def resume(result: Any) -> Answer:
        try:
            return step.resume(result)
        except ProtocolError as error:
            raise _blamed(error) from None

    return HeavyStep(step.run, resume)


def _sent_password(body: bytes) -> bytes:
    """A PasswordMessage's text, as it came."""
    end = len(body) - 1
    if end < 0 or body.find(b"\0") != end:
        messages.parse_password(body)  # says what is wrong with it
    if end <= 0:
        raise ClientError(INVALID_PASSWORD, "empty password returned by client", stage="password")
    return framing.cut(body, 0, end)


def _equal(left: str, right: str) -> bool:
    return _is_same(messages.encode(left), messages.encode(right))
