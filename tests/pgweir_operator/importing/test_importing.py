"""Imports: each example as a whole (golden files), then rule by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pgweir_operator.importing.golden import DATA, EXAMPLES, files, imported

from pgweir.settings import Settings, parse_value
from pgweir_operator.api.parameters import PARAMETERS
from pgweir_operator.importing import Fate, Imported, NotRecognised, import_configuration
from pgweir_operator.importing.pgpool import DEFAULTS, TRANSLATED, import_pgpool
from pgweir_operator.importing.profiles import FEWER_LONG, MANY_SHORT, proposed_profile
from pgweir_operator.validation import parse, validate


def conf(text: str) -> Imported:
    return import_configuration(text, name="example")


def parameters(answer: Imported) -> dict[str, str]:
    found: dict[str, str] = answer.manifest["spec"]["pgbouncer"]["parameters"]
    return found


def lines(answer: Imported, fate: Fate) -> list[str]:
    return [line.key for line in answer.lines if line.fate is fate]


def problems(answer: Imported) -> Any:
    metadata = {**answer.manifest["metadata"], "namespace": "default", "uid": "1", "generation": 1}
    pooler = parse({**answer.manifest, "metadata": metadata})
    return pooler if isinstance(pooler, list) else validate(pooler)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_becomes_what_the_golden_files_say(example: str) -> None:
    for name, text in files(example).items():
        hint = "write them anew: python tests/pgweir_operator/importing/golden.py"
        assert (DATA / name).read_text() == text, hint


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_an_example_becomes_is_a_pooler_without_problems(example: str) -> None:
    assert problems(imported(example)) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_line_of_an_example_that_sets_something_is_answered(example: str) -> None:
    text = (DATA / example).read_text().splitlines()
    setting = {
        number
        for number, line in enumerate(text, start=1)
        if line.strip() and not line.strip().startswith(("#", ";", "["))
    }
    assert {line.number for line in imported(example).lines if line.number} == setting


def test_the_small_example_serves_32_clients_and_the_33rd_waits() -> None:
    found = parameters(imported("pgbalancer-small.conf"))
    assert found["max_client_conn"] == found["default_pool_size"] == "32"
    assert found["client_overflow"] == "wait"
    assert found["max_db_connections"] == "128"


def test_the_large_example_refuses_from_the_119th_with_a_backlog_of_384() -> None:
    found = parameters(imported("pgbalancer-large.conf"))
    assert found["listen_backlog"] == "384"
    assert int(found["max_client_conn"]) - int(found["reserved_connections"]) == 118
    assert "client_overflow" not in found


def test_the_medium_example_is_told_about_the_two_settings_that_exclude_each_other() -> None:
    (warning,) = [
        line
        for line in imported("pgbalancer-medium.conf").lines
        if line.fate is Fate.WARNING and line.key != "spec.cluster.name"
    ]
    assert warning.key == "serialize_accept"
    assert "child_life_time = 300" in warning.sentence


@pytest.mark.parametrize(
    ("text", "reset"),
    [
        ("ABORT", ""),
        ("ABORT; RESET ALL; SET SESSION AUTHORIZATION DEFAULT", "RESET ALL; SET SESSION AUTHORIZATION DEFAULT"),
        ("ABORT; DISCARD ALL", "DISCARD ALL"),
        ("abort ;; discard  all;", "discard all"),
    ],
)
def test_a_reset_list_keeps_its_order_and_loses_its_abort(text: str, reset: str) -> None:
    assert parameters(conf(f"reset_query_list = '{text}'"))["server_reset_query"] == reset


def test_without_a_cache_each_server_connection_is_used_once() -> None:
    found = parameters(conf("connection_cache = off"))
    assert found["server_lifetime"] == "0"
    assert "uncached_databases" not in found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("child_life_time = 300\nconnection_life_time = 60", "60"),
        ("child_life_time = 1min\nconnection_life_time = 90", "60"),
        ("child_life_time = 0\nconnection_life_time = 0", "0"),
        ("connection_life_time = 0", "300"),
    ],
)
def test_the_shorter_of_the_two_lives_closes_unused_connections(text: str, seconds: str) -> None:
    assert parameters(conf(text))["server_idle_timeout"] == seconds


def test_the_first_backend_is_the_target_unless_a_cluster_is_named() -> None:
    text = "backend_hostname0 = 'db'\nbackend_port0 = 5433\nbackend_hostname1 = 'other'"
    assert conf(text).manifest["spec"]["target"] == {"host": "db", "port": 5433}
    spec = import_configuration(text, name="example", cluster="shop").manifest["spec"]
    assert spec["cluster"] == {"name": "shop"}
    assert "target" not in spec


@pytest.mark.parametrize(
    ("text", "fate"),
    [
        ("serialize_accept = on", Fate.DROPPED),
        ("child_max_connections = 1000", Fate.DROPPED),
        ("wd_priority = 1", Fate.DROPPED),
        ("enable_pool_hba = on", Fate.REFUSED),
        ("enable_pool_hba = off", Fate.DROPPED),
        ("num_init_children = many", Fate.REFUSED),
        ("connection_cache = perhaps", Fate.REFUSED),
        ("child_life_time = -1", Fate.REFUSED),
        ("log_connections = perhaps", Fate.REFUSED),
        ("num_init_childs = 3", Fate.REFUSED),
        ("client_idle_limit = 9999999999d", Fate.REFUSED),
        ("reserved_connections = 32", Fate.REFUSED),
    ],
)
def test_each_setting_has_the_fate_that_its_sentence_explains(text: str, fate: Fate) -> None:
    answer = conf(text)
    assert text.split()[0] in lines(answer, fate)
    assert problems(answer) == []


def test_a_slip_names_the_setting_that_was_meant() -> None:
    assert "did you mean num_init_children?" in str(conf("num_init_childs = 3").refused[0])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("client_idle_limit = 300   # five minutes", "300"),
        ("client_idle_limit 300", "300"),
        ("client_idle_limit = '5min'", "300"),
        ("  CLIENT_IDLE_LIMIT=1h", "3600"),
        ("client_idle_limit = 10\nclient_idle_limit = 20", "20"),
    ],
)
def test_a_line_is_read_as_the_old_pooler_reads_it(line: str, value: str) -> None:
    assert parameters(import_pgpool(line, name="example"))["client_idle_limit"] == value


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_password_is_shown(example: str) -> None:
    assert "never shown" not in "".join(files(example).values())
    assert "hunter2" not in str(conf("sr_check_password = 'hunter2'").lines)


@pytest.mark.parametrize("text", ["", "# nothing", "<xml/>", "just words"])
def test_what_is_no_configuration_is_not_recognised(text: str) -> None:
    with pytest.raises(NotRecognised, match="this is neither a"):
        conf(text)


@given(st.text())
def test_noise_is_answered_line_by_line_and_nothing_else(text: str) -> None:
    for prefix in ("num_init_children = 1\n", "[pgbouncer]\n", "[databases]\n"):
        for name, value in parameters(conf(prefix + text)).items():
            parse_value(PARAMETERS[name], value)


def test_the_page_for_those_who_come_from_pgpool_names_every_setting_that_is_translated() -> None:
    page = (Path(__file__).parents[3] / "docs" / "differences.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## Coming from pgpool or pgbalancer")
    for name in [*DEFAULTS, *TRANSLATED, "serialize_accept", "child_max_connections", "backend_hostname0"]:
        assert f"`{name}" in section, f"docs/differences.md says nothing of {name}"


# --- pgbouncer.ini ---


def ini(*settings: str) -> Imported:
    return conf("[databases]\n* = host=db\n[pgbouncer]\n" + "\n".join(settings))


def test_a_number_is_written_as_a_manifest_wants_it() -> None:
    assert parameters(ini("max_client_conn = 0x200", "reserve_pool_timeout = 3."))["max_client_conn"] == "512"


@pytest.mark.parametrize("name", sorted(Settings.__dataclass_fields__))
def test_every_setting_of_pgbouncer_is_answered(name: str) -> None:
    answer = ini(f"{name} = 1")
    (line,) = [line for line in answer.lines if line.key == name]
    assert line.sentence
    assert problems(answer) == []


def test_databases_at_another_server_are_for_another_pooler() -> None:
    answer = conf("[databases]\na = host=one\nb = host=two\nc = host=one pool_size=3\nd =\n[pgbouncer]\n")
    assert answer.manifest["spec"]["target"]["host"] == "one"
    assert [(line.key, line.value) for line in answer.refused] == [
        ("b", "host=two"),
        ("d", ""),
    ]


def test_what_one_database_or_user_has_of_its_own_becomes_an_entry() -> None:
    answer = conf(
        "[databases]\na = host=one dbname=b reserve_pool=010 pool_mode=Session\n* = host=one pool_size=0x10\nc = host=one\n"
        "a = host=one connect_query='SET ROLE x'\npostgres = host=one user=x pool_size=2\n"
        "[users]\nalice = pool_size=3 idle_transaction_timeout=1.5\nbob =\n[pgbouncer]\n"
    )
    pgbouncer = answer.manifest["spec"]["pgbouncer"]
    assert pgbouncer["databases"] == [
        {"name": "*", "parameters": {"pool_size": "16"}},
        {"name": "a", "parameters": {"connect_query": "SET ROLE x"}},
        {"name": "postgres", "parameters": {"pool_size": "2"}},
    ]
    assert pgbouncer["users"] == [
        {"name": "alice", "parameters": {"idle_transaction_timeout": "1.5", "pool_size": "3"}}
    ]
    assert [line.key for line in answer.refused] == ["postgres: user"]
    assert lines(answer, Fate.WARNING)[0] == "a"
    assert problems(answer) == []


@pytest.mark.parametrize(
    "line",
    [
        "a = host=one password=geheim", "a = host=one auth_user=x", "a = host=one pool_size=many", "a = host=one color=red",
        f"{'a' * 64} = host=one pool_size=3", "pgbouncer = host=one pool_size=3",
    ],
)  # fmt: skip
def test_what_no_entry_may_have_is_refused_and_a_password_is_not_repeated(line: str) -> None:
    answer = conf(f"[databases]\n{line}\n[pgbouncer]\n")
    assert len(answer.refused) == 1
    assert "geheim" not in str([str(each) for each in answer.lines])
    assert "databases" not in answer.manifest["spec"]["pgbouncer"]
    assert problems(answer) == []


@pytest.mark.parametrize("user", ["carol = pool_size=x", "carol = password=x", "carol = 'open"])
def test_what_no_user_may_have_is_refused(user: str) -> None:
    answer = conf(f"[databases]\n* = host=one\n[users]\n{user}\n[pgbouncer]\n")
    assert len(answer.refused) == 1
    assert "users" not in answer.manifest["spec"]["pgbouncer"]


# --- profiles ---


@pytest.mark.parametrize("profile", [MANY_SHORT, FEWER_LONG])
def test_both_profiles_load(profile: Any) -> None:
    answer = conf(profile.text())
    assert not answer.refused
    assert parameters(answer)["max_client_conn"] == profile.settings["num_init_children"]
    assert (
        DATA / f"profile-{'many-short' if profile is MANY_SHORT else 'fewer-long'}.conf"
    ).read_text() == profile.text()


@pytest.mark.parametrize(
    ("sessions", "profile"),
    [([0.2, 0.5, 3.0], MANY_SHORT), ([600.0, 5.0, 7200.0], FEWER_LONG), ([1.0] * 9 + [86400.0], MANY_SHORT)],
)
def test_the_length_of_sessions_proposes_a_profile(sessions: list[float], profile: Any) -> None:
    assert proposed_profile(sessions) is profile


def test_nothing_measured_proposes_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        proposed_profile([])
