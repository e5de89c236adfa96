"""The integration of one Pooler as a whole: which way the auth role logs in, made and proved; or why not.

A Pooler that was integrated once keeps its credentials whatever fails later: a superuser's password that changed takes
nothing from running pods. Reads Secrets' contents as observed; called by reconcile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from pgweir_operator.api import names
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import ClusterFlavour, IntegrationResult, Observed, Provisioned, SecretFacts
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.secrets import own_credentials, text_of
from pgweir_operator.integration import provisioning, sql
from pgweir_operator.integration.certificates import (
    KeyPair,
    client_certificate,
    common_name,
    is_due,
    is_issued_by,
    is_pair,
    names_of,
    server_certificate,
)
from pgweir_operator.integration.login import Credentials, Endpoint
from pgweir_operator.integration.provisioning import Administrator, ProvisionSpec
from pgweir_operator.integration.psql import Shell

# Names of the bundle's files that hold what was issued: what is written is what is reused until it is due.
_SERVER_PAIR = ("server.crt", "server.key")
_CLIENT_PAIR = ("client.crt", "client.key")


@dataclass(frozen=True, slots=True)
class Stored:
    """What an earlier reconcile wrote: the credentials that the pods have."""

    certificate: KeyPair | None = None
    password: str | None = field(default=None, repr=False)
    was_integrated: bool = False


@dataclass(frozen=True, slots=True)
class Integration:
    """The result for the status, when to look again (None: at the usual time), and whether there is something of ours
    in the target now, which somebody must take back one day."""

    result: IntegrationResult
    retry_after: float | None = None
    left_something: bool = False
    password: str | None = field(default=None, repr=False)
    """The role's, where it is another than the one that was handed in: another Pooler had set it."""
    seized: bool = False
    """The role had a password that nobody known here has set, and has ours now."""


def role_of(observed: Observed) -> str:
    native = observed.cluster.flavour is ClusterFlavour.CLOUDNATIVEPG
    return names.AUTH_ROLE_CLOUDNATIVEPG if native else names.AUTH_ROLE


def admin_host(pooler: Pooler, observed: Observed) -> str:
    """The primary, as the operator reaches it: it may run in another namespace, where a bare name is somebody else's."""
    if pooler.spec.target is not None:
        return observed.cluster.service_host or pooler.spec.target.host
    return f"{pooler.cluster_name}-rw.{pooler.namespace}.svc"


def endpoint(pooler: Pooler, observed: Observed, *, dial: tuple[str, int] | None = None) -> Endpoint:
    """Where the operator itself connects; `dial` stands in where Service names do not resolve (development)."""
    reference = pooler.spec.pgbouncer.server_ca_secret
    secret = observed.secrets.get(reference.name) if reference is not None else observed.cluster.server_ca
    host, port = dial or (admin_host(pooler, observed), pooler.target_port)
    return Endpoint(host, port, ca=secret.data.get("ca.crt") if secret is not None else None)


FindShell = Callable[[], Awaitable[Shell]]
"""How psql is found beside PostgreSQL, where the installation allows it."""


async def administrator(pooler: Pooler, observed: Observed, find_shell: FindShell | None) -> Administrator:
    """A superuser by Secret, else psql in the primary's pod. Raises where there is neither."""
    secret = observed.cluster.superuser
    if secret is not None:
        path = "spec.target.adminSecret" if pooler.spec.target is not None else "The cluster's superuser"
        return Credentials(text_of(secret, "username", path), password=text_of(secret, "password", path))
    target = pooler.spec.target
    if target is None and find_shell is not None:
        return await find_shell()
    if target is not None and target.admin_secret is None:
        missing = "spec.target.adminSecret names no superuser, so nothing can be provisioned."
    else:
        missing = f"Secret {_superuser_secret(pooler)!r} with a superuser's username and password does not exist."
    raise PrerequisiteError(Reason.NO_ADMIN_ACCESS, missing)


def _superuser_secret(pooler: Pooler) -> str:
    target = pooler.spec.target
    if target is None:
        return f"{pooler.cluster_name}-superuser"
    return target.admin_secret.name if target.admin_secret is not None else ""


