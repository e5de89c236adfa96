"""The command language: verbs, quotes, case, SET; and noise."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.admin.parse import ConsoleError, parse


def words(text: str) -> list[tuple[str, ...]]:
    return [(command.verb, *command.arguments) for command in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("show pools", [("SHOW", "pools")]),
        ("  Pause   MyDb ; ", [("PAUSE", "MyDb")]),
        ('pause "my db""s"', [("PAUSE", 'my db"s')]),
        ("RELOAD", [("RELOAD",)]),
        ("SHOW STATS; SHOW POOLS;", [("SHOW", "STATS"), ("SHOW", "POOLS")]),
        ("/* who? */ SHOW -- really\n CLIENTS", [("SHOW", "CLIENTS")]),
        ("set Verbose=1", [("SET", "verbose", "1")]),
        ("SET verbose TO 1;", [("SET", "verbose", "1")]),
        ("SET auth_query = 'select ''x''; --'", [("SET", "auth_query", "select 'x'; --")]),
        ("SET datestyle TO ISO, MDY", [("SET", "datestyle", "ISO, MDY")]),
        ("SET admin_users = ''", [("SET", "admin_users", "")]),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            [("SET", "session", "CHARACTERISTICS AS TRANSACTION READ ONLY")],
        ),
        ("", []),
        (" ;; ", []),
    ],
)
def test_statements_are_verbs_and_words(text: str, expected: list[tuple[str, ...]]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    "text", ["SET", "SET x", "SET x =", "SET = 1", "'show' pools", "PAUSE 'x", 'PAUSE "x', "a = b"]
)
def test_what_is_no_statement_is_refused_in_pgbouncers_words(text: str) -> None:
    with pytest.raises(ConsoleError, match=r"invalid command '.*', use SHOW HELP;"):
        parse(text)


@given(st.text(max_size=60))
def test_noise_is_a_console_error_and_nothing_else(text: str) -> None:
    with contextlib.suppress(ConsoleError):
        assert all(command.verb for command in parse(text))
