"""What the *_tls_* settings make of a context; one side's settings never touch the other."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.postgres.certificates import Certificates, make_certificates

from pgweir.config import Config, ConfigError
from pgweir.net.tls import TlsContexts, build_contexts, failure_stage, tls_info
from pgweir.settings import Settings

SIDES = ["client", "server"]


def _ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def contexts(certificates: Certificates, **settings: Any) -> TlsContexts:
    pair = certificates.server
    given = {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": str(pair.certificate),
        "client_tls_key_file": str(pair.key),
        "server_tls_sslmode": "require",
        **settings,
    }
    return build_contexts(Config(settings=Settings(**given)))


def context(certificates: Certificates, side: str, **settings: Any) -> ssl.SSLContext:
    found: ssl.SSLContext | None = getattr(contexts(certificates, **settings), side)
    assert found is not None
    return found


@pytest.mark.parametrize("side", SIDES)
def test_disable_means_none(certificates: Certificates, side: str):
    found = contexts(certificates, **{f"{side}_tls_sslmode": "disable"})
    assert [getattr(found, each) is None for each in SIDES] == [each == side for each in SIDES]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("words", "lowest", "highest"),
    [
        ("secure", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
        ("tlsv1.3", ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
        ("tlsv1.2", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    ],
)
def test_the_versions_are_those_of_tls_protocols(
    certificates: Certificates, side: str, words: str, lowest: ssl.TLSVersion, highest: ssl.TLSVersion
):
    found = context(certificates, side, **{f"{side}_tls_protocols": words})
    assert (found.minimum_version, found.maximum_version) == (lowest, highest)


@pytest.mark.parametrize("side", SIDES)
def test_the_ciphers_are_those_of_tls_ciphers(certificates: Certificates, side: str):
    def names(found: ssl.SSLContext) -> set[str]:
        return {cipher["name"] for cipher in found.get_ciphers() if not cipher["name"].startswith("TLS_")}

    chosen = context(certificates, side, **{f"{side}_tls_ciphers": "ECDHE-RSA-AES256-GCM-SHA384"})
    assert names(chosen) == {"ECDHE-RSA-AES256-GCM-SHA384"}
    assert len(names(context(certificates, side))) > 1
    with pytest.raises(ConfigError, match=f"{side}_tls_ciphers = 'no such cipher'"):
        contexts(certificates, **{f"{side}_tls_ciphers": "no such cipher"})


def test_the_curve_is_that_of_client_tls_ecdhcurve(certificates: Certificates):
    for curve in ("auto", "prime256v1", "secp384r1"):
        contexts(certificates, client_tls_ecdhcurve=curve)
    for curve in ("none", "no-such-curve"):
        with pytest.raises(ConfigError, match=f"client_tls_ecdhcurve = '{curve}': auto, or a curve"):
            contexts(certificates, client_tls_ecdhcurve=curve)


def test_a_handshake_on_the_chosen_curve_alone_comes_about_with_a_client_that_has_it(certificates: Certificates):
    server = context(certificates, "client", client_tls_ecdhcurve="secp384r1")
    assert _shake(server, "secp384r1")
    assert not _shake(server, "prime256v1")


def _shake(server: ssl.SSLContext, curve: str) -> bool:
    """A handshake in memory with a client that has this curve and no other."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_ecdh_curve(curve)
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(one, two), server.wrap_bio(two, one, server_side=True)]
    for _ in range(10):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
    return not sides


def test_the_authority_of_clients_is_client_tls_ca_file(certificates: Certificates):
    assert context(certificates, "client").cert_store_stats()["x509_ca"] == 0
    named = context(certificates, "client", client_tls_ca_file=str(certificates.ca), client_tls_sslmode="verify-ca")
    assert named.cert_store_stats()["x509_ca"] == 1


def test_a_key_that_is_anothers_is_refused(certificates: Certificates, tmp_path: Path):
    with pytest.raises(ConfigError, match="client_tls_cert_file"):
        contexts(certificates, client_tls_key_file=str(certificates.stranger.key))
    with pytest.raises(ConfigError, match="server_tls_cert_file"):
        contexts(
            certificates,
            server_tls_cert_file=str(certificates.client_alice.certificate),
            server_tls_key_file=str(certificates.stranger.key),
        )


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), "certificate"),
        (_ssl_error("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "certificate"),
        (_ssl_error("TLSV1_ALERT_UNKNOWN_CA"), "certificate"),
        (_ssl_error("NO_SHARED_CIPHER"), "agreement"),
        (_ssl_error("UNSUPPORTED_PROTOCOL"), "agreement"),
        (_ssl_error("SOMETHING_NEW"), "other"),
        (ssl.SSLEOFError(8, "EOF occurred"), "hung_up"),
        (ConnectionResetError(104, "reset"), "hung_up"),
    ],
)
def test_a_handshake_that_fails_has_one_of_four_stages(error: OSError, stage: str) -> None:
    assert failure_stage(error) == stage


class Handshaken:
    """A transport behind its handshake, with what the peer's certificate says; None: it has been lost meanwhile."""

    def __init__(self, subject: tuple[tuple[tuple[str, str], ...], ...] | None) -> None:
        self.subject = subject

    def get_extra_info(self, name: str) -> Any:
        return self if name == "ssl_object" and self.subject is not None else None

    def cipher(self) -> tuple[str, str, int]:
        return "AES", "TLSv1.3", 256

    def version(self) -> str:
        return "TLSv1.3"

    def getpeercert(self) -> dict[str, Any]:
        return {"subject": self.subject} if self.subject else {}


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), None),
        (((("organizationName", "x"),),), None),
        (((("organizationName", "x"), ("commonName", "alice")),), "alice"),
        (((("commonName", "eve"),), (("commonName", "alice"),)), "eve"),
    ],
)
def test_of_several_common_names_the_first_counts_as_in_postgresql(subject: Any, name: str | None):
    assert tls_info(Handshaken(subject)).common_name == name


def test_a_peer_that_leaves_right_behind_its_handshake_is_a_lost_connection():
    with pytest.raises(ConnectionError):
        tls_info(Handshaken(None))
