"""The CRD on a real API server: it fits the cost budget, tells all errors at once, and takes what it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgweir.settings import Kind, Support
from pgweir_operator.api.parameters import PARAMETERS

ROOT = Path(__file__).parents[2]
Kubectl = Callable[..., str]
Create = Callable[..., dict[str, Any]]

BAD = {Kind.INT: "many", Kind.TIME: "5s", Kind.BOOL: "yes", Kind.ENUM: "nonsense"}


def manifest(name: str = "pooler", **spec: Any) -> dict[str, Any]:
    if "cluster" not in spec and "target" not in spec:
        spec["cluster"] = {"name": "shop"}
    return {"apiVersion": "pgweir.io/v1", "kind": "Pooler", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def create(kubectl: Kubectl, operator_kubeconfig: str) -> Create:
    """Creates a Pooler for the API server's judgement alone (dry run); raises AssertionError with what it says."""

    def run(of: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
        arguments = ["create", "--dry-run=server", f"--validate={str(strict).lower()}", "--output=json", "--filename=-"]
        stored: dict[str, Any] = json.loads(kubectl(*arguments, stdin=json.dumps(of)))
        return stored

    return run


def complaints(create: Create, of: dict[str, Any], *, strict: bool = True) -> str:
    with pytest.raises(AssertionError) as caught:
        create(of, strict=strict)
    return str(caught.value)


def test_the_crd_is_accepted_whole(kubectl: Kubectl, operator_kubeconfig: str) -> None:
    crd = json.loads(kubectl("get", "crd", "poolers.pgweir.io", "--output=json"))
    conditions = {row["type"]: row["status"] for row in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("file", sorted((ROOT / "manifests/samples").glob("*.yaml")), ids=lambda file: file.name)
def test_every_sample_is_accepted(create: Create, file: Path) -> None:
    create(yaml.safe_load(file.read_text()))


def test_the_golden_pooler_that_uses_every_field_is_accepted(create: Create) -> None:
    create(yaml.safe_load((ROOT / "tests/golden/own-target/pooler.yaml").read_text()))


@pytest.mark.parametrize("number", range(3))
def test_a_pooler_of_cloudnativepg_is_accepted_with_another_api_version(create: Create, number: int) -> None:
    file = ROOT / "tests/pgweir_operator/api/cloudnativepg.yaml"
    create(list(yaml.safe_load_all(file.read_text()))[number])


def test_a_budget_is_a_number_of_connections(create: Create) -> None:
    assert create(manifest(connectionBudget=60))["spec"]["connectionBudget"] == 60
    assert "spec.connectionBudget" in complaints(create, manifest(connectionBudget=0))


def test_defaults_are_filled_in(create: Create) -> None:
    spec = create(manifest())["spec"]
    assert (spec["type"], spec["instances"], spec["paused"]) == ("rw", 1, False)
    assert spec["pgbouncer"] == {"poolMode": "session", "paused": False}
    assert spec["drain"] == {"acceptSeconds": 10, "timeoutSeconds": 60}


@pytest.mark.parametrize("spec", [{}, {"template": {"spec": {"containers": []}}}, {"template": {"spec": {}}}])
def test_a_template_may_leave_its_containers_out_or_empty(create: Create, spec: dict[str, Any]) -> None:
    assert create(manifest(**spec))["spec"].get("template") == spec.get("template")


def test_what_a_template_says_is_kept_to_the_letter(create: Create) -> None:
    template = {"spec": {"containers": [{"name": "x", "new": {"field": [1]}}], "unheardOf": {"a": "b"}}}
    assert create(manifest(template=template))["spec"]["template"] == template


def test_all_errors_of_the_rules_are_told_at_once_with_their_paths(create: Create) -> None:
    words = complaints(
        create,
        manifest(
            "shop-ro",
            cluster={"name": "shop"},
            target={"host": "db"},
            pgbouncer={
                "authQuery": "SELECT",
                "imageCatalogRef": {"kind": "ImageCatalog"},
                "parameters": {"default_pool_size": "many", "query_timeout": "5s", "listen_addr": "x", "nonsense": "1"},
            },
        ),
    )
    for expected in (
        "metadata.name: Invalid value: a Pooler may not be named as its cluster",
        "spec: Invalid value: give either cluster.name or target.host",
        "spec.pgbouncer.authQuerySecret: Invalid value: authQuery needs",
        "spec.pgbouncer.imageCatalogRef: Invalid value: image catalogs",
        "unknown or reserved parameters: listen_addr, nonsense",  # a map has no order of its own
        "parameters.[default_pool_size]: Invalid value: write a whole number from 0",
        "parameters.[query_timeout]: Invalid value: write seconds as a number",
    ):
        assert expected in words.replace("nonsense, listen_addr", "listen_addr, nonsense")


def test_unknown_parameters_are_named_once_each(create: Create) -> None:
    """A map has another order each time it is walked: told by several walks, one could be named twice."""
    for _ in range(10):
        words = complaints(
            create, manifest(pgbouncer={"parameters": dict.fromkeys(("zeal", "nonsense", "listen_addr"), "1")})
        )
        told = words.partition("unknown or reserved parameters: ")[2].splitlines()[0]
        assert sorted(told.split(", ")) == ["listen_addr", "nonsense", "zeal"]


def test_every_parameter_with_a_form_is_refused_by_name_when_it_is_bad(create: Create) -> None:
    bad = {
        name: BAD.get(info.kind, "nonsense")
        for name, info in PARAMETERS.items()
        if info.kind in BAD or info.choices or info.support is Support.REFUSED
    }
    words = complaints(create, manifest(pgbouncer={"parameters": bad}))
    assert [name for name in bad if f"parameters.[{name}]" not in words] == []


def test_every_parameter_with_a_good_value_is_accepted(create: Create) -> None:
    good = {Kind.INT: "2", Kind.TIME: "0.5", Kind.BOOL: "1", Kind.LIST: "a,b"}
    parameters = {
        name: good.get(info.kind) or (info.choices[0] if info.choices else "text")
        for name, info in PARAMETERS.items()
        if info.support is not Support.REFUSED
    }
    assert create(manifest(pgbouncer={"parameters": parameters}))["spec"]["pgbouncer"]["parameters"] == parameters


@pytest.mark.parametrize("breaker", ["\n", "\r", "\u0085", "\u2028", "\u2029", "\u0001"])
def test_a_line_break_never_gets_in(create: Create, breaker: str) -> None:
    text = f"a{breaker}b"
    spec = {"parameters": {"server_reset_query": text}, "pg_hba": [text]}
    words = complaints(create, manifest(pgbouncer=spec))
    assert "spec.pgbouncer.parameters.server_reset_query" in words
    assert "spec.pgbouncer.pg_hba[0]" in words


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"instances": -1}, "greater than or equal to 0"),
        (
            {"pgbouncer": {"pg_hba": ["host all app all reject"], "parameters": {"auth_type": "md5"}}},
            "pg_hba is read only with auth_type hba",
        ),
        ({"type": "primary"}, 'supported values: "rw", "ro", "r"'),
        ({"pgbouncer": {"poolMode": "trans"}}, 'supported values: "session", "transaction", "statement"'),
        ({"pgbouncer": {"serverTLSSecret": {"name": "s"}}}, "need an authQuery"),
        ({"pgbouncer": {"parameters": {"log_stats": 1}}}, "must be of type string"),
    ],
)
def test_a_bad_value_is_refused_with_what_to_write(create: Create, spec: dict[str, Any], words: str) -> None:
    assert words in complaints(create, manifest(**spec))


