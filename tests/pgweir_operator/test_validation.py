"""Validation: every problem at once, each with field, value and fix."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir_operator.worlds import manifest, pooler

from pgweir.settings import Kind, Support
from pgweir_operator.api.conditions import Reason
from pgweir_operator.api.parameters import DATABASE_PARAMETERS, PARAMETERS, USER_PARAMETERS
from pgweir_operator.validation import Problem, invalid_spec, parse, validate


def problems(**spec: Any) -> list[str]:
    return [str(problem) for problem in validate(pooler(**spec))]


def with_parameters(**parameters: str) -> list[str]:
    return problems(pgbouncer={"parameters": parameters})


def test_a_plain_pooler_has_no_problem() -> None:
    assert problems() == []


def test_all_problems_are_told_at_once() -> None:
    found = validate(
        pooler(
            "shop-rw",
            cluster={"name": "shop"},
            target={"host": "db"},
            pgbouncer={
                "authQuery": "SELECT",
                "imageCatalogRef": {"kind": "ImageCatalog"},
                "pg_hba": ["hots all all all md5"],
                "parameters": {"default_pool_size": "many", "listen_addr": "*"},
            },
        )
    )
    assert [problem.field_path for problem in found] == [
        "metadata.name",
        "spec",
        "spec.pgbouncer.imageCatalogRef",
        "spec.pgbouncer.authQuerySecret",
        "spec.pgbouncer.pg_hba[0]",
        "spec.pgbouncer.parameters.default_pool_size",
        "spec.pgbouncer.parameters.listen_addr",
    ]
    blocker = invalid_spec(found)
    assert blocker.reason is Reason.INVALID_SPEC
    assert all(problem.field_path in blocker.message for problem in found)


def test_a_problem_reads_as_one_sentence() -> None:
    assert with_parameters(default_pool_size="many") == [
        "spec.pgbouncer.parameters.default_pool_size is 'many': write a whole number from 0 to 2147483647"
    ]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("a" * 50, True), ("a" * 51, False), ("shop.pooler", False), ("Shop", False), ("-a", False), ("shop", False)],
)
def test_the_name_is_a_dns_label_of_at_most_fifty_and_not_the_clusters(name: str, allowed: bool) -> None:
    assert (validate(pooler(name)) == []) is allowed


@pytest.mark.parametrize("suffix", ["", "-rw", "-ro", "-r"])
def test_a_pooler_is_not_named_as_its_cluster_or_one_of_its_services(suffix: str) -> None:
    assert "may not be named as its cluster" in str(validate(pooler(f"shop{suffix}"))[0])


def test_a_pooler_has_a_cluster_or_a_target_and_not_both() -> None:
    assert validate(pooler(target={"host": "db"})) == []
    neither = manifest()
    del neither["spec"]["cluster"]
    parsed = parse(neither)
    assert not isinstance(parsed, list)
    assert [problem.field_path for problem in validate(parsed)] == ["spec"]


def test_an_auth_query_comes_with_a_secret_and_a_secret_with_a_query() -> None:
    secret = {"name": "s"}
    assert problems(pgbouncer={"authQuery": "q", "authQuerySecret": secret}) == []
    assert problems(pgbouncer={"authQuery": "q", "serverTLSSecret": secret}) == []
    assert "authQuerySecret" in problems(pgbouncer={"authQuery": "q"})[0]
    assert "need an authQuery" in problems(pgbouncer={"serverTLSSecret": secret})[0]
    assert "need an authQuery" in problems(pgbouncer={"authQuery": "", "authQuerySecret": secret})[0]


@pytest.mark.parametrize("text", ["a\nb", "a\r", "a\u2028b", "a\x00"])
def test_nothing_that_becomes_a_line_may_hold_a_line_break(text: str) -> None:
    assert "one line" in with_parameters(server_reset_query=text)[0]
    assert "one line" in problems(pgbouncer={"pg_hba": [f"host {text}"]})[0]
    assert "one line" in problems(pgbouncer={"authQuery": text, "authQuerySecret": {"name": "s"}})[0]


COMPATIBLE = 58


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "host all all all rejct",
            "spec.pgbouncer.pg_hba[1] is 'host all all all rejct': 'rejct' is no method; write one",
        ),
        ("host all @users all md5", "the file @'users' cannot be read"),
        ("host all all all ldap ldapbindpasswd=hunter2", "is 'host all all all ldap ldapbindpassw…': a search needs"),
    ],
)
def test_a_line_of_pg_hba_that_a_pod_could_not_read_is_refused_with_the_line_and_what_to_write(
    line: str, sentence: str
):
    (found,) = problems(pgbouncer={"pg_hba": ["# mine", line, "host all all 10.0.0.0/8 scram-sha-256 # ok"]})
    assert sentence in found
    assert "hunter2" not in found


def test_lines_of_pg_hba_that_nobody_would_read_are_refused():
    found = problems(pgbouncer={"pg_hba": ["host all app all reject"], "parameters": {"auth_type": "md5"}})
    assert "pg_hba is read only with auth_type hba" in found[0]
    assert not problems(pgbouncer={"pg_hba": ["host all app all reject"], "parameters": {"auth_type": "hba"}})
    assert not problems(pgbouncer={"parameters": {"auth_type": "md5"}})


def test_every_parameter_of_a_cloudnativepg_pooler_is_known() -> None:
    ours = {
        "auth_query_cache_time",
        "client_idle_limit",
        "client_overflow",
        "client_tls_ecdhcurve",
        "client_tls_protocols",
        "keep_server_of_lost_client",
        "login_notify_message",
        "max_db_client_connections",
        "max_server_connections",
        "max_user_client_connections",
        "pool_idle_timeout",
        "query_wait_notify",
        "reserved_connections",
        "scram_iterations",
        "server_tls_sslnegotiation",
        "startup_parameters",
        "stats_users",
        "target_session_attrs",
        "transaction_timeout",
        "uncached_databases",
    }
    assert len(PARAMETERS.keys() - ours) == COMPATIBLE


@pytest.mark.parametrize(
    "name",
    [
        "listen_addr",
        "listen_port",
        "pool_mode",
        "auth_file",
        "auth_ldap_options",
        "logfile",
        "peer_id",
        "nonsense",
        "Log_Stats",
    ],
)
def test_a_reserved_or_unknown_parameter_is_refused_by_name(name: str) -> None:
    assert with_parameters(**{name: "1"}) == [
        f"spec.pgbouncer.parameters.{name} is '1': unknown or reserved parameter; remove it"
    ]


GOOD = {Kind.INT: "7", Kind.TIME: "0.5", Kind.BOOL: "1", Kind.LIST: "a,b"}
BAD = {Kind.INT: "many", Kind.TIME: "5s", Kind.BOOL: "yes", Kind.ENUM: "nonsense"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_takes_a_good_value_and_refuses_a_bad_one(name: str) -> None:
    info = PARAMETERS[name]
    if info.support is Support.REFUSED:
        assert with_parameters(**{name: "x"}) != []
        return
    good = GOOD.get(info.kind) or (info.choices[0] if info.choices else "text")
    if info.maximum is not None and info.kind is Kind.INT:
        good = str(min(7, info.maximum))
    assert with_parameters(**{name: good}) == []
    bad = BAD.get(info.kind) or ("nonsense" if info.choices else "a\nb")
    assert len(with_parameters(**{name: bad})) == 1


@pytest.mark.parametrize("text", ["-1", "+1", "010", "0x10", "1e3", " 1", "1.5", "", "99999999999", "2147483648"])
def test_a_whole_number_is_decimal_and_in_range(text: str) -> None:
    assert len(with_parameters(max_client_conn=text)) == 1


@pytest.mark.parametrize(("text", "good"), [("0", True), ("2.5", True), ("-1", False), ("5s", False), ("1e3", False)])
def test_a_time_is_seconds_without_a_unit(text: str, good: bool) -> None:
    assert (with_parameters(query_wait_timeout=text) == []) is good


def test_a_refused_setting_says_why() -> None:
    assert "Python's ssl module" in with_parameters(server_tls13_ciphers="TLS_AES_128_GCM_SHA256")[0]


@pytest.mark.parametrize(
    ("parameters", "culprit"),
    [
        ({"reserved_connections": "100"}, "reserved_connections"),
        ({"reserved_connections": "9", "max_client_conn": "9"}, "reserved_connections"),
        ({"min_pool_size": "21"}, "min_pool_size"),
        ({"min_pool_size": "6", "default_pool_size": "5"}, "min_pool_size"),
        ({"min_pool_size": "6", "max_db_connections": "5"}, "max_db_connections"),
        ({"reserve_pool_size": "1", "reserve_pool_timeout": "0"}, "reserve_pool_timeout"),
        ({"idle_transaction_timeout": "10", "transaction_timeout": "5"}, "idle_transaction_timeout"),
        ({"auth_type": "cert", "client_tls_sslmode": "require"}, "auth_type"),
    ],
)
def test_values_that_cannot_go_together_are_refused(parameters: dict[str, str], culprit: str) -> None:
    found = validate(pooler(pgbouncer={"parameters": parameters}))
    assert [problem.field_path for problem in found] == [f"spec.pgbouncer.parameters.{culprit}"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"min_pool_size": "500", "default_pool_size": "0"},
        {"min_pool_size": "5", "max_db_connections": "0"},
        {"auth_type": "cert", "client_tls_sslmode": "verify-full"},
    ],
)
def test_zero_means_no_limit_and_pairs_that_fit_pass(parameters: dict[str, str]) -> None:
    assert with_parameters(**parameters) == []


def test_an_object_that_is_no_pooler_is_told_field_by_field() -> None:
    found = parse(manifest(instances="3", type="primary", pgbouncer={"parameters": {"log_stats": 1}}))
    assert isinstance(found, list)
    assert all(isinstance(problem, Problem) for problem in found)
    assert {problem.field_path for problem in found} == {
        "spec.instances",
        "spec.type",
        "spec.pgbouncer.parameters.log_stats",
    }


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert problems(ofTomorrow={"mode": "Off"}, pgbouncer={"ofTomorrow": {}}) == []


def test_a_null_is_a_field_that_was_not_given() -> None:
    assert problems(paused=None, pgbouncer={"authQuery": None}, template=None) == []


def test_entries_of_databases_and_users_are_held_to_the_catalogue() -> None:
    found = problems(
        pgbouncer={
            "databases": [
                {"name": "a", "parameters": {"pool_size": "many", "host": "elsewhere", "connect_query": ""}},
                {"name": "a", "parameters": {"pool_mode": "sometimes", "application_name": "x\ny"}},
                {"name": "pgbouncer"},
                {"name": "postgres", "parameters": {"dbname": "shop", "user": "x", "pool_size": "3"}},
            ],
            "users": [{"name": "u\n", "parameters": {"password": "hush", "query_timeout": "5s"}}],
        }
    )
    assert [problem.split(":")[0] for problem in found] == [
        "spec.pgbouncer.databases[0].parameters.connect_query is ''",
        "spec.pgbouncer.databases[0].parameters.host is 'elsewhere'",
        "spec.pgbouncer.databases[0].parameters.pool_size is 'many'",
        "spec.pgbouncer.databases[1].name is 'a'",
        "spec.pgbouncer.databases[1].parameters.application_name is 'x\\ny'",
        "spec.pgbouncer.databases[1].parameters.pool_mode is 'sometimes'",
        "spec.pgbouncer.users[0].name is 'u\\n'",
        "spec.pgbouncer.users[0].parameters.password",
        "spec.pgbouncer.users[0].parameters.query_timeout is '5s'",
        "spec.pgbouncer.databases[2].name is 'pgbouncer'",
        "spec.pgbouncer.databases[3].parameters.dbname is 'shop'",
        "spec.pgbouncer.databases[3].parameters.user is 'x'",
    ]
    assert not any("hush" in problem for problem in found)


def test_every_setting_of_an_entry_passes_with_a_good_value() -> None:
    good = {Kind.INT: "5", Kind.TIME: "1.5", Kind.ENUM: "", Kind.OPTIONAL_TEXT: "x"}

    def of(catalogue: Any) -> dict[str, str]:
        return {name: good[info.kind] or info.choices[0] for name, info in catalogue.items()}

    databases, users = of(DATABASE_PARAMETERS), of(USER_PARAMETERS)
    assert len(databases) > 12
    assert len(users) > 8
    entries = {"databases": [{"name": "a", "parameters": databases}], "users": [{"name": "b", "parameters": users}]}
    assert problems(pgbouncer=entries) == []
