"""Certificates: OpenSSL accepts them, the right ones are due, and trouble with a CA is a condition."""

from __future__ import annotations

import ssl
import time

import pytest

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.integration.certificates import (
    BACKDATE,
    DAY,
    KeyPair,
    authority,
    client_certificate,
    common_name,
    is_due,
    is_issued_by,
    is_pair,
    joined,
    names_of,
    server_certificate,
    terms,
)

NOW = 1_800_000_000.0


def handshake(server: KeyPair, client: KeyPair, trusted: bytes, name: str, folder) -> None:
    """A whole mutual TLS handshake in memory, as strict as Python's defaults are."""

    def context(purpose: ssl.Purpose, pair: KeyPair) -> ssl.SSLContext:
        made = ssl.create_default_context(purpose, cadata=trusted.decode())
        made.verify_mode = ssl.CERT_REQUIRED
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        for file, content in (("crt", pair.certificate), ("key", pair.key)):
            (folder / file).write_bytes(content)
        made.load_cert_chain(folder / "crt", folder / "key")
        return made

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context(ssl.Purpose.SERVER_AUTH, client).wrap_bio(to_client, to_server, server_hostname=name)
    theirs = context(ssl.Purpose.CLIENT_AUTH, server).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.version()
    assert theirs.getpeercert()["subject"][0][0] == ("commonName", common_name(client.certificate))


def test_openssl_accepts_both_sides_under_strict_rules(tmp_path):
    now = time.time()
    ca = authority("test CA", now=now)
    server = server_certificate(ca, ["shop-rw", "shop-rw.default.svc", "10.1.2.3"], now=now)
    client = client_certificate(ca, "cnp_pooler_pgbouncer", now=now)
    handshake(server, client, ca.certificate, "shop-rw.default.svc", tmp_path)
    handshake(server, client, ca.certificate, "10.1.2.3", tmp_path)
    with pytest.raises(ssl.SSLError):
        handshake(server, client, ca.certificate, "elsewhere", tmp_path)


def test_a_server_certificate_bears_every_name_it_was_asked_for():
    ca = authority("test CA", now=NOW)
    pair = server_certificate(ca, ["a", "a.b", "10.0.0.1"], now=NOW)
    assert names_of(pair.certificate) == {"a", "a.b", "10.0.0.1"}
    assert is_issued_by(pair.certificate, ca.certificate)
    assert is_pair(pair)


def test_a_certificate_is_due_when_its_last_third_begins():
    ca = authority("test CA", now=NOW)
    pair = client_certificate(ca, "x", now=NOW, lifetime=90 * DAY)
    assert not is_due(pair.certificate, now=NOW)
    assert not is_due(pair.certificate, now=NOW + 59.9 * DAY)
    assert is_due(pair.certificate, now=NOW + 60.1 * DAY)
    assert is_due(pair.certificate, now=NOW + 1000 * DAY)
    assert is_due(pair.certificate, now=NOW - 2 * BACKDATE), "not valid yet: the clock was wrong when it was made"
    assert is_due(b"garbage", now=NOW)


def test_a_leaf_does_not_outlive_its_authority():
    ca = authority("test CA", now=NOW, lifetime=10 * DAY)
    assert terms(client_certificate(ca, "x", now=NOW).certificate)[0].ends == NOW + 10 * DAY


@pytest.mark.parametrize(
    ("ca", "words"),
    [
        (KeyPair(b"no pem", b"no pem"), "cannot be read"),
        (KeyPair(authority("a", now=NOW).certificate, authority("b", now=NOW).key), "does not belong"),
        (authority("old", now=NOW - 20 * DAY, lifetime=10 * DAY), "expired"),
    ],
)
def test_an_unusable_authority_becomes_a_condition(ca, words):
    with pytest.raises(PrerequisiteError, match=words) as caught:
        client_certificate(ca, "x", now=NOW)
    assert caught.value.reason is Reason.INVALID_SECRET
    assert "PRIVATE" not in caught.value.message


def test_a_leaf_of_another_authority_of_the_same_name_is_not_ours():
    one, two = authority("same", now=NOW), authority("same", now=NOW)
    assert not is_issued_by(client_certificate(one, "x", now=NOW).certificate, two.certificate)


def test_a_bundle_keeps_each_living_authority_once_and_in_order():
    new, old = authority("new", now=NOW), authority("old", now=NOW - 5 * DAY, lifetime=6 * DAY)
    bundle = joined([new.certificate, old.certificate + new.certificate], now=NOW)
    assert bundle == new.certificate + old.certificate
    assert joined([bundle], now=NOW + 2 * DAY) == new.certificate


def test_a_key_pair_never_prints_its_key():
    assert "PRIVATE" not in repr(authority("test CA", now=NOW))


def test_a_long_name_still_makes_a_certificate():
    ca = authority("test CA", now=NOW)
    long = "p" * 60 + ".namespace.svc.cluster.local"
    assert names_of(server_certificate(ca, [long], now=NOW).certificate) == {long}
