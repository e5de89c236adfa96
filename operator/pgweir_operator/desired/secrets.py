"""Taking the right bytes out of the Secrets that a Pooler names, or saying exactly what is wrong with them.

Pure: reads what was observed. Every complaint is a PrerequisiteError that names the field, the Secret and the fix.
No Secret is ever handed on whole: one that holds a ca.key gives its ca.crt and keeps the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.x509.oid import NameOID

from pgweir_operator.api import names
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed, Provisioned, SecretFacts
from pgweir_operator.api.one_line import has_line_breaker
from pgweir_operator.api.pooler import Pooler, SecretReference

BASIC_AUTH = "kubernetes.io/basic-auth"
TLS = "kubernetes.io/tls"


@dataclass(frozen=True, slots=True)
class KeyPair:
    certificate: bytes
    key: bytes = field(repr=False)


def named_secret(observed: Observed, reference: SecretReference, field_path: str) -> SecretFacts:
    secret = observed.secrets.get(reference.name)
    if secret is None:
        raise PrerequisiteError(
            Reason.MISSING_SECRET, f"{field_path} names Secret {reference.name!r}, which does not exist; create it."
        )
    return secret


def key_of(secret: SecretFacts, key: str, field_path: str) -> bytes:
    value = secret.data.get(key)
    if not value:
        present = ", ".join(sorted(secret.data)) or "none"
        raise PrerequisiteError(
            Reason.INVALID_SECRET,
            f"{field_path}: Secret {secret.name!r} has no key {key!r} (its keys: {present}); add it.",
        )
    return value


def key_pair(observed: Observed, reference: SecretReference, field_path: str) -> KeyPair:
    secret = named_secret(observed, reference, field_path)
    return _key_pair(secret, field_path)


def ca_certificate(observed: Observed, reference: SecretReference, field_path: str) -> bytes:
    return key_of(named_secret(observed, reference, field_path), "ca.crt", field_path)


def own_credentials(pooler: Pooler, observed: Observed) -> Provisioned:
    """The lookup's login where the user brought it. serverTLSSecret wins over authQuerySecret."""
    bouncer = pooler.spec.pgbouncer
    query = bouncer.auth_query or names.AUTH_QUERY
    if bouncer.server_tls_secret is not None:
        path = "spec.pgbouncer.serverTLSSecret"
        return _by_certificate(query, key_pair(observed, bouncer.server_tls_secret, path), path)
    assert bouncer.auth_query_secret is not None, "validation has passed: an authQuery comes with a Secret"
    path = "spec.pgbouncer.authQuerySecret"
    secret = named_secret(observed, bouncer.auth_query_secret, path)
    if _is_basic_auth(secret, path):
        return Provisioned(
            auth_user=text_of(secret, "username", path), auth_query=query, password=text_of(secret, "password", path)
        )
    return _by_certificate(query, _key_pair(secret, path), path)


def passwords(pooler: Pooler, observed: Observed) -> dict[str, str]:
    """By user: the passwords that server logins go by, whatever becomes of the verifiers that clients showed.

    Those of `pgbouncer.users`, and the application user's, which the cluster's own Secret has (one without a user name
    and a password is somebody else's and does not count).
    """
    found: dict[str, str] = {}
    app = observed.cluster.app
    if app is not None and {"username", "password"} <= app.data.keys():
        path = "The cluster's application user"
        found[text_of(app, "username", path)] = text_of(app, "password", path)
    for index, user in enumerate(pooler.spec.pgbouncer.users):
        if user.password_secret is None:
            continue
        path = f"spec.pgbouncer.users[{index}].passwordSecret"
        secret = named_secret(observed, user.password_secret, path)
        password = text_of(secret, "password", path)
        if "username" in secret.data and text_of(secret, "username", path) != user.name:
            raise PrerequisiteError(
                Reason.INVALID_SECRET,
                f"{path}: Secret {secret.name!r} is the login of another user than {user.name!r}; name the Secret of"
                " that user.",
            )
        found[user.name] = password
    return found


def _by_certificate(query: str, pair: KeyPair, field_path: str) -> Provisioned:
    return Provisioned(
        auth_user=_common_name(pair.certificate, field_path),
        auth_query=query,
        certificate=pair.certificate,
        key=pair.key,
    )


def _is_basic_auth(secret: SecretFacts, field_path: str) -> bool:
    """The types are believed; an Opaque Secret is recognised by its keys, a password before a certificate."""
    if secret.type in {BASIC_AUTH, TLS}:
        return secret.type == BASIC_AUTH
    if {"username", "password"} <= secret.data.keys():
        return True
    if {"tls.crt", "tls.key"} <= secret.data.keys():
        return False
    present = ", ".join(sorted(secret.data)) or "none"
    raise PrerequisiteError(
        Reason.INVALID_SECRET,
        f"{field_path}: Secret {secret.name!r} of type {secret.type} has the keys {present}; "
        "it needs username and password, or tls.crt and tls.key.",
    )


def _key_pair(secret: SecretFacts, field_path: str) -> KeyPair:
    return KeyPair(key_of(secret, "tls.crt", field_path), key_of(secret, "tls.key", field_path))


def text_of(secret: SecretFacts, key: str, field_path: str) -> str:
    """One line of text, as a user name or a password is."""
    try:
        text = key_of(secret, key, field_path).decode()
    except UnicodeDecodeError:
        raise PrerequisiteError(
            Reason.INVALID_SECRET, f"{field_path}: key {key!r} of Secret {secret.name!r} is not UTF-8 text."
        ) from None
    if has_line_breaker(text):
        raise PrerequisiteError(
            Reason.INVALID_SECRET,
            f"{field_path}: key {key!r} of Secret {secret.name!r} contains a line break or control character "
            "(often one at the end, from a file); write it without.",
        )
    return text


def _common_name(certificate: bytes, field_path: str) -> str:
    try:
        subject = x509.load_pem_x509_certificate(certificate).subject
    except ValueError as error:
        raise PrerequisiteError(
            Reason.INVALID_SECRET, f"{field_path}: tls.crt is not a PEM certificate: {error}"
        ) from None
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(found[0].value) if found else ""
    if not name or has_line_breaker(name):
        raise PrerequisiteError(
            Reason.INVALID_SECRET,
            f"{field_path}: the certificate's subject has no usable common name (CN); "
            "it must be the lookup role's name.",
        )
    return name
