"""SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides of it, without channel binding.

What PostgreSQL does where the RFC leaves room: the user name inside the messages is ignored (the startup packet has
it), a password that SASLprep refuses is used as its bytes are, an authorization identity is refused.
`ScramServer` faces a client, `ScramClient` faces PostgreSQL. Malformed messages are a ProtocolError; a wrong proof is
an answer (None), not an exception, because what to tell is the caller's question.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pgweir.protocol import framing, messages
from pgweir.protocol.auth.heavy import HeavyStep
from pgweir.protocol.errors import ProtocolError, ServerLoginError

MECHANISM: Final = "SCRAM-SHA-256"
DEFAULT_ITERATIONS: Final = 4096
SALT_SIZE: Final = 16
NONCE_SIZE: Final = 18
MAX_ITERATIONS: Final = 1_000_000
"""Neither a server nor a stored secret may make us work longer than this for one login (PostgreSQL's default is 4096)."""

_DIGEST: Final = "sha256"
# PERF: a module's function is looked up by its name each time.
_sha256: Final = hashlib.sha256
_is_same: Final = hmac.compare_digest
_to_base64: Final = binascii.b2a_base64
_from_base64: Final = binascii.a2b_base64
_DIGEST_SIZE: Final = 32
_GS2_PLAIN: Final = b"n,,"
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class ScramKeys:
    """What proves the same password again without knowing it. Good only for verifiers of the same salt and iterations.
    Nobody changes it."""

    __slots__ = ("client_key", "server_key")

    def __init__(self, client_key: bytes, server_key: bytes) -> None:
        self.client_key = client_key
        self.server_key = server_key

    def __repr__(self) -> str:
        return "ScramKeys()"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScramKeys):
            return False
        return self.client_key == other.client_key and self.server_key == other.server_key

    __hash__ = None  # type: ignore[assignment]


class Mac:
    """HMAC-SHA-256 by one key. SPEC: RFC 2104, for the keys of this room, none of which is longer than a block (64 bytes).

    PERF: `hmac.digest` looks its algorithm up in OpenSSL 3 at each call (1.3 µs warm); this copies what the key alone comes
    to (0.6)."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = _sha256(block.translate(_INNER))
        self._outer = _sha256(block.translate(_OUTER))

    def of(self, data: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()


class Verifier:
    """What a server keeps: enough to check a proof, not enough to make one. Nobody changes it."""

    __slots__ = ("_proofs", "_signatures", "asks", "iterations", "salt", "server_key", "stored_key")

    def __init__(self, iterations: int, salt: bytes, stored_key: bytes, server_key: bytes) -> None:
        self.iterations = iterations
        self.salt = salt
        self.stored_key = stored_key
        self.server_key = server_key
        self.asks = b",s=%b,i=%d" % (_b64(salt), iterations)  # what stands behind the nonce in its challenges
        # PERF: made at first need, and kept as long as the verifier is.
        self._proofs: Mac | None = None
        self._signatures: Mac | None = None

    def __repr__(self) -> str:
        return f"Verifier(iterations={self.iterations})"

    def masks(self, auth_message: bytes) -> bytes:
        """What a client's key is hidden by in its proof."""
        proofs = self._proofs
        if proofs is None:
            proofs = self._proofs = Mac(self.stored_key)
        return proofs.of(auth_message)

    def signs(self, auth_message: bytes) -> bytes:
        signatures = self._signatures
        if signatures is None:
            signatures = self._signatures = Mac(self.server_key)
        return signatures.of(auth_message)

    def format(self) -> str:
        """As pg_authid.rolpassword has it: `SCRAM-SHA-256$iterations:salt$stored:server`."""
        return (
            f"{MECHANISM}${self.iterations}:{_base64(self.salt)}${_base64(self.stored_key)}:{_base64(self.server_key)}"
        )


_VERIFIER_START: Final = f"{MECHANISM}$"
_VERIFIER = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,9}):([^$:]+)\$([^$:]+):([^$:]+)", re.ASCII)


def parse_verifier(text: str) -> Verifier | None:
    """None for a text that is not a well-formed verifier (then it is a plain password, of which no copy is kept here)."""
    return _parsed_verifier(text) if text.startswith(_VERIFIER_START) else None


