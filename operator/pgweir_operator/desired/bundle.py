"""The bundle: the set of files that a pod runs on, and the Secret that carries it.

Pure. The revision is handed in: it must only ever grow, and what was last written is for the caller to know
(`next_revision` decides from it).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pgweir.bundle import INI, MANIFEST, bundle_digest, bundle_manifest
from pgweir.settings import CATALOGUE_VERSION, DATABASE_SETTINGS, SETTINGS, USER_SETTINGS
from pgweir_operator.api import budget, names
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed, Provisioned, SecretFacts
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import configuration, render, secrets, skew
from pgweir_operator.desired.child import Manifest, metadata

_CLIENT_TLS_MODES: Final = frozenset({"allow", "prefer", "require", "verify-ca", "verify-full"})
_VERIFYING_MODES: Final = frozenset({"verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class Rendered:
    """A bundle before it has a revision."""

    files: dict[str, bytes] = field(repr=False)
    settings: dict[str, str] = field(repr=False)
    """Those of [pgbouncer]."""
    left_out: tuple[str, ...] = ()
    """What the Pooler asks for and the oldest pod does not know."""


def bundle_files(
    pooler: Pooler,
    observed: Observed,
    provisioned: Provisioned | None,
    *,
    revision: int,
    catalogue_version: int = CATALOGUE_VERSION,
) -> Rendered:
    """For pods that know this version of the catalogue. Raises PrerequisiteError."""
    credentials = provisioned if pooler.is_automatic else secrets.own_credentials(pooler, observed)
    files = {
        **_server_files(pooler, observed, credentials),
        **_client_files(pooler, observed),
        configuration.HBA_FILE: render.pg_hba_conf(pooler.spec.pgbouncer.pg_hba).encode(),
    }
    there = sum(not pod.ended for pod in observed.pods)
    settings = configuration.settings(
        pooler,
        credentials,
        files.keys(),
        budget.share(pooler, there),
        in_recovery=observed.cluster.in_recovery,
    )
    _check_tls(settings, files)
    _check_metrics_tls(pooler, files)
    settings, unknown = skew.known(SETTINGS, settings, catalogue_version)
    left_out = [
        name for name in unknown if name not in configuration.DEFAULTS or name in pooler.spec.pgbouncer.parameters
    ]
    entries: dict[str, dict[str, dict[str, str]]] = {"database": {}, "user": {}}
    for kind, catalogue, given in (
        ("database", DATABASE_SETTINGS, configuration.databases(pooler)),
        ("user", USER_SETTINGS, configuration.users(pooler)),
    ):
        for name, values in given.items():
            entries[kind][name], unknown = skew.known(catalogue, values, catalogue_version)
            left_out += [f"{setting} of {kind} {name}" for setting in unknown]
    files[INI] = render.pgbouncer_ini(
        name=pooler.name,
        namespace=pooler.namespace,
        databases=entries["database"],
        users=entries["user"],
        settings=settings,
    ).encode()
    files[MANIFEST] = _manifest(revision, pooler.wants_pause, catalogue_version)
    return Rendered(dict(sorted(files.items())), settings, tuple(sorted(left_out)))


def bundle_secret(pooler: Pooler, files: Mapping[str, bytes]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(pooler, names.bundle_secret_name(pooler.name)),
        "type": "Opaque",
        "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }


def revision_of(secret: SecretFacts | None) -> int:
    """The revision of a written bundle; 0 where there is none, or none that can be read."""
    if secret is None:
        return 0
    try:
        return int(json.loads(secret.data[MANIFEST])["revision"])
    except (KeyError, TypeError, ValueError):
        return 0


def next_revision(files: Mapping[str, bytes], written: SecretFacts | None, *, floor: int = 0) -> int:
    """The revision for these files: the written one while nothing changed, else one more than any that was ever seen.

    `floor` is the highest revision a pod reported: a Secret that was deleted by hand must not take the count back,
    since pods refuse a lower revision.
    """
    last = revision_of(written)
    if written is not None and last > 0 and last >= floor and bundle_digest(written.data) == bundle_digest(files):
        return last
    return max(last, floor) + 1


def with_revision(files: Mapping[str, bytes], revision: int) -> dict[str, bytes]:
    """The same files under another revision: what a caller does after next_revision."""
    document = json.loads(files[MANIFEST])
    return {**files, MANIFEST: _manifest(revision, document["paused"], document["catalogueVersion"])}


def _manifest(revision: int, paused: bool, catalogue_version: int) -> bytes:
    return bundle_manifest(revision=revision, paused=paused, catalogue_version=catalogue_version)


def _server_files(pooler: Pooler, observed: Observed, credentials: Provisioned | None) -> dict[str, bytes]:
    """What the pooler needs towards PostgreSQL."""
    files: dict[str, bytes] = {}
    passwords = secrets.passwords(pooler, observed)
    reference = pooler.spec.pgbouncer.server_ca_secret
    if reference is not None:
        files[configuration.SERVER_CA_FILE] = secrets.ca_certificate(
            observed, reference, "spec.pgbouncer.serverCASecret"
        )
    elif observed.cluster.server_ca is not None:
        files[configuration.SERVER_CA_FILE] = secrets.key_of(
            observed.cluster.server_ca, "ca.crt", "The cluster's server CA"
        )
    if credentials is not None and credentials.certificate is not None and credentials.key is not None:
        files[configuration.SERVER_CERTIFICATE_FILE] = credentials.certificate
        files[configuration.SERVER_KEY_FILE] = credentials.key
    elif credentials is not None and credentials.password is not None:
        name = pooler.spec.pgbouncer.parameters.get("auth_user", "").strip() or credentials.auth_user
        passwords[name] = credentials.password
    if passwords:
        files[configuration.USERLIST_FILE] = render.userlist_txt(passwords).encode()
    return files


def _client_files(pooler: Pooler, observed: Observed) -> dict[str, bytes]:
    """What the pooler needs towards applications."""
    files: dict[str, bytes] = {}
    bouncer = pooler.spec.pgbouncer
    if bouncer.client_tls_secret is not None:
        pair = secrets.key_pair(observed, bouncer.client_tls_secret, "spec.pgbouncer.clientTLSSecret")
    elif observed.cluster.server is not None:
        path = "The cluster's server certificate"
        pair = secrets.KeyPair(
            secrets.key_of(observed.cluster.server, "tls.crt", path),
            secrets.key_of(observed.cluster.server, "tls.key", path),
        )
    else:
        pair = None
    if pair is not None:
        files[configuration.CLIENT_CERTIFICATE_FILE] = pair.certificate
        files[configuration.CLIENT_KEY_FILE] = pair.key
    if bouncer.client_ca_secret is not None:
        files[configuration.CLIENT_CA_FILE] = secrets.ca_certificate(
            observed, bouncer.client_ca_secret, "spec.pgbouncer.clientCASecret"
        )
    elif observed.cluster.client_ca is not None and "ca.crt" in observed.cluster.client_ca.data:
        files[configuration.CLIENT_CA_FILE] = observed.cluster.client_ca.data["ca.crt"]
    return files


def _check_metrics_tls(pooler: Pooler, files: Mapping[str, bytes]) -> None:
    if pooler.spec.monitoring.tls.enabled and configuration.CLIENT_CERTIFICATE_FILE not in files:
        raise PrerequisiteError(
            Reason.MISSING_SECRET,
            "spec.monitoring.tls.enabled is true, but there is no certificate to show: name one in "
            "spec.pgbouncer.clientTLSSecret.",
        )


def _check_tls(settings: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """A mode that needs a file which nobody gave: said here, so that no pod has to refuse the bundle."""
    client_mode = settings["client_tls_sslmode"].lower()
    if client_mode in _CLIENT_TLS_MODES and configuration.CLIENT_CERTIFICATE_FILE not in files:
        raise PrerequisiteError(
            Reason.MISSING_SECRET,
            f"spec.pgbouncer.parameters.client_tls_sslmode is {client_mode}, but there is no certificate to show "
            "applications: name one in spec.pgbouncer.clientTLSSecret, or set the parameter to disable.",
        )
    if client_mode in _VERIFYING_MODES and configuration.CLIENT_CA_FILE not in files:
        raise PrerequisiteError(
            Reason.MISSING_SECRET,
            f"spec.pgbouncer.parameters.client_tls_sslmode is {client_mode}, but there is no CA to verify "
            "applications with: name one in spec.pgbouncer.clientCASecret.",
        )
    server_mode = settings["server_tls_sslmode"].lower()
    if server_mode in _VERIFYING_MODES and configuration.SERVER_CA_FILE not in files:
        raise PrerequisiteError(
            Reason.MISSING_SECRET,
            f"spec.pgbouncer.parameters.server_tls_sslmode is {server_mode}, but there is no CA to verify PostgreSQL "
            "with: name one in spec.pgbouncer.serverCASecret.",
        )
