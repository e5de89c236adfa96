"""Our login at PostgreSQL: what we can answer, what we cannot, and servers that are not what they seem."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pgweir.protocol.auth.conversations import application_side, converse, pooler_side

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.md5 import md5_response, md5_secret
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ProtocolError, ServerLoginError

MD5 = md5_secret("u", "pencil")
SCRAM = scram.build_verifier("pencil", b"salt").format()
KEYS = scram.scram_keys("pencil", b"salt", 4096)

OK = messages.authentication_ok()[5:]
CLEARTEXT = messages.authentication_cleartext()[5:]
MD5_REQUEST = messages.authentication_md5(b"1234")[5:]
SASL = messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])[5:]


def refusal(login: ServerAuthentication, *requests: bytes) -> str:
    """All but the last request are answered; the last one is refused, with these words."""
    for request in requests[:-1]:
        done_at_once(login.receive(request))
    with pytest.raises(ServerLoginError) as raised:
        login.receive(requests[-1])
    return raised.value.message


class TestAnswers:
    def test_a_server_that_trusts_us_is_done_at_once(self) -> None:
        assert application_side().receive(OK) is None

    def test_a_plain_password_is_sent_when_asked(self) -> None:
        login = application_side("pencil")
        assert login.receive(CLEARTEXT) == messages.password_message("pencil")
        assert login.receive(OK) is None

    @pytest.mark.parametrize("stored", ["pencil", MD5])
    def test_an_md5_challenge_is_answered_from_a_plain_or_a_hashed_password(self, stored: str) -> None:
        login = application_side(stored)
        assert login.receive(MD5_REQUEST) == messages.password_message(md5_response(MD5, b"1234"))
        assert login.receive(OK) is None

    def test_a_plain_password_goes_before_keys_that_may_be_stale(self) -> None:
        converse(pooler_side("scram-sha-256", SCRAM), application_side("pencil", scram.ScramKeys(b"x" * 32, b"y" * 32)))

    def test_keys_are_used_where_the_stored_secret_is_the_verifier(self) -> None:
        converse(pooler_side("scram-sha-256", SCRAM), application_side(SCRAM, KEYS))

    def test_keys_are_derived_once_for_all_logins_with_a_cache(self) -> None:
        cache = scram.ScramCache()
        for _ in range(2):
            login = ServerAuthentication("u", password="pencil", scram_keys=None, random=os.urandom, cache=cache)
            converse(pooler_side("scram-sha-256", SCRAM), login)
        assert repr(cache) == "ScramCache(1 keys)"


class TestRefusals:
    @pytest.mark.parametrize(
        ("password", "keys", "request_"),
        [
            (MD5, None, CLEARTEXT),
            (MD5, None, SASL),
            (SCRAM, None, CLEARTEXT),
            (SCRAM, None, MD5_REQUEST),
            (SCRAM, None, SASL),
            (None, KEYS, CLEARTEXT),
            (None, KEYS, MD5_REQUEST),
        ],
    )
    def test_a_secret_of_the_wrong_kind_is_called_so(
        self, password: str | None, keys: scram.ScramKeys | None, request_: bytes
    ) -> None:
        assert refusal(application_side(password, keys), request_) == "server login failed: wrong password type"

    @pytest.mark.parametrize("request_", [CLEARTEXT, MD5_REQUEST, SASL])
    def test_having_no_secret_at_all_is_called_so(self, request_: bytes) -> None:
        assert refusal(application_side(), request_) == 'server login failed: no password is known for user "u"'

    def test_other_mechanisms_are_not_ours(self) -> None:
        only_plus = messages.authentication_sasl(["SCRAM-SHA-256-PLUS"])[5:]
        assert "none of the server's SASL authentication mechanisms" in refusal(application_side("x"), only_plus)

    @pytest.mark.parametrize("code", [2, 7, 8, 9, 11, 12])
    def test_other_requests_are_not_ours(self, code: int) -> None:
        text = refusal(application_side("x"), code.to_bytes(4, "big"))
        assert text == f"server login failed: unsupported authentication request {code}"


class TestImpostors:
    def test_a_server_may_not_skip_its_own_proof(self) -> None:
        assert refusal(application_side("x"), SASL, OK) == (
            "server login failed: the server skipped its SCRAM signature"
        )
        login = ServerAuthentication("u", password="x", scram_keys=None, random=lambda size: b"\0" * size)
        nonce = scram.make_nonce(lambda size: b"\0" * size)
        challenge = messages.authentication_sasl_continue(b"r=" + nonce + b"x,s=QQ==,i=1")[5:]
        assert "skipped" in refusal(login, SASL, challenge, OK)

    def test_a_server_may_not_ask_for_the_password_in_clear_after_scram_began(self) -> None:
        assert refusal(application_side("x"), SASL, CLEARTEXT) == (
            "server login failed: unexpected authentication request 3"
        )

    def test_a_login_is_complete_with_authentication_ok_and_not_before(self) -> None:
        login = application_side("pencil")
        assert not login.completed
        login.receive(CLEARTEXT)
        assert not login.completed
        login.receive(OK)
        assert login.completed
        assert refusal(login, OK) == "server login failed: unsupported authentication request 0"

    def test_a_server_may_not_ask_twice(self) -> None:
        assert "unexpected" in refusal(application_side("x"), MD5_REQUEST, CLEARTEXT)

    @given(st.lists(st.binary(max_size=60) | st.sampled_from([SASL, MD5_REQUEST, OK, CLEARTEXT]), max_size=4))
    def test_noise_gets_a_known_error_and_nothing_else(self, requests: list[bytes]) -> None:
        login = application_side("pencil")
        try:
            for request in requests:
                done_at_once(login.receive(request))
        except (ServerLoginError, ProtocolError):
            pass

    def test_no_secret_shows_in_a_repr(self) -> None:
        assert repr(application_side("pencil", KEYS)) == (
            "ServerAuthentication(user='u', password=plain, with SCRAM keys)"
        )