@lru_cache(maxsize=256)
def _parsed_verifier(text: str) -> Verifier | None:
    """PERF: a login asks five times, and the next login of the same user again."""
    found = _VERIFIER.fullmatch(text)
    if found is None:
        return None
    salt, stored_key, server_key = (_unbase64(messages.encode(part)) for part in found.groups()[1:])
    iterations = int(found[1])
    if not salt or stored_key is None or server_key is None or iterations >= 1 << 31:
        return None
    if len(stored_key) != _DIGEST_SIZE or len(server_key) != _DIGEST_SIZE:
        return None
    return Verifier(iterations, salt, stored_key, server_key)


def scram_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The heavy step: PBKDF2, about a millisecond at 4096 iterations. Everything else here takes microseconds."""
    salted = hashlib.pbkdf2_hmac(_DIGEST, normalized_password(password), salt, iterations)
    return ScramKeys(_hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))


def verifier_of(keys: ScramKeys, salt: bytes, iterations: int) -> Verifier:
    return Verifier(iterations, salt, hashlib.sha256(keys.client_key).digest(), keys.server_key)


def build_verifier(password: str, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> Verifier:
    return verifier_of(scram_keys(password, salt, iterations), salt, iterations)


def make_nonce(random: Callable[[int], bytes]) -> bytes:
    """Each side's share of the nonce, in a spelling that the messages can carry."""
    return _b64(random(NONCE_SIZE))


def mock_verifier(user: str, mock_key: bytes, iterations: int = DEFAULT_ITERATIONS) -> Verifier:
    """For a user who does not exist: always the same salt for the same name, so that asking twice tells nothing; keys
    that no password has."""
    name = messages.encode(user)
    return Verifier(
        iterations,
        salt_of(user, mock_key),
        _hmac(mock_key, b"stored\0" + name),
        _hmac(mock_key, b"server\0" + name),
    )


def salt_of(user: str, mock_key: bytes) -> bytes:
    """The salt that this process gives to a name, known to it or not; `mock_key` is random and lives as long as the
    process. Verifiers made from plain secrets have it too, so that they look like those of strangers."""
    return _hmac(mock_key, b"salt\0" + messages.encode(user))[:SALT_SIZE]


def password_matches(password: str, verifier: Verifier) -> bool:
    """Heavy, like `scram_keys`: for clients that send the password itself."""
    keys = scram_keys(password, verifier.salt, verifier.iterations)
    return hmac.compare_digest(hashlib.sha256(keys.client_key).digest(), verifier.stored_key)


class ScramCache:
    """PBKDF2 at most once per secret: a pooler sees the same few secrets at every login.

    Only secrets from our own configuration come in here, never what a client claims. Least recently used go first.
    """

    __slots__ = ("_keys", "_size")

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._keys: OrderedDict[tuple[str, bytes, int], ScramKeys] = OrderedDict()

    def __repr__(self) -> str:
        return f"ScramCache({len(self._keys)} keys)"

    def keys(self, password: str, salt: bytes, iterations: int) -> ScramKeys | HeavyStep[ScramKeys]:
        """At once where they are known; else the work that finds them."""
        at = (password, salt, iterations)
        known = self._keys.get(at)
        if known is not None:
            self._keys.move_to_end(at)
            return known

        def remember(keys: ScramKeys) -> ScramKeys:
            self._keys[at] = keys
            self._keys.move_to_end(at)
            if len(self._keys) > self._size:
                self._keys.popitem(last=False)
            return keys

        # Of many logins with the same secret at once, the first one computes; the others find it when their thread is free.
        return HeavyStep(lambda: self._keys.get(at) or scram_keys(password, salt, iterations), remember)


