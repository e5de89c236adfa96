"""Stored secrets, as userlist.txt or auth_query give them: which kind is this text?"""

from __future__ import annotations

import re
from enum import StrEnum

from pgweir.protocol.auth.scram import parse_verifier


class SecretKind(StrEnum):
    EMPTY = "empty"
    """Never matches anything: a user who cannot log in by password."""
    PLAIN = "plain"
    MD5 = "md5"
    SCRAM = "scram-sha-256"


_MD5 = re.compile(r"md5[0-9a-f]{32}", re.ASCII)


def secret_kind(secret: str) -> SecretKind:
    """What PostgreSQL decides for pg_authid.rolpassword: what is no well-formed hash is a plain password."""
    if not secret:
        return SecretKind.EMPTY
    if parse_verifier(secret) is not None:
        return SecretKind.SCRAM
    return SecretKind.MD5 if secret.startswith("md5") and _MD5.fullmatch(secret) else SecretKind.PLAIN
