"""A PostgreSQL target for end-to-end tests, as a Pooler finds one: by the cluster contract.

It gives manifests and touches nothing: Services `<cluster>-rw|-ro|-r`, Secrets `<cluster>-superuser|-ca|-server|-app`,
and a StatefulSet `<cluster>` of real PostgreSQL with TLS on, whose pg_hba.conf lets the pooler's own role in by
certificate alone. Certificates and passwords are made afresh by each call. Used by the tests, and by hand:

    python -m e2e.target shop cluster-example --apply
"""

from __future__ import annotations

import argparse
import datetime
import json
import secrets
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Manifest = dict[str, Any]

IMAGE = "localhost/pgweir-postgres:15"
UID = 999  # of postgres in that image (images/postgres.Dockerfile)
POOLER_ROLES = ("cnp_pooler_pgbouncer", "cnpg_pooler_pgbouncer")
APPLICATION = "app"  # the application's role and its database

START = """\
set -euo pipefail
export PGDATA=/data/pgdata
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ "${HOSTNAME##*-}" = 0 ]; then
    initdb --no-sync --username=postgres --pwfile=/etc/postgres/superuser/password \\
      --encoding=UTF8 --locale=C.UTF-8 > /dev/null
    # Nobody is let in before the application's role and database are there.
    pg_ctl --wait --silent start \\
      --options="-c listen_addresses='' -c unix_socket_directories=/run/postgresql -c fsync=off"
    psql --quiet --host=/run/postgresql --username=postgres \\
      --set=ON_ERROR_STOP=1 --set=password="$APPLICATION_PASSWORD" << SQL
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE DATABASE app OWNER app;
SQL
    pg_ctl --wait --silent --mode=fast stop
  else
    until pg_basebackup --pgdata="$PGDATA" --write-recovery-conf --checkpoint=fast --no-sync \\
      --dbname="host=$PRIMARY_HOST user=postgres sslmode=require"; do rm -rf "$PGDATA"; sleep 1; done
  fi
fi
# A copy, so that whoever tests may take a line out of it: the mounted one follows its ConfigMap a minute late.
cp /etc/postgres/config/pg_hba.conf /data/pg_hba.conf
exec postgres --config-file=/etc/postgres/config/postgresql.conf
"""

CONFIGURATION = """\
data_directory = '/data/pgdata'
hba_file = '/data/pg_hba.conf'
listen_addresses = '*'
unix_socket_directories = '/run/postgresql'
max_connections = {max_connections}
password_encryption = 'scram-sha-256'
ssl = on
ssl_cert_file = '/etc/postgres/server/tls.crt'
ssl_key_file = '/etc/postgres/server/tls.key'
ssl_ca_file = '/etc/postgres/ca/ca.crt'
shared_buffers = 64MB
# Tests lose nothing when the machine does.
fsync = off
synchronous_commit = off
full_page_writes = off
jit = off
log_line_prefix = '%m [%p] %q%u@%d/%a '
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str


class Authority:
    """A certificate authority of tests: it issues what a server or a client shows."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _certificate_builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._certificate = certificate
        self.pem = Certificate(_pem(certificate), _key_pem(self._key))

    def issue(self, common_name: str, dns_names: Sequence[str] = (), *, days: float = 90) -> Certificate:
        """A certificate for both sides of a connection; a server needs the names that clients will ask for. With `days`
        below 0 it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _certificate_builder(subject, self._name, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if dns_names:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names])
            builder = builder.add_extension(names, critical=False)
        return Certificate(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key))


def _certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float = 90
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back: the clocks of two machines differ.
        .not_valid_before(min(now, ends) - datetime.timedelta(hours=1))
        .not_valid_after(ends)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def service_names(namespace: str, cluster: str) -> list[str]:
    """Every DNS name under which the cluster's Services are asked for."""
    return [
        f"{cluster}-{kind}{suffix}"
        for kind in ("rw", "ro", "r")
        for suffix in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    ]