@pytest.mark.parametrize("name", ["p" * 51, "a.b"])
def test_a_name_that_makes_bad_children_is_refused(create: Create, name: str) -> None:
    assert "metadata.name" in complaints(create, manifest(name))


def test_how_a_switchover_is_held_has_defaults_and_bounds(create: Create) -> None:
    assert create(manifest())["spec"]["switchover"] == {"mode": "Automatic", "timeoutSeconds": 60}
    said = complaints(create, manifest(switchover={"mode": "Sometimes", "timeoutSeconds": 601}))
    assert 'supported values: "Automatic", "Off"' in said
    assert "less than or equal to 600" in said
    assert 'unknown field "spec.switchover.at"' in complaints(create, manifest(switchover={"at": "noon"}))


def test_the_cluster_and_the_account_stay_what_they_are(kubectl: Kubectl, operator_kubeconfig: str) -> None:
    kubectl("create", "namespace", "crd-test")
    try:
        where = ["--namespace=crd-test"]
        kubectl("create", *where, "--filename=-", stdin=json.dumps(manifest("p", serviceAccountName="a")))

        def change(operations: list[dict[str, Any]]) -> str:
            with pytest.raises(AssertionError) as caught:
                kubectl("patch", *where, "pooler/p", "--type=json", f"--patch={json.dumps(operations)}")
            return str(caught.value)

        other = change([{"op": "replace", "path": "/spec/cluster/name", "value": "other"}])
        assert "the cluster of a Pooler cannot be changed" in other
        target = [
            {"op": "remove", "path": "/spec/cluster"},
            {"op": "add", "path": "/spec/target", "value": {"host": "db"}},
        ]
        assert "the cluster of a Pooler cannot be changed" in change(target)
        account = change([{"op": "remove", "path": "/spec/serviceAccountName"}])
        assert "serviceAccountName cannot be changed" in account
        kubectl("scale", *where, "pooler/p", "--replicas=4")
        assert json.loads(kubectl("get", *where, "pooler/p", "--output=json"))["spec"]["instances"] == 4
    finally:
        kubectl("delete", "namespace", "crd-test", "--wait=false")


def test_databases_and_users_are_judged_entry_by_entry(create: Create) -> None:
    good = {
        "databases": [{"name": "it's", "parameters": {"pool_size": "3", "pool_mode": "session"}}, {"name": "*"}],
        "users": [{"name": "app", "passwordSecret": {"name": "app"}, "parameters": {"query_timeout": "1.5"}}],
    }
    assert create(manifest(pgbouncer=good))["spec"]["pgbouncer"]["users"] == good["users"]
    bad = {
        "databases": [
            {"name": "a", "parameters": {"pool_size": "many", "host": "elsewhere"}},
            {"name": "pgbouncer", "parameters": {"pool_mode": "sometimes", "connect_query": ""}},
        ],
        "users": [{"name": "u", "parameters": {"max_user_connections": "-1", "password": "hush"}}],
    }
    said = complaints(create, manifest(pgbouncer=bad))
    for words in (
        "spec.pgbouncer.databases[0].parameters.[pool_size]",
        "unknown or reserved parameters: host",
        "spec.pgbouncer.databases[1].parameters.[pool_mode]",
        "spec.pgbouncer.databases[1].parameters.connect_query",
        "name of the console",
        "spec.pgbouncer.users[0].parameters.[max_user_connections]",
        "unknown or reserved parameters: password",
    ):
        assert words in said
    twice = {"users": [{"name": "u"}, {"name": "u"}]}
    assert "Duplicate value" in complaints(create, manifest(pgbouncer=twice))
