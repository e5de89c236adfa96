"""Errors carry PgBouncer's words and codes that a driver can act on."""

from __future__ import annotations

import re

import pytest

from pgweir.protocol import errors


@pytest.mark.parametrize("sqlstate", sorted(set(errors.SQLSTATES.values())))
def test_every_code_in_the_table_is_an_sqlstate(sqlstate: str) -> None:
    assert re.fullmatch(r"[0-9A-Z]{5}", sqlstate)


def test_a_client_that_may_try_again_can_tell_it_by_the_code() -> None:
    assert errors.client_error("no more connections allowed (max_client_conn)").sqlstate == "53300"
    assert errors.client_error("pooler is shutting down").sqlstate == "57P01"
    assert errors.client_error("client_idle_timeout").sqlstate == "57P05"
    assert errors.no_such_database("x").sqlstate == "3D000"


def test_a_text_outside_the_table_is_a_protocol_violation() -> None:
    assert errors.client_error("something new").sqlstate == "08P01"


def test_an_unknown_role_is_told_in_the_log_alone() -> None:
    stranger = errors.password_authentication_failed("eve", "no such user")
    wrong = errors.password_authentication_failed("eve")
    assert (stranger.sqlstate, stranger.message) == (wrong.sqlstate, wrong.message)
    assert stranger.message == 'password authentication failed for user "eve"'
    assert (stranger.reason, stranger.stage) == ("no such user", "password")


def test_a_bad_header_shows_its_first_eight_bytes() -> None:
    assert errors.bad_packet_header(b"GET / HTTP/1.1").message == "bad packet header: '474554202f204854'"
