"""md5: values that PostgreSQL itself computes."""

from __future__ import annotations

from pgweir.protocol.auth.md5 import md5_response, md5_secret


def test_the_stored_form_is_postgresqls() -> None:
    # SELECT 'md5' || md5('password' || 'postgres')
    assert md5_secret("postgres", "password") == "md532e12f215ba27cb750c9e093ce4b5127"


def test_the_answer_to_a_challenge_is_salted() -> None:
    stored = md5_secret("postgres", "password")
    # SELECT 'md5' || md5('32e12f215ba27cb750c9e093ce4b5127' || '1234')
    assert md5_response(stored, b"1234") == "md596cf25f63db83830eae3750156eedebf"
