"""A password for the auth role where no certificate can be issued: made here, kept in a Secret, sent as a verifier.

PostgreSQL never sees the password in a statement (and so never logs it). Touches nothing; the salt is handed in by
tests and random otherwise.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

ITERATIONS = 4096
# A verifier says how much work it is to check it, and comes from a server that anybody may have named. Those of our own have
# ITERATIONS; this many take 4 ms.
MOST_ITERATIONS = 10_000


def new_password() -> str:
    """192 random bits, in characters that need no escaping in a userlist, a URL or a shell."""
    return secrets.token_urlsafe(24)


def verifier(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """SPEC: RFC 5803's form, as PostgreSQL stores it. The password is ours and ASCII: SASLprep leaves it as it is."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored = hashlib.sha256(_mac(salted, b"Client Key")).digest()
    server = _mac(salted, b"Server Key")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored)}:{_text(server)}"


def matches(password: str, stored: str | None) -> bool:
    """Whether PostgreSQL's stored verifier is one of this password."""
    try:
        scheme, parameters, _ = (stored or "").split("$", 2)
        iterations, salt = parameters.split(":", 1)
        if scheme != "SCRAM-SHA-256" or not 0 < int(iterations) <= MOST_ITERATIONS:
            return False
        made = verifier(password, salt=base64.b64decode(salt, validate=True), iterations=int(iterations))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(made, stored or "")


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
