"""PostgreSQL's md5 passwords: the stored form, and the answer to a challenge. Weak, and still in use."""

from __future__ import annotations

import hashlib

from pgweir.protocol import messages


def md5_secret(user: str, password: str) -> str:
    """`md5` and the hash of password and user name, as pg_authid stores it."""
    return "md5" + _hex(messages.encode(password) + messages.encode(user))


def md5_response(secret: str, salt: bytes) -> str:
    """What a client that knows `secret` (the stored form) answers to `salt`."""
    return "md5" + _hex(messages.encode(secret[3:]) + salt)


def _hex(data: bytes) -> str:
    # usedforsecurity=False lets a FIPS build of OpenSSL answer: the choice of md5 was the administrator's.
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
