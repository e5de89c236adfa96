"""The desired state as a whole: what is wanted, what is not, which Secrets it asks for, and when pods roll."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.pgweir_operator import worlds
from tests.pgweir_operator.worlds import observed, pooler, provisioned, secret

from pgweir.bundle import bundle_digest
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed, Provisioned
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import ChildReference, Desired, default_image, desired_state

OWN = {"authQuery": "SELECT 1, 2"}


def state(of: Pooler, seen: Observed | None = None, by: Provisioned | None = None, **more: Any) -> Desired:
    return desired_state(of, seen or observed(of), by or provisioned(), image="pgweir-pooler:1", **more)


def ini(of: Desired) -> dict[str, str]:
    lines = of.bundle_files["pgbouncer.ini"].decode().splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def kinds(of: Desired) -> list[str]:
    return [manifest["kind"] for manifest in of.manifests]


def pair(common_name: str) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(worlds.NOW)
        .not_valid_after(worlds.NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return {
        "tls_crt": certificate.public_bytes(serialization.Encoding.PEM),
        "tls_key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }


def refused(of: Pooler, seen: Observed | None = None) -> PrerequisiteError:
    with pytest.raises(PrerequisiteError) as caught:
        state(of, seen)
    return caught.value


# --- children --------------------------------------------------------------------------------------------------------


def test_a_replica_clusters_first_is_a_standby_and_is_used_all_the_same() -> None:
    subject = pooler()
    seen = observed(subject, cluster=replace(worlds.cluster(subject), in_recovery=True))
    assert "target_session_attrs" not in ini(state(subject, seen))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"cluster": {"name": "shop"}}, "primary"),
        ({"cluster": {"name": "shop"}, "type": "ro"}, None),
        ({"cluster": {"name": "shop"}, "type": "r"}, None),
        ({"target": {"host": "db"}}, None),
        ({"cluster": {"name": "shop"}, "pgbouncer": {"parameters": {"target_session_attrs": "any"}}}, "any"),
    ],
)
def test_who_pools_the_primary_of_a_cluster_never_uses_a_standby(spec: dict[str, Any], word: str | None) -> None:
    assert ini(state(pooler(**spec))).get("target_session_attrs") == word


def test_the_deployment_is_applied_last_so_that_its_pods_find_everything() -> None:
    assert kinds(state(pooler(instances=3))) == [
        "ServiceAccount", "PodDisruptionBudget", "Secret", "Service", "Service", "Deployment",
    ]  # fmt: skip


def test_a_single_pod_has_no_disruption_budget_and_an_old_one_is_named_for_pruning() -> None:
    result = state(pooler(instances=1))
    assert "PodDisruptionBudget" not in kinds(result)
    assert ChildReference("policy/v1", "PodDisruptionBudget", "pooler") in result.unwanted


@pytest.mark.parametrize(("asked", "known", "made"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_a_pod_monitor_is_made_when_asked_for_and_known(asked: bool, known: bool, made: int) -> None:
    subject = pooler(instances=2, monitoring={"enablePodMonitor": asked})
    result = state(subject, observed(subject, pod_monitors_known=known))
    assert kinds(result).count("PodMonitor") == made
    # A kind that the API server does not know cannot be deleted either.
    assert ("PodMonitor" in {reference.kind for reference in result.unwanted}) == (known and not asked)


def test_an_own_service_account_is_used_and_none_is_made() -> None:
    result = state(pooler(serviceAccountName="mine"))
    assert "ServiceAccount" not in kinds(result)
    assert result.manifests[-1]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_the_grace_period_covers_the_drain() -> None:
    spec = state(pooler(drain={"acceptSeconds": 20, "timeoutSeconds": 300})).manifests[-1]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= 320


def test_the_default_image_is_what_the_installation_says_else_the_operators_own_version() -> None:
    assert default_image({"PGWEIR_POOLER_IMAGE": "registry/x:2"}, "0.1.0") == "registry/x:2"
    assert default_image({}, "0.1.0") == "pgweir-pooler:0.1.0"


def test_a_cluster_name_that_is_no_label_value_is_left_out_of_the_labels() -> None:
    result = state(pooler(cluster={"name": "a" * 64}))
    assert "pgweir.io/cluster" not in result.manifests[-1]["metadata"]["labels"]


# --- what stops everything -------------------------------------------------------------------------------------------


def test_a_name_that_belongs_to_a_cluster_is_refused() -> None:
    subject = pooler()
    error = refused(subject, observed(subject, name_taken_by="Cluster pooler"))
    assert (error.reason, "Cluster pooler" in error.message) == (Reason.NAME_CONFLICT, True)


def test_a_strangers_object_is_never_adopted() -> None:
    subject = pooler()
    assert refused(subject, observed(subject, strangers=("Service pooler",))).reason is Reason.NOT_OWNED


def test_a_missing_service_account_is_named() -> None:
    subject = pooler(serviceAccountName="mine")
    error = refused(subject, observed(subject, service_account_exists=False))
    assert error.reason is Reason.MISSING_SERVICE_ACCOUNT
    assert "'mine'" in error.message


@pytest.mark.parametrize(
    "field", ["authQuerySecret", "serverTLSSecret", "serverCASecret", "clientTLSSecret", "clientCASecret"]
)
def test_a_secret_that_does_not_exist_is_named_with_its_field(field: str) -> None:
    own = OWN if field in {"authQuerySecret", "serverTLSSecret"} else {}
    subject = pooler(pgbouncer={**own, field: {"name": "gone"}})
    error = refused(subject, observed(subject, secrets={"gone": None}))
    assert error.reason is Reason.MISSING_SECRET
    assert error.message == f"spec.pgbouncer.{field} names Secret 'gone', which does not exist; create it."


@pytest.mark.parametrize(
    ("field", "given", "missing"),
    [
        ("serverCASecret", {"tls_crt": "x"}, "ca.crt"),
        ("clientCASecret", {}, "ca.crt"),
        ("clientTLSSecret", {"tls_crt": "x"}, "tls.key"),
        ("serverTLSSecret", {"tls_key": "x"}, "tls.crt"),
    ],
)
def test_a_secret_without_a_key_is_refused_with_the_keys_name(field: str, given: dict[str, str], missing: str) -> None:
    own = OWN if field == "serverTLSSecret" else {}
    subject = pooler(pgbouncer={**own, field: {"name": "s"}})
    error = refused(subject, observed(subject, secrets={"s": secret("s", **given)}))
    assert error.reason is Reason.INVALID_SECRET
    assert f"no key '{missing}'" in error.message


# --- the lookup's login ----------------------------------------------------------------------------------------------


def test_a_provisioned_certificate_is_shown_to_postgresql() -> None:
    result = state(pooler())
    assert result.bundle_files["server.crt"] == b"AUTH CERTIFICATE\n"
    assert ini(result)["auth_user"] == "cnp_pooler_pgbouncer"
    assert ini(result)["server_tls_cert_file"] == "server.crt"
    assert "auth_file" not in ini(result)


def test_a_provisioned_password_goes_into_the_userlist() -> None:
    result = state(pooler(), by=Provisioned(auth_user="u", auth_query="q", password="p"))
    assert result.bundle_files["userlist.txt"] == b'"u" "p"\n'
    assert ini(result)["auth_file"] == "userlist.txt"
    assert "server_tls_cert_file" not in ini(result)


def test_before_anything_is_provisioned_the_configuration_has_no_lookup() -> None:
    subject = pooler()
    result = desired_state(subject, observed(subject), None, image="i")
    assert not {"auth_user", "auth_query", "auth_dbname"} & ini(result).keys()


@pytest.mark.parametrize("type", ["kubernetes.io/basic-auth", "Opaque"])
def test_an_own_password_secret_logs_in_by_password(type: str) -> None:
    subject = pooler(pgbouncer={**OWN, "authQuerySecret": {"name": "s"}})
    result = state(subject, observed(subject, secrets={"s": secret("s", type=type, username="me", password="pw")}))
    assert result.bundle_files["userlist.txt"] == b'"me" "pw"\n'
    assert (ini(result)["auth_user"], ini(result)["auth_query"]) == ("me", "SELECT 1, 2")


@pytest.mark.parametrize("type", ["kubernetes.io/tls", "Opaque"])
def test_an_own_certificate_secret_logs_in_as_its_common_name(type: str) -> None:
    subject = pooler(pgbouncer={**OWN, "authQuerySecret": {"name": "s"}})
    result = state(subject, observed(subject, secrets={"s": secret("s", type=type, **pair("looker"))}))
    assert ini(result)["auth_user"] == "looker"
    assert "userlist.txt" not in result.bundle_files


def test_the_server_certificate_wins_over_the_lookups_secret_which_is_not_even_read() -> None:
    subject = pooler(pgbouncer={**OWN, "authQuerySecret": {"name": "gone"}, "serverTLSSecret": {"name": "s"}})
    result = state(subject, observed(subject, secrets={"gone": None, "s": secret("s", **pair("by-certificate"))}))
    assert ini(result)["auth_user"] == "by-certificate"


def test_the_auth_user_parameter_changes_the_name_alone() -> None:
    subject = pooler(
        pgbouncer={**OWN, "authQuerySecret": {"name": "s"}, "parameters": {"auth_user": "other"}},
    )
    result = state(subject, observed(subject, secrets={"s": secret("s", username="me", password="pw")}))
    assert ini(result)["auth_user"] == "other"
    assert result.bundle_files["userlist.txt"] == b'"other" "pw"\n'


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"username": "me"}, "it needs username and password, or tls.crt and tls.key"),
        ({"username": "me", "password": "pw\n"}, "line break"),
        ({"username": "me", "password": b"\xff"}, "not UTF-8"),
        ({"tls_crt": "no", "tls_key": "no"}, "not a PEM certificate"),
        (pair(""), "no usable common name"),
    ],
)
def test_a_lookup_secret_that_cannot_be_used_says_why(given: dict[str, Any], words: str) -> None:
    subject = pooler(pgbouncer={**OWN, "authQuerySecret": {"name": "s"}})
    error = refused(subject, observed(subject, secrets={"s": secret("s", **given)}))
    assert error.reason is Reason.INVALID_SECRET
    assert words in error.message
    assert "pw" not in error.message


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_with_the_clusters_secrets_both_sides_are_encrypted_by_default() -> None:
    settings = ini(state(pooler()))
    assert (settings["client_tls_sslmode"], settings["server_tls_sslmode"]) == ("prefer", "verify-ca")


def test_without_any_secret_clients_come_in_clear_text_and_postgresql_is_asked_for_tls() -> None:
    subject = pooler(target={"host": "db"})
    settings = ini(state(subject))
    assert (settings["client_tls_sslmode"], settings["server_tls_sslmode"]) == ("disable", "prefer")


@pytest.mark.parametrize(
    ("parameter", "value", "fix"),
    [
        ("client_tls_sslmode", "require", "clientTLSSecret"),
        ("server_tls_sslmode", "verify-full", "serverCASecret"),
    ],
)
def test_a_tls_mode_without_its_files_is_refused_with_the_field_that_brings_them(
    parameter: str, value: str, fix: str
) -> None:
    subject = pooler(target={"host": "db"}, pgbouncer={"parameters": {parameter: value}})
    error = refused(subject)
    assert error.reason is Reason.MISSING_SECRET
    assert fix in error.message


# --- settings, revisions, restarts -----------------------------------------------------------------------------------


def test_the_users_ignored_parameters_are_appended_to_ours() -> None:
    result = state(pooler(pgbouncer={"parameters": {"ignore_startup_parameters": "search_path, options,"}}))
    assert ini(result)["ignore_startup_parameters"] == "extra_float_digits,options,search_path"


def test_a_default_yields_to_the_user_and_an_enforced_setting_to_nobody() -> None:
    result = state(pooler(pgbouncer={"parameters": {"log_stats": "1", "listen_port": "1"}}))
    assert (ini(result)["log_stats"], ini(result)["listen_port"]) == ("1", "5432")


def test_only_a_change_of_a_restart_setting_changes_the_restart_digest() -> None:
    plain = state(pooler()).restart_digest
    assert state(pooler(pgbouncer={"parameters": {"default_pool_size": "5"}})).restart_digest == plain
    assert state(pooler(paused=True, instances=9)).restart_digest == plain
    assert state(pooler(pgbouncer={"parameters": {"listen_backlog": "512"}})).restart_digest != plain


def written(of: Desired) -> Any:
    return replace(secret("pooler"), data=dict(of.bundle_files))


def test_the_revision_stays_while_nothing_changes_and_grows_with_every_change() -> None:
    first = state(pooler())
    assert first.revision == 1
    again = state(pooler(), observed(pooler(), bundle=written(first)))
    assert (again.revision, dict(again.bundle_files)) == (1, dict(first.bundle_files))
    paused = pooler(paused=True)
    third = state(paused, observed(paused, bundle=written(again)))
    assert third.revision == 2
    assert bundle_digest(third.bundle_files) != bundle_digest(first.bundle_files)


def test_a_deleted_bundle_does_not_take_the_revision_back_below_what_a_pod_reported() -> None:
    assert state(pooler(), revision_floor=7).revision == 8


def test_a_bundle_that_somebody_spoiled_is_replaced_by_a_higher_revision() -> None:
    first = state(pooler())
    spoiled = replace(secret("pooler"), data={**first.bundle_files, "pgbouncer.ini": b""})
    assert state(pooler(), observed(pooler(), bundle=spoiled)).revision == 2
    unreadable = replace(secret("pooler"), data={"bundle.json": b"{"})
    assert state(pooler(), observed(pooler(), bundle=unreadable), revision_floor=4).revision == 5
