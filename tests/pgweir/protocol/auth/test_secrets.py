"""Which kind of secret a stored text is."""

from __future__ import annotations

import pytest

from pgweir.protocol.auth.scram import build_verifier
from pgweir.protocol.auth.secrets import SecretKind, secret_kind


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("", SecretKind.EMPTY),
        ("password", SecretKind.PLAIN),
        ("md5", SecretKind.PLAIN),
        ("md5" + "0" * 31, SecretKind.PLAIN),
        ("md5" + "g" * 32, SecretKind.PLAIN),
        ("md5" + "0f" * 16, SecretKind.MD5),
        ("md5" + "0f" * 16 + "\n", SecretKind.PLAIN),
        ("SCRAM-SHA-256$4096:x", SecretKind.PLAIN),
        (build_verifier("x", b"salt", 1).format(), SecretKind.SCRAM),
    ],
)
def test_a_text_is_a_hash_only_if_it_is_well_formed(secret: str, kind: SecretKind) -> None:
    assert secret_kind(secret) is kind
