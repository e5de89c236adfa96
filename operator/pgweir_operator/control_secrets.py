"""The two control Secrets of a Pooler: what they hold, read and written. Pure.

`<pooler>-control` goes into the pods (their certificate, whom they trust, the token of their REST interface);
`<pooler>-control-ca` is the operator's own and is mounted nowhere. Called by reconcile.
"""

from __future__ import annotations

import base64
from typing import Any

from pgweir_operator.api import names
from pgweir_operator.api.observed import SecretFacts
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import metadata
from pgweir_operator.fleet import Identity
from pgweir_operator.integration.certificates import KeyPair
from pgweir_operator.integration.control import ControlCertificates

PASSWORD_KEY = "auth-password"  # noqa: S105 (the name of a key)


def certificates(pods: SecretFacts | None, authority: SecretFacts | None) -> ControlCertificates | None:
    """As written; None where nothing usable is there."""
    if authority is None or not authority.owned:
        return None
    own = authority.data
    theirs = pods.data if pods is not None and pods.owned else {}
    if not own.get("ca.crt") or not own.get("ca.key"):
        return None
    upcoming = KeyPair(own["next-ca.crt"], own["next-ca.key"]) if own.get("next-ca.crt") else None
    return ControlCertificates(
        trusted=theirs.get("ca.crt") or own["ca.crt"],
        signing=KeyPair(own["ca.crt"], own["ca.key"]),
        pod=KeyPair(theirs.get("tls.crt", b""), theirs.get("tls.key", b"")),
        operator=KeyPair(own.get("tls.crt", b""), own.get("tls.key", b"")),
        upcoming=upcoming,
        upcoming_since=float(own.get("next-ca-since") or 0),
    )


def identity(certificates: ControlCertificates) -> Identity:
    return Identity(certificates.trusted, certificates.operator.certificate, certificates.operator.key)


def manifests(
    pooler: Pooler, certificates: ControlCertificates, *, token: bytes, password: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {
        "ca.crt": certificates.signing.certificate,
        "ca.key": certificates.signing.key,
        "tls.crt": certificates.operator.certificate,
        "tls.key": certificates.operator.key,
    }
    if certificates.upcoming is not None:
        own |= {
            "next-ca.crt": certificates.upcoming.certificate,
            "next-ca.key": certificates.upcoming.key,
            "next-ca-since": str(int(certificates.upcoming_since)).encode(),
        }
    if password is not None:
        own[PASSWORD_KEY] = password.encode()
    theirs = {
        "ca.crt": certificates.trusted,
        "tls.crt": certificates.pod.certificate,
        "tls.key": certificates.pod.key,
        "token": token,
    }
    return (
        _secret(pooler, names.control_ca_secret_name(pooler.name), own),
        _secret(pooler, names.control_secret_name(pooler.name), theirs),
    )


def _secret(pooler: Pooler, name: str, data: dict[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(pooler, name),
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode("ascii") for key, value in data.items()},
    }
