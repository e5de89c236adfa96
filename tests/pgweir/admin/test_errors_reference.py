"""docs/errors.md is what the tables of errors and close reasons say."""

from __future__ import annotations

from pathlib import Path

from pgweir.admin.errors_reference import CLOSED, CODES, NAMED, errors_reference
from pgweir.protocol import errors
from pgweir.protocol.reasons import CloseReason

ROOT = Path(__file__).parents[3]


def test_the_page_of_errors_is_what_the_tables_say() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert page == errors_reference(), "write it anew: python -m pgweir.admin.errors_reference > docs/errors.md"


def test_every_close_reason_and_every_code_is_explained() -> None:
    assert set(CLOSED) == set(CloseReason)
    assert set(errors.SQLSTATES.values()) | set(NAMED.values()) == set(CODES)


def test_the_texts_with_a_part_that_changes_are_said_as_they_are_listed() -> None:
    said = [
        errors.no_such_database("NAME"),
        errors.database_disabled("NAME"),
        errors.password_authentication_failed("NAME"),
        errors.peer_authentication_failed("NAME", "…"),
        errors.certificate_authentication_failed("NAME", "…"),
        errors.ldap_authentication_failed("NAME", "…"),
        errors.unsupported_startup_parameter("NAME"),
        errors.unsupported_startup_option("NAME"),
    ]
    for error in said:
        assert NAMED[error.message] == error.sqlstate
