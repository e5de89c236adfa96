"""PostgreSQL's md5 passwords: the stored form, and the answer to a challenge. Weak, and still in use."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from pgweir.protocol import messages

_md5: Final = hashlib.md5


def md5_secret(user: str, password: str) -> str:
    """`md5` and the hash of password and user name, as pg_authid stores it."""
    # usedforsecurity=False lets a FIPS build of OpenSSL answer: the choice of md5 was the administrator's.
    return "md5" + _md5(messages.encode(password + user), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=256)
def known_md5_secret(user: str, password: str) -> str:
    """The same for a secret of our own configuration, never for what a client claims. PERF: as at each of the user's logins."""
    return md5_secret(user, password)


def md5_response(secret: str, salt: bytes) -> str:
    """What a client that knows `secret` (the stored form) answers to `salt`."""
    return "md5" + _md5(messages.encode(secret[3:]) + salt, usedforsecurity=False).hexdigest()