class ScramServer:
    """Our side towards a client: `first` answers its first message, `final` judges its proof."""

    __slots__ = ("_auth_message", "_binding", "_nonce", "_server_nonce", "_verifier")

    def __init__(self, verifier: Verifier, nonce: bytes) -> None:
        self._verifier = verifier
        self._server_nonce = nonce
        self._binding = b""  # as it must be repeated
        self._nonce = b""
        self._auth_message = b""

    def first(self, client_first: bytes) -> bytes:
        """client-first-message in, server-first-message out."""
        flag, authorization, bare = _split(client_first, 3)
        if flag == b"n":
            self._binding = b"biws"
        elif flag == b"y":
            self._binding = b"eSws"
        elif flag.startswith(b"p="):
            raise ProtocolError("client selected SCRAM channel binding, which was not offered")
        else:
            raise ProtocolError("malformed SCRAM message: unknown channel binding flag")
        if authorization:
            raise ProtocolError("client uses authorization identity, but it is not supported")
        attributes = bare.split(b",")
        if len(attributes) < 2:
            raise ProtocolError("malformed SCRAM message: attributes are missing")
        _attribute(attributes[0], _NAME)  # also refuses "m=", the mandatory extension, which would stand here
        client_nonce = _attribute(attributes[1], _NONCE)
        if not _is_nonce(client_nonce):
            raise ProtocolError("malformed SCRAM message: bad nonce")
        self._nonce = client_nonce + self._server_nonce
        server_first = b"r=" + self._nonce + self._verifier.asks
        self._auth_message = b",".join((bare, server_first))
        return server_first

    def final(self, client_final: bytes) -> tuple[bytes, ScramKeys] | None:
        """client-final-message in; server-final-message and the client's keys out, or None for a wrong proof."""
        without_proof, separator, proof_part = client_final.rpartition(b",p=")
        proof = _unbase64(proof_part)
        if not separator or proof is None or len(proof) != _DIGEST_SIZE:
            raise ProtocolError("malformed SCRAM message: bad proof")
        attributes = without_proof.split(b",")
        if len(attributes) < 2:
            raise ProtocolError("malformed SCRAM message: attributes are missing")
        if _attribute(attributes[0], _CHANNEL) != self._binding:
            raise ProtocolError("unexpected SCRAM channel-binding attribute in client-final-message")
        if not self._nonce or not _is_same(_attribute(attributes[1], _NONCE), self._nonce):
            raise ProtocolError("SCRAM nonce does not match")
        verifier = self._verifier
        auth_message = b",".join((self._auth_message, without_proof))
        client_key = _xor(proof, verifier.masks(auth_message))
        if not _is_same(_sha256(client_key).digest(), verifier.stored_key):
            return None
        return b"v=" + _b64(verifier.signs(auth_message)), ScramKeys(client_key, verifier.server_key)


class ScramClient:
    """Our side towards PostgreSQL: `first`, then `final` with its challenge, then `verify` with its last word."""

    __slots__ = ("_cache", "_first_bare", "_keys", "_nonce", "_password", "_signature")

    def __init__(
        self,
        *,
        nonce: bytes,
        password: str | None = None,
        keys: ScramKeys | None = None,
        cache: ScramCache | None = None,
        user: str = "",
    ) -> None:
        """`user` stays empty towards PostgreSQL, as libpq leaves it: the startup packet named the user."""
        if (password is None) == (keys is None):
            raise ValueError("a SCRAM client has a password or keys, and not both")
        self._password = password
        self._keys = keys
        self._cache = cache if cache is not None else ScramCache()
        self._nonce = nonce
        self._first_bare = b"n=" + messages.encode(user) + b",r=" + nonce
        self._signature = b""

    def first(self) -> bytes:
        return _GS2_PLAIN + self._first_bare

    def final(self, server_first: bytes) -> bytes | HeavyStep[bytes]:
        """The server's challenge in, our proof out; with a password that was not used before, that is work."""
        attributes = server_first.split(b",")
        if len(attributes) < 3:
            raise ProtocolError("malformed SCRAM message: attributes are missing")
        nonce = _attribute(attributes[0], _NONCE)
        salt = _unbase64(_attribute(attributes[1], _SALT))
        iterations = _iterations(_attribute(attributes[2], _ITERATIONS))
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce) or not _is_nonce(nonce):
            raise ProtocolError("invalid SCRAM response: nonce mismatch")
        if not salt:
            raise ProtocolError("malformed SCRAM message: bad salt")
        keys = self._keys or self._derive(salt, iterations)
        if isinstance(keys, HeavyStep):
            return keys.then(lambda found: self._prove(found, server_first, nonce))
        return self._prove(keys, server_first, nonce)

    def _prove(self, keys: ScramKeys, server_first: bytes, nonce: bytes) -> bytes:
        without_proof = b"c=" + _b64(_GS2_PLAIN) + b",r=" + nonce
        auth_message = self._first_bare + b"," + server_first + b"," + without_proof
        stored_key = hashlib.sha256(keys.client_key).digest()
        proof = _xor(keys.client_key, _hmac(stored_key, auth_message))
        self._signature = _hmac(keys.server_key, auth_message)
        return without_proof + b",p=" + _b64(proof)

    def verify(self, server_final: bytes) -> None:
        """The server must know the password too; one that does not is an impostor."""
        attribute = server_final.split(b",")[0]
        if attribute.startswith(b"e="):
            raise ServerLoginError(f"server login failed: {messages.decode(attribute[2:])}")
        signature = _unbase64(_attribute(attribute, _SIGNATURE))
        if not self._signature or signature is None or not hmac.compare_digest(signature, self._signature):
            raise ServerLoginError("server login failed: invalid server signature")

    def _derive(self, salt: bytes, iterations: int) -> ScramKeys | HeavyStep[ScramKeys]:
        assert self._password is not None
        if iterations > MAX_ITERATIONS:
            raise ServerLoginError(
                f"server login failed: the server asks for {iterations} SCRAM iterations, "
                f"more than {MAX_ITERATIONS} are refused"
            )
        return self._cache.keys(self._password, salt, iterations)


