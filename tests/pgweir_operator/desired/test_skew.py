"""Pods of an older image: what the oldest does not know is left out and named, and it starts whatever was added."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir_operator.desired.test_state import ini, state
from tests.pgweir_operator.worlds import observed, pod, pooler

from pgweir.bundle import MANIFEST, read_bundle
from pgweir.settings import CATALOGUE_VERSION, DATABASE_SETTINGS, SETTINGS
from pgweir_operator.api.observed import PodAnswer, PodReport, PodSilence
from pgweir_operator.desired import configuration, skew

NEW = {"client_overflow": "wait", "default_pool_size": "7"}

# The flags that the very first image knows. This list may never grow: see desired/deployment.py.
FLAGS = [
    "--json-log",
    "--state-dir",
    "--control-listen",
    "--control-dir",
    "--http-listen",
    "--metrics-listen",
    "--drain-accept-seconds",
    "--drain-seconds",
]


def report(name: str, version: int) -> PodReport:
    return PodReport(pod=name, revision=1, digest="d", state="active", paused=False, catalogue_version=version)


def oldest(*pods: Any, rows: tuple[dict[str, Any], ...] = (), **answers: PodAnswer) -> skew.Oldest:
    subject = pooler(instances=3).model_copy(update={"status": {"pods": list(rows)}})
    return skew.oldest(subject, observed(subject, pods=pods), answers)


# --- what is rendered ------------------------------------------------------------------------------------------------


def test_what_the_oldest_pod_does_not_know_is_left_out_and_named() -> None:
    subject = pooler(pgbouncer={"parameters": NEW})
    rendered = state(subject, catalogue_version=1)
    assert "client_overflow" not in ini(rendered)
    assert ini(rendered)["default_pool_size"] == "7"
    assert rendered.left_out == ("client_overflow",)
    assert read_bundle(rendered.bundle_files).catalogue_version == 1
    assert "client_overflow" in ini(state(subject))
    assert state(subject).left_out == ()


def test_a_word_that_came_later_is_left_out_with_its_setting() -> None:
    assert skew.known(SETTINGS, {"auth_type": "ldap"}, 1) == ({}, ["auth_type"])
    assert skew.known(SETTINGS, {"auth_type": "md5"}, 1) == ({"auth_type": "md5"}, [])
    assert skew.known(DATABASE_SETTINGS, {"host": "h", "pool_size": "3"}, 1)[1] == []


def test_a_budget_that_old_pods_cannot_keep_is_named_and_waits_for_nobody() -> None:
    rendered = state(pooler(connectionBudget=20), catalogue_version=1)
    assert rendered.left_out == ("max_server_connections",)
    assert rendered.share is None


def test_what_the_operator_writes_by_itself_is_known_to_the_first_version_or_left_out_without_a_word() -> None:
    own = {**configuration.DEFAULTS, **configuration.ENFORCED}
    kept, left_out = skew.known(SETTINGS, own, 1)
    assert left_out == ["target_session_attrs"], "older pods may meet a standby, as they always did"
    assert kept == {name: value for name, value in own.items() if name not in left_out}
    assert state(pooler(), catalogue_version=1).left_out == ()


def test_the_version_that_it_is_rendered_for_is_no_change_of_content() -> None:
    old, new = state(pooler(type="ro"), catalogue_version=1), state(pooler(type="ro"))
    assert {**old.bundle_files, MANIFEST: b""} == {**new.bundle_files, MANIFEST: b""}


@pytest.mark.parametrize(
    "monitoring", [{}, {"metricsPrefix": "cnpg_pgbouncer", "tls": {"enabled": True}}], ids=["plain", "everything"]
)
def test_no_flag_is_ever_added_since_an_older_image_would_not_start(monitoring: dict[str, Any]) -> None:
    subject = pooler(monitoring=monitoring)
    container = state(subject).manifests[-1]["spec"]["template"]["spec"]["containers"][0]
    assert [argument for argument in container["args"] if argument.startswith("--")] == FLAGS
    assert "command" not in container
    options = {row["name"] for row in container["env"] if row["name"].startswith("PGWEIR_")}
    assert options >= {"PGWEIR_PEERS_HOST", "PGWEIR_PEERS_ADDRESS"}
    assert ("PGWEIR_METRICS_TLS" in options) is bool(monitoring)


# --- who is the oldest -----------------------------------------------------------------------------------------------


def test_the_oldest_pod_decides_and_is_named() -> None:
    found = oldest(pod("a"), pod("b"), pod("c"), a=report("a", 2), b=report("b", 1), c=report("c", 1))
    assert found == skew.Oldest(1, ("b", "c"))


def test_a_newer_pod_than_the_operator_is_given_what_the_operator_knows() -> None:
    assert oldest(pod("a"), a=report("a", CATALOGUE_VERSION + 5)) == skew.Oldest()
    assert oldest() == skew.Oldest()


def test_a_pod_that_is_silent_is_taken_for_what_it_said_last() -> None:
    rows = ({"name": "a", "catalogueVersion": 1}, {"name": "gone", "catalogueVersion": 1}, {"name": "b"})
    assert oldest(pod("a"), pod("b", image="b"), rows=rows, a=PodSilence("a", "no answer")) == skew.Oldest(1, ("a",))
    assert oldest(pod("b"), rows=rows) == skew.Oldest()


def test_a_pod_that_never_spoke_is_taken_for_the_others_of_its_image() -> None:
    found = oldest(pod("a", image="old"), pod("b", image="old"), pod("c", image="new"), a=report("a", 1))
    assert found == skew.Oldest(1, ("a", "b"))


def test_a_pod_that_cannot_start_is_taken_for_the_first_version_unless_its_image_is_known_to_be_newer() -> None:
    assert oldest(pod("a", image="x", crashing=True)) == skew.Oldest(1, ("a",))
    assert oldest(pod("a", image="x", crashing=True), pod("b", image="x"), b=report("b", 2)) == skew.Oldest()


def test_a_pod_that_has_ended_asks_for_nothing() -> None:
    assert oldest(pod("a", phase="Failed"), a=report("a", 1)) == skew.Oldest()
