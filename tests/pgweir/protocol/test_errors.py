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


# What PgBouncer 1.25 tells clients, and the code that stands beside it here: the first column is its interface.
TEXTS = {
    "bouncer config error": "F0000",
    "no more connections allowed (max_client_conn)": "53300",
    "client connections exceeded (max_db_client_connections)": "53300",
    "client connections exceeded (max_user_client_connections)": "53300",
    "SASL authentication failed": "28P01",
    '"trust" authentication failed': "28000",
    "no such user": "28P01",
    "empty password returned by client": "28P01",
    "client selected an invalid SASL authentication mechanism": "08P01",
    "not allowed": "28000",
    "username too long": "28000",
    "password too long": "28P01",
    "no username supplied": "28000",
    "SSL required": "28000",
    "received unencrypted data after SSL request": "08P01",
    "received unencrypted data after GSSAPI encryption request": "08P01",
    "client re-sent startup pkt": "08P01",
    "client password pkt before startup packet": "08P01",
    "query_wait_timeout": "53300",
    "query_timeout": "57014",
    "query timeout": "57014",
    "client_login_timeout": "08006",
    "client_login_timeout (server down)": "57P03",
    "server shutting down": "57P01",
    "pooler is shutting down": "57P01",
    "admin forced disconnect": "57P01",
    "database configuration changed": "57P01",
    "suspend_timeout": "57P01",
    "database removed": "57P04",
    "idle transaction timeout": "25P03",
    "transaction timeout": "25P04",
    "client_idle_timeout": "57P05",
    "server conn crashed?": "08006",
    "unexpected eof": "08006",
    "server connection closed": "08006",
    "login failed": "08006",
    "server refused SSL": "08006",
    "connect failed": "08006",
    "connect timeout": "08006",
    "server DNS lookup failed": "08006",
    "unknown pkt": "08P01",
    "failed to parse packet": "08P01",
    "PQexec disallowed": "0A000",
    "prepared statement name is already in use": "42P05",
    "prepared statement did not exist": "26000",
    "transaction blocks not allowed in statement pooling mode": "0A000",
    "invalid server parameter": "08006",
    "old V2 protocol not supported": "0A000",
}


@pytest.mark.parametrize("text", TEXTS)
def test_each_of_pgbouncers_texts_has_a_code_that_means_something(text: str) -> None:
    assert errors.client_error(text).sqlstate == TEXTS[text]


def test_the_table_has_no_text_that_is_not_accounted_for() -> None:
    assert set(errors.SQLSTATES) - set(TEXTS) <= {"login rejected", "no authentication method is found"}


@pytest.mark.parametrize(
    ("error", "sqlstate", "text"),
    [
        (errors.no_such_database("x"), "3D000", "no such database: x"),
        (errors.database_disabled("x"), "57P03", 'database "x" is disabled'),
        (errors.auth_database_disabled("x"), "57P03", 'authentication database "x" is disabled'),
        (errors.unsupported_startup_parameter("x"), "0A000", "unsupported startup parameter: x"),
        (errors.unsupported_startup_option("x"), "0A000", "unsupported startup parameter in options: x"),
        (errors.broken_packet("Bind"), "08P01", "broken Bind packet"),
    ],
)
def test_texts_with_a_name_in_them_keep_pgbouncers_words(
    error: errors.ClientError | errors.ProtocolError, sqlstate: str, text: str
) -> None:
    assert (error.sqlstate, error.message) == (sqlstate, text)