# --- SASLprep -------------------------------------------------------------------------------------


def normalized_password(password: str) -> bytes:
    """RFC 4013 where it applies; the bytes as they are where it does not (as PostgreSQL)."""
    raw = messages.encode(password)
    if password.isascii():
        # Control characters are prohibited, and what is prohibited is used as it is.
        return raw
    prepared = _saslprep(password)
    return raw if prepared is None else messages.encode(prepared)


def _saslprep(text: str) -> str | None:
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(prohibited(character) for prohibited in _PROHIBITED for character in prepared):
        return None
    if any(stringprep.in_table_d1(character) for character in prepared):
        # Text from right to left must be so at both ends and have nothing from left to right inside.
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(stringprep.in_table_d2(character) for character in prepared):
            return None
    return prepared


_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


# --- pieces ---------------------------------------------------------------------------------------


def _split(data: bytes, count: int) -> list[bytes]:
    parts = data.split(b",", count - 1)
    if len(parts) != count:
        raise ProtocolError("malformed SCRAM message: attributes are missing")
    return parts


_NAME: Final = ord("n")
_NONCE: Final = ord("r")
_CHANNEL: Final = ord("c")
_SALT: Final = ord("s")
_ITERATIONS: Final = ord("i")
_SIGNATURE: Final = ord("v")
_EQUALS: Final = ord("=")


def _attribute(part: bytes, name: int) -> bytes:
    if len(part) < 2 or part[0] != name or part[1] != _EQUALS:
        raise ProtocolError(f'malformed SCRAM message: attribute "{chr(name)}" expected')
    return framing.cut(part, 2, len(part))


def _is_nonce(nonce: bytes) -> bool:
    """Printable ASCII; a comma cannot be in it any more."""
    for byte in nonce:
        if not 0x21 <= byte < 0x7F:
            return False
    return bool(nonce)


def _iterations(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 10 or int(raw) < 1:
        raise ProtocolError("malformed SCRAM message: bad iteration count")
    return int(raw)


def _hmac(key: bytes, data: bytes) -> bytes:
    return Mac(key).of(data)


def _xor(left: bytes, right: bytes) -> bytes:
    size = len(left)
    if size != len(right):
        raise ValueError("operands of different lengths")
    both = bytearray(left)
    for at in range(size):
        both[at] = left[at] ^ right[at]
    return bytes(both)


def _b64(data: bytes) -> bytes:
    """PERF: what `base64` calls, called at once."""
    return _to_base64(data, newline=False)


def _base64(data: bytes) -> str:
    return _b64(data).decode("ascii")


def _unbase64(text: bytes) -> bytes | None:
    try:
        return _from_base64(text, strict_mode=True)
    except ValueError:  # binascii's own is one
        return None
