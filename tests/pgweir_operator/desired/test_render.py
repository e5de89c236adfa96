"""The text files: what is quoted comes back, what cannot stand on a line is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.config import load
from pgweir.userlist import parse_userlist
from pgweir_operator.api.one_line import has_line_breaker
from pgweir_operator.desired import render

one_line = st.text(min_size=1, max_size=60).filter(lambda text: not has_line_breaker(text))


@pytest.mark.parametrize("breaker", ["\n", "\r", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_value_with_a_line_break_is_refused_and_named(breaker: str) -> None:
    with pytest.raises(ValueError, match=r"server_reset_query .* line break or control character .* one line"):
        render.pgbouncer_ini(name="p", namespace="n", databases={}, settings={"server_reset_query": f"a{breaker}b"})
    with pytest.raises(ValueError, match=r"pg_hba\[1\]"):
        render.pg_hba_conf(["host all all 0.0.0.0/0 md5", f"x{breaker}"])


def test_a_secret_with_a_line_break_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="secret of user shop") as caught:
        render.userlist_txt({"shop": "hunter2\n"})
    assert "hunter2" not in str(caught.value)


@given(users=st.dictionaries(one_line.filter(lambda name: len(name.encode()) < 64), one_line, max_size=4))
def test_every_user_and_secret_comes_back_from_the_userlist(users: dict[str, str]) -> None:
    try:
        parsed = parse_userlist(render.userlist_txt(users))
    except UnicodeEncodeError:
        return
    assert getattr(parsed, "users", parsed) == users


@pytest.mark.parametrize("host", ["db", "/run/it's here", "a b", "2001:db8::1"])
def test_a_host_comes_back_from_the_databases_line(host: str, tmp_path: Path) -> None:
    text = render.pgbouncer_ini(
        name="p", namespace="n", databases={"*": {"host": host, "port": "6000"}}, settings={"listen_port": "5432"}
    )
    (tmp_path / "pgbouncer.ini").write_text(text)
    database = load(tmp_path / "pgbouncer.ini").database("x")
    assert database is not None
    assert (database.host, database.port) == (host, 6000)


def test_an_empty_value_stays_empty(tmp_path: Path) -> None:
    text = render.pgbouncer_ini(name="p", namespace="n", databases={}, settings={"server_check_query": ""})
    (tmp_path / "pgbouncer.ini").write_text(text)
    assert load(tmp_path / "pgbouncer.ini").settings.server_check_query == ""


def test_the_users_hba_lines_stand_before_the_default_ones_and_the_console_stays_local() -> None:
    lines = [line for line in render.pg_hba_conf(["hostssl all app all cert"]).splitlines() if line[0] != "#"]
    assert lines == [
        "local pgbouncer pgbouncer peer",
        "hostssl all app all cert",
        "host pgbouncer all 0.0.0.0/0 reject",
        "host pgbouncer all ::/0 reject",
        "host all all 0.0.0.0/0 md5",
        "host all all ::/0 md5",
    ]