def _ways_out(pooler: Pooler, observed: Observed, find_shell: FindShell | None) -> str:
    """What a person can do where there is no administrative access; the last of it always works."""
    ways = []
    if pooler.spec.target is not None:
        ways.append("Name a Secret with a superuser's username and password in spec.target.adminSecret")
    else:
        ways.append(f"Create Secret {_superuser_secret(pooler)!r} (CloudNativePG: enableSuperuserAccess: true)")
        if find_shell is None:
            ways.append("let the operator run psql in the primary's pod (the chart's value provisioning.exec: true)")
    manual = sql.manual(role_of(observed), ["postgres"])
    return f"{', or '.join(ways)}, or run this and set pgbouncer.authQuery with a Secret:\n{manual}"


async def integrate(
    pooler: Pooler,
    observed: Observed,
    stored: Stored,
    *,
    now: float,
    dial: tuple[str, int] | None = None,
    find_shell: FindShell | None = None,
    holders: provisioning.FindHolders = provisioning.nobody,
    announce: provisioning.Announce = provisioning.nothing,
    may_seize: bool = True,
) -> Integration:
    """Never raises a PrerequisiteError: each becomes the result's reason."""
    role = role_of(observed)
    if not pooler.is_automatic:
        return await _manual(pooler, observed, role, dial)
    kept = _kept(stored, role)
    left_something = False
    made = provisioning.Made()
    try:
        if not observed.cluster.found:
            raise PrerequisiteError(
                Reason.TARGET_NOT_FOUND,
                f"Service {observed.cluster.host!r} of cluster {observed.cluster.name!r} does not exist in namespace"
                f" {pooler.namespace!r}.",
            )
        where = endpoint(pooler, observed, dial=dial)
        admin = await administrator(pooler, observed, find_shell)
        login = _login(role, observed, stored, now)
        spec = ProvisionSpec(role, password=login.password, holders=holders, announce=announce, may_seize=may_seize)
        made = await provisioning.provision(where, admin, spec)
        left_something = True
        if login.password is not None:
            login = replace(login, password=made.password)
        capacity = await provisioning.check_login(where, login, query=names.AUTH_QUERY, database=names.AUTH_DATABASE)
    except PrerequisiteError as error:
        message = error.message
        if error.reason is Reason.LOOKUP_FAILED and observed.cluster.client_ca is not None:
            message += f" Does pg_hba.conf have `hostssl all {role} all cert` before its other lines?"
        if error.reason is Reason.NO_ADMIN_ACCESS:
            message += f" {_ways_out(pooler, observed, find_shell)}"
        result = IntegrationResult("False", error.reason, message, kept)
        return Integration(
            result,
            retry_after=error.retry_after,
            left_something=left_something,
            password=_another(made, stored),
            seized=made.seized,
        )
    provisioned = Provisioned(
        auth_user=role,
        auth_query=names.AUTH_QUERY,
        auth_dbname=names.AUTH_DATABASE,
        certificate=login.certificate.certificate if login.certificate else None,
        key=login.certificate.key if login.certificate else None,
        password=login.password,
    )
    way = "certificate" if login.certificate else "password"
    message = f"{role} logged in at {where} by {way} and ran the lookup."
    return Integration(
        IntegrationResult("True", Reason.LOOKUP_SUCCEEDED, message, provisioned, capacity),
        left_something=left_something,
        password=_another(made, stored),
        seized=made.seized,
    )


def _another(made: provisioning.Made, stored: Stored) -> str | None:
    return made.password if made.password != stored.password else None


async def _manual(pooler: Pooler, observed: Observed, role: str, dial: tuple[str, int] | None) -> Integration:
    """Nothing is made; the user's own lookup role is asked what PostgreSQL has room for, which every role may know."""
    message = "The lookup is the user's own (authQuery with a Secret); it needs in PostgreSQL:\n"
    result = IntegrationResult("False", Reason.MANUAL, message + sql.manual(role, ["postgres"]))
    if not observed.cluster.found:
        return Integration(result)
    try:
        own = own_credentials(pooler, observed)
        pair = KeyPair(own.certificate, own.key) if own.certificate and own.key else None
        login = Credentials(own.auth_user, password=own.password, certificate=pair)
        room = await provisioning.capacity(endpoint(pooler, observed, dial=dial), login, names.AUTH_DATABASE)
    except PrerequisiteError as error:
        again = error.retry_after if error.reason is Reason.TARGET_UNAVAILABLE else None
        return Integration(replace(result, capacity_error=error.message), retry_after=again)
    return Integration(replace(result, capacity=room))


