"""auth_query: what is sent, and every way in which the answer can come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol import messages
from pgweir.protocol.auth.auth_query import (
    AuthQueryOutcome,
    AuthQueryResult,
    Found,
    LookupFailed,
    NoSuchUser,
    auth_query_messages,
)
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.reader import MessageReader

BEGIN = messages.PARSE_COMPLETE + messages.BIND_COMPLETE
COLUMNS = messages.row_description([("usename", 19), ("passwd", 25)])
END = messages.command_complete("SELECT 1") + messages.ready_for_query(b"I")


def outcome(*server_says: bytes) -> AuthQueryOutcome:
    result = AuthQueryResult()
    answers = [result.receive(type_, body) for type_, body in MessageReader().feed(b"".join(server_says))]
    assert answers[:-1] == [None] * (len(answers) - 1), "the outcome comes with ReadyForQuery and not before"
    assert answers[-1] is not None
    return answers[-1]


def test_the_name_goes_as_a_parameter_and_never_into_the_text() -> None:
    sent = auth_query_messages("select $1, 'x'", "eve'; drop table t")
    assert [chr(type_) for type_, _ in MessageReader().feed(sent)] == ["P", "B", "D", "E", "S"]
    assert messages.parse("", "select $1, 'x'") in sent
    assert messages.bind("", "", [b"eve'; drop table t"]) in sent


def test_one_row_is_the_user() -> None:
    assert outcome(BEGIN, COLUMNS, messages.data_row([b"u", b"md5x"]), END) == Found("u", "md5x")


def test_no_row_is_no_user() -> None:
    assert outcome(BEGIN, COLUMNS, END) == NoSuchUser()


def test_a_null_secret_lets_nobody_in() -> None:
    assert outcome(BEGIN, COLUMNS, messages.data_row([b"u", None]), END) == Found("u", "")


def test_notices_and_parameters_on_the_way_do_not_matter() -> None:
    notice = messages.notice_response("NOTICE", "00000", "hello")
    status = messages.parameter_status("TimeZone", "UTC")
    assert outcome(notice, BEGIN, COLUMNS, status, messages.data_row([b"u", b"s"]), END) == Found("u", "s")


@pytest.mark.parametrize("columns", [["a"], ["a", "b", "c"], []])
def test_any_other_number_of_columns_is_a_failure_that_counts_them(columns: list[str]) -> None:
    described = messages.row_description([(name, 25) for name in columns])
    failed = outcome(BEGIN, described, messages.data_row([b"x"] * len(columns)), END)
    assert failed == LookupFailed(f"auth_query must give exactly 2 columns (name, secret), it gives {len(columns)}")


def test_a_statement_that_is_no_query_is_a_failure() -> None:
    assert isinstance(outcome(BEGIN, messages.NO_DATA, END), LookupFailed)


def test_a_servers_error_is_kept_with_its_code() -> None:
    error = messages.error_response("ERROR", "42501", "permission denied for function user_search")
    assert outcome(messages.PARSE_COMPLETE, error, messages.ready_for_query(b"I")) == LookupFailed(
        "permission denied for function user_search", "42501"
    )


def test_two_different_rows_are_not_guessed_between() -> None:
    one, other = messages.data_row([b"u", b"a"]), messages.data_row([b"u", b"b"])
    assert outcome(BEGIN, COLUMNS, one, one, END) == Found("u", "a")
    assert isinstance(outcome(BEGIN, COLUMNS, one, other, END), LookupFailed)


def test_a_row_without_a_name_is_a_failure() -> None:
    assert isinstance(outcome(BEGIN, COLUMNS, messages.data_row([None, b"x"]), END), LookupFailed)


def test_a_secret_never_shows_in_a_repr() -> None:
    assert repr(Found("u", "pencil")) == "Found(name='u')"


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=4))
def test_noise_gets_a_protocol_error_and_nothing_else(said: list[tuple[int, bytes]]) -> None:
    result = AuthQueryResult()
    try:
        for type_, body in said:
            result.receive(type_, body)
    except ProtocolError:
        pass