def manifests(
    namespace: str,
    cluster: str,
    *,
    max_connections: int = 100,
    instances: int = 1,
    image: str = IMAGE,
    authority: Authority | None = None,
) -> list[Manifest]:
    """Everything of a target but its namespace.

    instances=2 adds a streaming standby: `-rw` leads to the first pod, `-ro` to the second, `-r` to both. A test of a
    switchover promotes the second and points `-rw` to it. Of several standbys `-ro` leads to the last one. With one
    instance, all three Services lead to it.
    """
    if instances < 1:
        raise ValueError(f"instances is {instances}; a target has 1, 2 for one with a standby, or more")
    authority = authority or Authority(f"{cluster}-ca")
    server = authority.issue(f"{cluster}-rw", service_names(namespace, cluster))
    labels = {"pgweir.io/e2e-target": cluster}

    def manifest(api_version: str, kind: str, name: str, **body: object) -> Manifest:
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}

    def secret(name: str, kind: str, **data: str) -> Manifest:
        return manifest("v1", "Secret", f"{cluster}-{name}", type=kind, stringData=data)

    def login(username: str) -> dict[str, str]:
        return {"username": username, "password": secrets.token_urlsafe(24)}

    def service(kind: str, pod: int | None) -> Manifest:
        selector = dict(labels)
        if pod is not None:
            selector["statefulset.kubernetes.io/pod-name"] = f"{cluster}-{pod}"
        ports = [{"name": "postgres", "port": 5432, "targetPort": "postgres"}]
        return manifest("v1", "Service", f"{cluster}-{kind}", spec={"selector": selector, "ports": ports})

    configuration = {
        "start.sh": START,
        "postgresql.conf": CONFIGURATION.format(max_connections=max_connections),
        "pg_hba.conf": _pg_hba(),
    }
    return [
        secret("superuser", "kubernetes.io/basic-auth", **login("postgres")),
        secret("app", "kubernetes.io/basic-auth", dbname=APPLICATION, **login(APPLICATION)),
        secret("ca", "Opaque", **{"ca.crt": authority.pem.certificate, "ca.key": authority.pem.key}),
        secret("server", "kubernetes.io/tls", **{"tls.crt": server.certificate, "tls.key": server.key}),
        manifest("v1", "ConfigMap", f"{cluster}-postgres", data=configuration),
        service("rw", 0),
        service("ro", instances - 1),
        service("r", None),
        manifest("apps/v1", "StatefulSet", cluster, spec=_stateful_set_spec(cluster, labels, instances, image)),
    ]


def _pg_hba() -> str:
    by_certificate = [f"hostssl all {role} all cert" for role in POOLER_ROLES]
    lines = [
        "local all all trust",
        *by_certificate,
        "host replication all all scram-sha-256",
        "host all all all scram-sha-256",
    ]
    return "\n".join(lines) + "\n"


def _stateful_set_spec(cluster: str, labels: dict[str, str], instances: int, image: str) -> Manifest:
    def password(secret: str) -> Manifest:
        return {"secretKeyRef": {"name": f"{cluster}-{secret}", "key": "password"}}

    def of_secret(name: str, *, only: str | None = None) -> Manifest:
        # 0640 and root's: the one mode in which PostgreSQL reads a key that is not its own.
        volume: Manifest = {"secretName": f"{cluster}-{name}", "defaultMode": 0o640}
        if only:
            volume["items"] = [{"key": only, "path": only}]
        return {"name": name, "secret": volume}

    container = {
        "name": "postgres",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "/etc/postgres/config/start.sh"],
        "env": [
            {"name": "APPLICATION_PASSWORD", "valueFrom": password("app")},
            {"name": "PGPASSWORD", "valueFrom": password("superuser")},
            {"name": "PRIMARY_HOST", "value": f"{cluster}-rw"},
        ],
        "ports": [{"name": "postgres", "containerPort": 5432}],
        # A command in the container is dear (20 times a TCP check): it is run until the first yes only.
        "startupProbe": {
            "exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1"]},
            "periodSeconds": 1,
            "failureThreshold": 180,
        },
        "readinessProbe": {"tcpSocket": {"port": "postgres"}, "periodSeconds": 2},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "run", "mountPath": "/run/postgresql"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": "/etc/postgres/config"},
            {"name": "superuser", "mountPath": "/etc/postgres/superuser"},
            {"name": "server", "mountPath": "/etc/postgres/server"},
            {"name": "ca", "mountPath": "/etc/postgres/ca"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "run", "emptyDir": {"medium": "Memory"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "config", "configMap": {"name": f"{cluster}-postgres"}},
            of_secret("superuser", only="password"),
            of_secret("server"),
            of_secret("ca", only="ca.crt"),
        ],
    }
    return {
        "serviceName": f"{cluster}-r",
        "replicas": instances,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.target", description="A PostgreSQL target, as JSON manifests.")
    parser.add_argument("namespace")
    parser.add_argument("cluster")
    parser.add_argument("--max-connections", type=int, default=100)
    parser.add_argument("--instances", type=int, choices=(1, 2), default=1)
    parser.add_argument("--apply", action="store_true", help="apply them to the cluster, and wait until it is Ready")
    options = parser.parse_args(arguments)
    made = manifests(
        options.namespace,
        options.cluster,
        max_connections=options.max_connections,
        instances=options.instances,
    )
    if not options.apply:
        json.dump({"apiVersion": "v1", "kind": "List", "items": made}, sys.stdout, indent=2)
        print()
        return 0

    from e2e.kubernetes_access import Kubernetes

    with closing(Kubernetes()) as kubernetes:
        if kubernetes.find("statefulset", options.cluster, namespace=options.namespace):
            # Other passwords than those the running server was made with would lock everybody out.
            print(f"there is a target {options.cluster} in namespace {options.namespace} already", file=sys.stderr)
            return 1
        kubernetes.ensure_namespace(options.namespace)
        kubernetes.apply(made)
        kubernetes.rolled_out("statefulset", options.cluster, namespace=options.namespace)
    print(
        f"{options.cluster} in namespace {options.namespace} is Ready; Secrets {options.cluster}-superuser, -app, -ca"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
