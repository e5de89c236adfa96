"""We prove to PostgreSQL who we are: one object per server login, Authentication bodies in, answers out.

With SCRAM the server proves itself too, and a server that leaves that out is refused: it may be anyone. Which
password or keys belong to this login is the pool's business; session/server drives this.
"""

from __future__ import annotations

from collections.abc import Callable

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.heavy import HeavyStep
from pgweir.protocol.auth.md5 import md5_response, md5_secret
from pgweir.protocol.auth.secrets import SecretKind, secret_kind
from pgweir.protocol.errors import ServerLoginError
from pgweir.protocol.messages import Auth

WRONG_PASSWORD_TYPE = "server login failed: wrong password type"  # noqa: S105 (a message)


class ServerAuthentication:
    """`receive` answers the bytes to send (b"": nothing, wait on), or None when AuthenticationOk ends the login; or the
    work after which those bytes are known.

    `password` is a stored secret: plain (good for everything), md5 (for md5 alone), a SCRAM verifier (for nothing).
    `scram_keys` come from a client's own login (pass-through). A plain password goes first: keys get stale when a
    server makes a new salt. `cache` saves PBKDF2 for the next login with the same password.
    """

    def __init__(
        self,
        user: str,
        *,
        password: str | None,
        scram_keys: scram.ScramKeys | None,
        random: Callable[[int], bytes],
        cache: scram.ScramCache | None = None,
    ) -> None:
        self._user = user
        self._password = password or ""
        self._kind = secret_kind(self._password)
        self._scram_keys = scram_keys
        self._random = random
        self._cache = cache
        self._exchange: scram.ScramClient | None = None
        self._expected: int | None = None
        """The one code that may come next; None before the server has asked for anything."""
        self.completed = False
        """AuthenticationOk came, and with SCRAM the server's own proof before it. A greeting (ParameterStatus,
        BackendKeyData, ReadyForQuery) before that is an impostor's: the session must not take it."""

    def __repr__(self) -> str:
        keys = "with" if self._scram_keys else "without"
        return f"ServerAuthentication(user={self._user!r}, password={self._kind}, {keys} SCRAM keys)"

    def receive(self, body: bytes) -> bytes | HeavyStep[bytes] | None:
        request = messages.parse_authentication(body)
        if self._expected is not None and request.code != self._expected:
            if request.code == Auth.OK:
                raise ServerLoginError("server login failed: the server skipped its SCRAM signature")
            raise ServerLoginError(f"server login failed: unexpected authentication request {request.code}")
        match request.code:
            case Auth.OK if not self.completed:
                self.completed = True
                return None
            case Auth.CLEARTEXT:
                return self._answer(messages.password_message(self._plain_password()))
            case Auth.MD5:
                return self._answer(messages.password_message(md5_response(self._md5_secret(), request.data)))
            case Auth.SASL:
                self._expected = Auth.SASL_CONTINUE
                return self._sasl(request.mechanisms)
            case Auth.SASL_CONTINUE if self._exchange is not None:
                self._expected = Auth.SASL_FINAL
                proof = self._exchange.final(request.data)
                if isinstance(proof, HeavyStep):
                    return proof.then(messages.sasl_response)
                return messages.sasl_response(proof)
            case Auth.SASL_FINAL if self._exchange is not None:
                self._exchange.verify(request.data)
                return self._answer(b"")
        raise ServerLoginError(f"server login failed: unsupported authentication request {request.code}")

    def _answer(self, data: bytes) -> bytes:
        self._expected = Auth.OK
        return data

    def _plain_password(self) -> str:
        if self._kind is SecretKind.PLAIN:
            return self._password
        raise self._refusal()

    def _md5_secret(self) -> str:
        if self._kind is SecretKind.MD5:
            return self._password
        return md5_secret(self._user, self._plain_password())

    def _sasl(self, mechanisms: tuple[str, ...]) -> bytes:
        if scram.MECHANISM not in mechanisms:
            raise ServerLoginError(
                "server login failed: none of the server's SASL authentication mechanisms are supported"
            )
        nonce = scram.make_nonce(self._random)
        if self._kind is SecretKind.PLAIN:
            self._exchange = scram.ScramClient(nonce=nonce, password=self._password, cache=self._cache)
        elif self._scram_keys is not None:
            self._exchange = scram.ScramClient(nonce=nonce, keys=self._scram_keys)
        else:
            raise self._refusal()
        return messages.sasl_initial_response(scram.MECHANISM, self._exchange.first())

    def _refusal(self) -> ServerLoginError:
        if self._kind is SecretKind.EMPTY and self._scram_keys is None:
            return ServerLoginError(f'server login failed: no password is known for user "{self._user}"')
        return ServerLoginError(WRONG_PASSWORD_TYPE)
