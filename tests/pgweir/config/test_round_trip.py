"""What the operator writes, the pooler reads: the same values, whatever characters they hold."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgweir.config import load
from pgweir.hba import parse_hba
from pgweir.settings import DatabaseSettings, Settings
from pgweir.userlist import parse_userlist
from pgweir_operator.api.one_line import LINE_BREAKERS
from pgweir_operator.desired.render import pg_hba_conf, pgbouncer_ini, userlist_txt

ONE_LINE = st.text(st.characters(codec="utf-8"), max_size=40).filter(lambda text: not LINE_BREAKERS.search(text))
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, **parts: dict[str, dict[str, str]] | dict[str, str]) -> Path:
    path = folder / "pgbouncer.ini"
    text = pgbouncer_ini(name="p", namespace="n", **{"databases": {}, "settings": {}, **parts})  # type: ignore[arg-type]
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_read_back_as_they_were_meant(tmp_path: Path):
    path = write(
        tmp_path,
        databases={"*": {"host": "c-rw", "port": "5432"}},
        settings={
            "pool_mode": "transaction",
            "listen_addr": "*",
            "server_lifetime": "0.5",
            "log_stats": "0",
            "server_check_query": "",
            "ignore_startup_parameters": "extra_float_digits,options",
        },
    )
    config = load(path, base_dir=tmp_path)
    assert config.settings == Settings(
        pool_mode="transaction",
        listen_addr=("*",),
        server_lifetime=0.5,
        log_stats=False,
        server_check_query="",
        ignore_startup_parameters=("extra_float_digits", "options"),
    )
    assert config.database("any") == DatabaseSettings(name="any", dbname="any", host="c-rw", port=5432)


@FOLDER
@given(ONE_LINE)
def test_a_text_reads_back_but_for_spaces_around_it(tmp_path: Path, text: str):
    path = write(tmp_path, settings={"server_reset_query": text})
    assert load(path).settings.server_reset_query == text.strip(" \t")


@FOLDER
@given(ONE_LINE.filter(bool))
def test_a_value_of_a_database_reads_back_as_it_is(tmp_path: Path, text: str):
    path = write(tmp_path, databases={"*": {"password": text, "connect_query": text, "host": "h"}})
    database = load(path).database("app")
    assert database is not None
    assert (database.password, database.connect_query, database.host) == (text, text, "h")


@given(st.dictionaries(ONE_LINE.filter(bool), ONE_LINE))
def test_users_read_back_as_they_are(users: dict[str, str]):
    assert parse_userlist(userlist_txt(users)).users == users


@pytest.mark.parametrize("lines", [[], ["hostssl all all 10.0.0.0/8 cert map=m", 'host "all" "a b" all reject']])
def test_the_rules_the_operator_writes_are_all_understood(lines: list[str]):
    parsed = parse_hba(pg_hba_conf(lines))
    assert parsed.faults == ()
    assert len(parsed.rules) == 5 + len(lines)