def with_own_certificate(pooler: Pooler, observed: Observed, *, now: float) -> Observed:
    """The pooler's own server certificate in place of the cluster's, which has none of the pooler's names.

    Where the cluster's CA has no key, the cluster's certificate is reused as it is.
    """
    if pooler.spec.pgbouncer.client_tls_secret is not None:
        return observed
    ca = _authority(observed.cluster.server_ca)
    pair = _written(observed.bundle, _CLIENT_PAIR)
    if ca is None:
        # A cluster's Secret that is gone for a while does not take TLS from running pods.
        return observed if observed.cluster.server is not None or pair is None else _showing(observed, pooler, pair)
    wanted = service_names(pooler)
    if pair is None or not _is_good(pair, ca, now) or names_of(pair.certificate) != frozenset(wanted):
        pair = server_certificate(ca, wanted, now=now)
    return _showing(observed, pooler, pair)


def _showing(observed: Observed, pooler: Pooler, pair: KeyPair) -> Observed:
    shown = SecretFacts(
        name=f"issued for {pooler.name}",
        type="kubernetes.io/tls",
        resource_version="",
        data={"tls.crt": pair.certificate, "tls.key": pair.key},
        issued=True,
    )
    return replace(observed, cluster=replace(observed.cluster, server=shown))


def service_names(pooler: Pooler) -> tuple[str, ...]:
    """What applications may call the pooler."""
    name, namespace = pooler.name, pooler.namespace
    return (
        f"{name}.{namespace}.svc.cluster.local",
        f"{name}.{namespace}.svc",
        f"{name}.{namespace}",
        name,
        "localhost",
    )


def stored(observed: Observed, password: str | None) -> Stored:
    """What the written bundle says of an earlier integration."""
    bundle = observed.bundle
    if bundle is None or not bundle.owned:
        return Stored(password=password)
    pair = _written(bundle, _SERVER_PAIR)
    # WHY not the userlist alone: the passwords of applications stand there before anything was integrated.
    by_password = "userlist.txt" in bundle.data and b"\nauth_query = " in bundle.data.get("pgbouncer.ini", b"")
    return Stored(pair, password, was_integrated=pair is not None or by_password)


def logs_in_by_certificate(observed: Observed) -> bool:
    """Where the cluster's client CA can be signed with, no password is needed."""
    return _authority(observed.cluster.client_ca) is not None


def _login(role: str, observed: Observed, stored: Stored, now: float) -> Credentials:
    """By certificate where the cluster's CA can sign one, else by a password of our own making."""
    ca = _authority(observed.cluster.client_ca)
    if ca is None:
        return Credentials(role, password=stored.password)
    pair = stored.certificate
    if pair is None or not _is_good(pair, ca, now) or common_name(pair.certificate) != role:
        pair = client_certificate(ca, role, now=now)
    return Credentials(role, certificate=pair)


def _kept(stored: Stored, role: str) -> Provisioned | None:
    if not stored.was_integrated:
        return None
    pair = stored.certificate
    if pair is not None and common_name(pair.certificate) != role:
        return None  # The user's own, from before the Pooler became automatic.
    return Provisioned(
        auth_user=role,
        auth_query=names.AUTH_QUERY,
        auth_dbname=names.AUTH_DATABASE,
        certificate=pair.certificate if pair else None,
        key=pair.key if pair else None,
        password=None if pair else stored.password,
    )


def _authority(secret: SecretFacts | None) -> KeyPair | None:
    if secret is None or not secret.data.get("ca.key") or not secret.data.get("ca.crt"):
        return None
    return KeyPair(secret.data["ca.crt"], secret.data["ca.key"])


def _written(bundle: SecretFacts | None, files: tuple[str, str]) -> KeyPair | None:
    if bundle is None or not bundle.owned or not all(bundle.data.get(name) for name in files):
        return None
    return KeyPair(bundle.data[files[0]], bundle.data[files[1]])


def _is_good(pair: KeyPair, ca: KeyPair, now: float) -> bool:
    return is_pair(pair) and not is_due(pair.certificate, now=now) and is_issued_by(pair.certificate, ca.certificate)
