"""A client's login as a conversation: every method with every kind of secret, and a failure that tells nothing."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pgweir.protocol.auth.conversations import MOCK_KEY, application_side, converse, pooler_side

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.client_auth import (
    METHODS,
    ClientAuthentication,
    ClientAuthMethod,
    Continue,
    PasswordSent,
    Succeeded,
)
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.md5 import md5_secret
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ClientError
from pgweir.protocol.messages import Auth, F

PLAIN = "pencil"
MD5 = md5_secret("u", "pencil")
SCRAM = scram.build_verifier("pencil", b"0123456789abcdef").format()

PASSWORD_METHODS: tuple[ClientAuthMethod, ...] = ("plain", "md5", "scram-sha-256")


class TestSuccess:
    @pytest.mark.parametrize(
        ("method", "secret"),
        [
            ("plain", PLAIN),
            ("plain", MD5),
            ("plain", SCRAM),
            ("md5", PLAIN),
            ("md5", MD5),
            ("md5", SCRAM),
            ("scram-sha-256", PLAIN),
            ("scram-sha-256", SCRAM),
        ],
    )
    def test_the_right_password_opens(self, method: ClientAuthMethod, secret: str) -> None:
        converse(pooler_side(method, secret), application_side("pencil"))

    def test_nothing_is_asked_of_those_who_are_trusted(self) -> None:
        assert pooler_side("trust", "").start() == b""
        assert pooler_side("any", None).start() == b""

    def test_a_stored_scram_secret_gives_keys_that_open_a_server(self) -> None:
        keys = converse(pooler_side("scram-sha-256", SCRAM), application_side("pencil")).scram_keys
        assert keys == scram.scram_keys("pencil", b"0123456789abcdef", 4096)
        converse(pooler_side("scram-sha-256", SCRAM), application_side(keys=keys))

    def test_an_ad_hoc_verifier_gives_no_keys(self) -> None:
        assert converse(pooler_side("scram-sha-256", PLAIN), application_side("pencil")).scram_keys is None

    def test_a_password_that_was_sent_is_handed_on_and_never_shown(self) -> None:
        outcome = converse(pooler_side("plain", SCRAM), application_side("pencil"))
        assert outcome.password == "pencil"
        assert "pencil" not in repr(outcome)
        assert "pencil" not in repr(pooler_side("plain", PLAIN))

    def test_a_hashed_md5_secret_answers_an_md5_challenge(self) -> None:
        converse(pooler_side("md5", PLAIN), application_side(MD5))

    def test_ad_hoc_verifiers_are_shared_between_logins(self) -> None:
        cache = scram.ScramCache()
        challenges = []
        for _ in range(2):
            login = ClientAuthentication(
                "scram-sha-256", user="u", secret=PLAIN, random=os.urandom, mock_key=MOCK_KEY, cache=cache
            )
            challenges.append(salt_of(challenge(login)))
        assert challenges[0] == challenges[1]


def challenge(login: ClientAuthentication) -> bytes:
    login.start()
    outcome = done_at_once(
        login.receive(F.PASSWORD, messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")[5:])
    )
    assert isinstance(outcome, Continue)
    return outcome.data[9:]


def salt_of(server_first: bytes) -> list[bytes]:
    """Salt and iterations: all of a challenge but the nonce."""
    return server_first.split(b",")[1:]


class EmptyPassword(ServerAuthentication):
    """An application that really answers with an empty password, which our own login never does."""

    def __init__(self) -> None:
        super().__init__("u", password=None, scram_keys=None, random=os.urandom)
        self._empty = scram.ScramClient(nonce=b"abc", password="")

    def receive(self, body: bytes) -> bytes | None:
        request = messages.parse_authentication(body)
        match request.code:
            case Auth.CLEARTEXT:
                return messages.password_message("")
            case Auth.SASL:
                return messages.sasl_initial_response(scram.MECHANISM, self._empty.first())
            case Auth.SASL_CONTINUE:
                return messages.sasl_response(done_at_once(self._empty.final(request.data)))
        raise AssertionError(f"the login went on: {request}")


def failure(method: ClientAuthMethod, secret: str | None, password: str = "wrong") -> ClientError:
    with pytest.raises(ClientError) as raised:
        converse(pooler_side(method, secret), application_side(password))
    return raised.value


class TestFailure:
    @pytest.mark.parametrize("method", PASSWORD_METHODS)
    @pytest.mark.parametrize("secret", [None, "", PLAIN, MD5, SCRAM])
    def test_every_failure_is_told_in_postgresqls_words(self, method: ClientAuthMethod, secret: str | None) -> None:
        error = failure(method, secret)
        assert (error.sqlstate, error.message) == ("28P01", 'password authentication failed for user "u"')
        assert (error.detail, error.hint, error.stage) == (None, None, "password")

    def test_the_log_knows_what_it_was(self) -> None:
        assert failure("scram-sha-256", SCRAM).reason == "SASL authentication failed"
        assert failure("md5", MD5).reason == "password authentication failed"
        assert failure("scram-sha-256", None).reason == "SASL authentication failed (no such user)"
        assert failure("plain", "").reason == "password authentication failed (the user has no password)"
        assert "the stored secret is md5" in failure("scram-sha-256", MD5, "pencil").reason

    @pytest.mark.parametrize("method", PASSWORD_METHODS)
    def test_an_empty_stored_password_never_matches(self, method: ClientAuthMethod) -> None:
        with pytest.raises(ClientError):
            converse(pooler_side(method, ""), EmptyPassword())

    @pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
    def test_a_stranger_is_challenged_like_a_user_with_a_scram_secret(self, method: ClientAuthMethod) -> None:
        known, unknown = pooler_side(method, SCRAM), pooler_side(method, None)
        assert known.start() == unknown.start()
        first, again = challenge(pooler_side(method, None)), challenge(pooler_side(method, None))
        assert salt_of(first) == salt_of(again)
        assert len(first) == len(challenge(pooler_side(method, SCRAM)))
        assert salt_of(first) != salt_of(challenge(pooler_side(method, None, user="v")))

    def test_trust_is_for_known_users_alone(self) -> None:
        with pytest.raises(ClientError, match='"trust" authentication failed') as raised:
            pooler_side("trust", None).start()
        assert raised.value.sqlstate == "28000"

    @pytest.mark.parametrize(("method", "secret"), [("plain", PLAIN), ("md5", MD5)])
    def test_an_empty_password_is_named_as_such(self, method: ClientAuthMethod, secret: str) -> None:
        login = pooler_side(method, secret)
        login.start()
        with pytest.raises(ClientError, match="empty password returned by client"):
            login.receive(F.PASSWORD, b"\0")


class TestMisbehaviour:
    def test_another_mechanism_is_refused(self) -> None:
        login = pooler_side("scram-sha-256", SCRAM)
        login.start()
        with pytest.raises(ClientError, match="invalid SASL authentication mechanism"):
            login.receive(F.PASSWORD, messages.sasl_initial_response("SCRAM-SHA-256-PLUS", b"")[5:])

    def test_another_message_is_refused(self) -> None:
        login = pooler_side("plain", PLAIN)
        login.start()
        with pytest.raises(ClientError, match="expected password response, got message type 81") as raised:
            login.receive(F.QUERY, b"select 1\0")
        assert raised.value.sqlstate == "08P01"

    def test_a_password_before_any_request_is_refused(self) -> None:
        with pytest.raises(ClientError, match="client password pkt before startup packet"):
            pooler_side("plain", PLAIN).receive(F.PASSWORD, b"pencil\0")

    def test_a_proof_is_judged_once(self) -> None:
        login = pooler_side("scram-sha-256", SCRAM)
        converse(login, application_side("pencil"))
        with pytest.raises(ClientError):
            login.receive(F.PASSWORD, b"again")

    def test_a_client_may_wait_for_an_empty_challenge_before_it_speaks(self) -> None:
        login = pooler_side("scram-sha-256", SCRAM)
        login.start()
        client = scram.ScramClient(nonce=b"abc", password="pencil")
        empty = login.receive(F.PASSWORD, b"SCRAM-SHA-256\0\xff\xff\xff\xff")
        assert isinstance(empty, Continue)
        assert empty.data == messages.authentication_sasl_continue(b"")
        asked = done_at_once(login.receive(F.PASSWORD, client.first()))
        assert isinstance(asked, Continue)
        assert isinstance(login.receive(F.PASSWORD, done_at_once(client.final(asked.data[9:]))), Succeeded)

    def test_an_unknown_method_is_our_own_mistake(self) -> None:
        with pytest.raises(ValueError, match="unknown authentication method 'pam'"):
            pooler_side("pam", PLAIN)  # type: ignore[arg-type]

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("secret", [None, MD5, SCRAM])
    @given(said=st.lists(st.tuples(st.just(F.PASSWORD) | st.integers(0, 255), st.binary(max_size=60)), max_size=3))
    def test_noise_gets_a_client_error_and_nothing_else(
        self, method: ClientAuthMethod, secret: str | None, said: list[tuple[int, bytes]]
    ) -> None:
        login = ClientAuthentication(
            method, user="u", secret=secret, random=os.urandom, mock_key=MOCK_KEY, scram_iterations=1
        )
        try:
            login.start()
            for type_, body in said:
                assert isinstance(done_at_once(login.receive(type_, body)), Continue | PasswordSent)
        except ClientError:
            pass
