"""Certificates, issued and judged. No files, no network; the time is handed in.

Three uses: the auth role's client certificate and the pooler's own server certificate (both from the cluster's CA,
where its key is available), and the control CA of each Pooler (`control.py`). Keys are P-256: small, fast to sign,
known to every OpenSSL that PostgreSQL links. Called by reconcile and by `control`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pgweir_operator.api.conditions import PrerequisiteError, Reason

DAY = 86400.0
LEAF_LIFETIME = 90 * DAY
AUTHORITY_LIFETIME = 3 * 365 * DAY
# Clocks of two nodes differ; a certificate that is valid "from now" is not yet valid on the slower one.
BACKDATE = 300.0
# Renewed when this share of the lifetime is left: a CA or a leaf of any length gets several attempts before it expires.
RENEWAL_SHARE = 1 / 3

_SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (PEM, with its chain if there is one) and its private key (PEM)."""

    certificate: bytes
    key: bytes = field(repr=False)


def authority(common_name: str, *, now: float, lifetime: float = AUTHORITY_LIFETIME) -> KeyPair:
    """A self-signed CA that may sign leaves and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - BACKDATE))
        .not_valid_after(_time(now + lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def client_certificate(ca: KeyPair, common_name: str, *, now: float, lifetime: float = LEAF_LIFETIME) -> KeyPair:
    """A certificate to log in with: PostgreSQL's `cert` method and our pods compare the common name."""
    return _leaf(ca, common_name, (), ExtendedKeyUsageOID.CLIENT_AUTH, now=now, lifetime=lifetime)


def server_certificate(ca: KeyPair, names: Sequence[str], *, now: float, lifetime: float = LEAF_LIFETIME) -> KeyPair:
    """A certificate to be called by one of these names (DNS names or addresses)."""
    return _leaf(ca, names[0], names, ExtendedKeyUsageOID.SERVER_AUTH, now=now, lifetime=lifetime)


class Term(NamedTuple):
    """When a certificate is valid, in seconds of the epoch."""

    begins: float
    ends: float


def terms(bundle: bytes) -> list[Term]:
    """Of each certificate of a chain or a bundle. Raises ValueError; there is at least one."""
    return [_term(one) for one in x509.load_pem_x509_certificates(bundle)]


def _term(certificate: x509.Certificate) -> Term:
    return Term(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def is_due(certificate: bytes, *, now: float) -> bool:
    """Whether a certificate should be renewed: unreadable, not yet valid, expired, or its last third has begun."""
    try:
        begins, ends = _term(x509.load_pem_x509_certificate(certificate))
    except ValueError:
        return True
    return not begins <= now <= ends - (ends - begins) * RENEWAL_SHARE


def is_issued_by(certificate: bytes, authority_certificate: bytes) -> bool:
    """Whether the first certificate was signed with the key of one of the second's."""
    try:
        leaf = x509.load_pem_x509_certificate(certificate)
        issuers = x509.load_pem_x509_certificates(authority_certificate)
    except ValueError:
        return False
    for issuer in issuers:
        try:
            leaf.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return True
    return False


def common_name(certificate: bytes) -> str | None:
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return None
    names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else None


def names_of(certificate: bytes) -> frozenset[str]:
    """The DNS names and addresses a certificate may be called by."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return frozenset()
    dns = extension.get_values_for_type(x509.DNSName)
    addresses = extension.get_values_for_type(x509.IPAddress)
    return frozenset([*dns, *map(str, addresses)])


def is_pair(pair: KeyPair) -> bool:
    """Whether the key belongs to the certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return certificate.public_key() == key.public_key()


def joined(bundles: Iterable[bytes], *, now: float) -> bytes:
    """One CA bundle of several: in order, each certificate once, without those that have expired."""
    kept: list[x509.Certificate] = []
    for bundle in bundles:
        try:
            certificates = x509.load_pem_x509_certificates(bundle)
        except ValueError:
            continue
        kept += [c for c in certificates if c not in kept and c.not_valid_after_utc.timestamp() > now]
    return b"".join(map(_pem, kept))


def _leaf(
    ca: KeyPair, name: str, alternatives: Sequence[str], usage: x509.ObjectIdentifier, *, now: float, lifetime: float
) -> KeyPair:
    try:
        issuer = x509.load_pem_x509_certificate(ca.certificate)
        loaded = serialization.load_pem_private_key(ca.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PrerequisiteError(
            Reason.INVALID_SECRET,
            f"The certificate authority cannot be read ({type(error).__name__}): its Secret needs a PEM certificate in"
            " ca.crt and an unencrypted PEM key in ca.key.",
            retry_after=60.0,
        ) from None
    if not isinstance(loaded, _SigningKey) or loaded.public_key() != issuer.public_key():
        raise PrerequisiteError(
            Reason.INVALID_SECRET,
            "The certificate authority's ca.key does not belong to its ca.crt.",
            retry_after=60.0,
        )
    # A leaf that outlives its CA is a promise that nobody can keep: it ends with the CA.
    end = min(now + lifetime, issuer.not_valid_after_utc.timestamp())
    if end <= now:
        raise PrerequisiteError(
            Reason.INVALID_SECRET,
            f"The certificate authority expired on {issuer.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it.",
            retry_after=60.0,
        )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - BACKDATE))
        .not_valid_after(_time(end))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in alternatives]), critical=False
        )
    without_hash = isinstance(loaded, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    signed = builder.sign(loaded, None if without_hash else hashes.SHA256())
    return KeyPair(_pem(signed), _key_pem(key))


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(common: str) -> x509.Name:
    # A common name holds at most 64 characters (X.520); the names that count are in the alternatives.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
