"""Names of children stay within what Kubernetes allows, and labels are fit for a label's value."""

from __future__ import annotations

import pytest

from pgweir_operator.api import names

LONGEST = "p" * names.MAX_NAME_LENGTH


@pytest.mark.parametrize(
    "name",
    [
        names.deployment_name(LONGEST),
        names.peers_service_name(LONGEST),
        names.control_secret_name(LONGEST),
        names.control_ca_secret_name(LONGEST),
    ],
)
def test_every_childs_name_is_a_dns_label_of_the_longest_pooler_name(name: str) -> None:
    assert len(name) <= 63


def test_the_selector_text_is_the_selector() -> None:
    assert names.selector_text("p") == "pgweir.io/poolerName=p"
    assert names.selector("p").items() <= names.labels("p", "shop").items()


def test_the_children_of_a_pooler_have_names_of_their_own() -> None:
    secrets = {names.bundle_secret_name("p"), names.control_secret_name("p"), names.control_ca_secret_name("p")}
    assert len(secrets) == 3
    assert names.service_name("p") != names.peers_service_name("p")


@pytest.mark.parametrize("name", ["", "..", "../secrets/x", "a/b", "a?b", "A", "a\n", "a" * 254, None, 7, {"a": 1}])
def test_what_is_no_objects_name_never_becomes_a_path(name: object) -> None:
    assert not names.is_object_name(name)
    assert names.is_object_name("shop-1.example")


@pytest.mark.parametrize(("name", "fits"), [("a", True), ("a-1", True), ("", False), ("a\n", False), ("a_b", False)])
def test_a_pooler_name_is_a_dns_label(name: str, fits: bool) -> None:
    assert names.is_pooler_name(name) is fits
