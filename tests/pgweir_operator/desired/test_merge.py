"""Merging a template over what the operator builds."""

from __future__ import annotations

from typing import Any

from pgweir_operator.desired.merge import merged


def test_the_template_wins_where_both_speak() -> None:
    assert merged({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 3}, "e": 4}) == {"a": 1, "b": {"c": 3, "d": 2}, "e": 4}


def test_neither_side_is_changed() -> None:
    base: dict[str, Any] = {"containers": [{"name": "pgbouncer", "env": []}]}
    patch: dict[str, Any] = {"containers": [{"name": "pgbouncer", "env": [{"name": "A", "value": "1"}]}]}
    result = merged(base, patch)
    result["containers"][0]["env"].append("noise")
    assert base == {"containers": [{"name": "pgbouncer", "env": []}]}
    assert patch == {"containers": [{"name": "pgbouncer", "env": [{"name": "A", "value": "1"}]}]}


def test_a_container_is_found_by_its_name_and_a_new_one_is_appended() -> None:
    base = {"containers": [{"name": "pgbouncer", "image": "ours", "args": ["x"]}]}
    patch = {"containers": [{"name": "sidecar"}, {"name": "pgbouncer", "image": "theirs"}]}
    assert merged(base, patch) == {
        "containers": [{"name": "pgbouncer", "image": "theirs", "args": ["x"]}, {"name": "sidecar"}]
    }


def test_an_empty_list_of_containers_takes_nothing_away() -> None:
    base = {"containers": [{"name": "pgbouncer"}]}
    assert merged(base, {"containers": []}) == base


def test_a_mount_at_the_same_path_replaces_ours() -> None:
    base = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    patch = {"volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}]}
    assert merged(base, patch) == patch


def test_a_variable_and_a_volume_are_replaced_whole_since_they_are_unions() -> None:
    base = {
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    patch = {"env": [{"name": "A", "value": "1"}], "volumes": [{"name": "tmp", "hostPath": {"path": "/x"}}]}
    assert merged(base, patch) == patch


def test_a_list_without_identity_is_replaced_whole() -> None:
    base = {"args": ["a", "b"], "tolerations": [{"key": "a"}]}
    assert merged(base, {"args": ["c"], "tolerations": [{"key": "b"}]}) == {
        "args": ["c"],
        "tolerations": [{"key": "b"}],
    }


def test_something_of_another_shape_than_expected_is_handed_on_for_the_api_server_to_judge() -> None:
    assert merged({"containers": [{"name": "a"}]}, {"containers": "many"}) == {"containers": "many"}
    assert merged({"containers": [{"name": "a"}]}, {"containers": ["x"]}) == {"containers": [{"name": "a"}, "x"]}
