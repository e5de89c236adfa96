"""SCRAM-SHA-256: the RFC's own exchange byte by byte, our two sides against each other, and everything that is
refused."""

from __future__ import annotations

import base64
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol.auth import scram
from pgweir.protocol.auth.heavy import HeavyStep, done_at_once
from pgweir.protocol.errors import ProtocolError, ServerLoginError
from pgweir.protocol.messages import decode

# RFC 7677, section 3: user "user", password "pencil".
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

KEYS = scram.scram_keys("pencil", SALT, 4096)
VERIFIER = scram.verifier_of(KEYS, SALT, 4096)


def rfc_server() -> scram.ScramServer:
    return scram.ScramServer(VERIFIER, SERVER_NONCE)


def rfc_client() -> scram.ScramClient:
    return scram.ScramClient(nonce=CLIENT_NONCE, password="pencil", user="user")


class TestTheExampleOfRfc7677:
    def test_our_client_side_says_it_word_for_word(self) -> None:
        client = rfc_client()
        assert client.first() == CLIENT_FIRST
        assert done_at_once(client.final(SERVER_FIRST)) == CLIENT_FINAL
        client.verify(SERVER_FINAL)

    def test_our_server_side_says_it_word_for_word(self) -> None:
        server = rfc_server()
        assert server.first(CLIENT_FIRST) == SERVER_FIRST
        assert server.final(CLIENT_FINAL) == (SERVER_FINAL, KEYS)


def exchange(client: scram.ScramClient, verifier: scram.Verifier) -> scram.ScramKeys | None:
    server = scram.ScramServer(verifier, scram.make_nonce(os.urandom))
    proved = server.final(done_at_once(client.final(server.first(client.first()))))
    if proved is None:
        return None
    client.verify(proved[0])
    return proved[1]


def client(password: str | None = None, keys: scram.ScramKeys | None = None) -> scram.ScramClient:
    return scram.ScramClient(nonce=scram.make_nonce(os.urandom), password=password, keys=keys)


class TestBothSides:
    @given(st.binary(min_size=1).map(decode) | st.text(min_size=1))
    def test_any_password_that_made_the_verifier_is_proved(self, password: str) -> None:
        assert exchange(client(password), scram.build_verifier(password, b"salt", 2)) is not None

    def test_a_wrong_password_is_an_answer_and_no_exception(self) -> None:
        assert exchange(client("pencils"), VERIFIER) is None

    def test_the_keys_from_a_proof_open_the_next_server_without_the_password(self) -> None:
        keys = exchange(client("pencil"), VERIFIER)
        assert keys == KEYS
        assert exchange(client(keys=keys), VERIFIER) == KEYS

    def test_keys_do_not_open_a_server_with_another_salt(self) -> None:
        assert exchange(client(keys=KEYS), scram.build_verifier("pencil", b"other", 4096)) is None

    def test_a_mock_verifier_matches_no_password_and_looks_the_same_each_time(self) -> None:
        mock = scram.mock_verifier("eve", b"key")
        assert exchange(client("pencil"), mock) is None
        assert scram.mock_verifier("eve", b"key").format() == mock.format()
        assert len(mock.salt) == scram.SALT_SIZE
        assert mock.salt != scram.mock_verifier("adam", b"key").salt != scram.mock_verifier("adam", b"yek").salt

    def test_a_password_in_clear_text_is_checked_against_a_verifier(self) -> None:
        assert scram.password_matches("pencil", VERIFIER)
        assert not scram.password_matches("Pencil", VERIFIER)

    def test_a_client_has_a_password_or_keys(self) -> None:
        with pytest.raises(ValueError, match="a password or keys"):
            client()
        with pytest.raises(ValueError, match="a password or keys"):
            client("x", KEYS)


class TestVerifiers:
    def test_a_verifier_is_written_as_postgresql_stores_it_and_read_again(self) -> None:
        text = VERIFIER.format()
        assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
        read = scram.parse_verifier(text)
        assert read is not None
        assert read.format() == text

    @pytest.mark.parametrize(
        "broken",
        [
            "",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$0:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
            "SCRAM-SHA-256$4096:c2FsdA==$QQ==:" + "A" * 43 + "=",
            "SCRAM-SHA-256$4096:!$" + "A" * 43 + "=:" + "A" * 43 + "=",
            "SCRAM-SHA-256$9999999999:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
            "SCRAM-SHA-256$4096:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=\n",
        ],
    )
    def test_what_is_not_well_formed_is_no_verifier(self, broken: str) -> None:
        assert scram.parse_verifier(broken) is None

    def test_no_secret_shows_in_a_repr(self) -> None:
        assert repr(KEYS) == "ScramKeys()"
        assert repr(VERIFIER) == "Verifier(iterations=4096)"


class TestRefusedClients:
    @pytest.mark.parametrize(
        ("first", "text"),
        [
            (b"p=tls-server-end-point,,n=,r=x", "channel binding, which was not offered"),
            (b"n,a=other,n=,r=x", "authorization identity"),
            (b"z,,n=,r=x", "unknown channel binding flag"),
            (b"n,,m=x,n=,r=x", 'attribute "n" expected'),
            (b"n,,n=,r=", "bad nonce"),
            (b"n,,n=,r=\x80", "bad nonce"),
            (b"n,,n=", "attributes are missing"),
            (b"n", "attributes are missing"),
        ],
    )
    def test_a_first_message_that_cannot_be_is_named(self, first: bytes, text: str) -> None:
        with pytest.raises(ProtocolError, match=text):
            rfc_server().first(first)

    def test_a_client_that_could_bind_channels_is_accepted_if_it_says_so_twice(self) -> None:
        """libpq over TLS, where no binding is offered: the flag `y` at first, and `c=` holds it again."""
        server = rfc_server()
        challenge = server.first(b"y,,n=,r=abc")
        without_proof = b"c=eSws," + challenge.split(b",")[0]
        auth_message = b",".join((b"n=,r=abc", challenge, without_proof))
        signature = hmac.digest(VERIFIER.stored_key, auth_message, "sha256")
        proof = bytes(a ^ b for a, b in zip(KEYS.client_key, signature, strict=True))
        assert server.final(without_proof + b",p=" + base64.b64encode(proof)) is not None

    def test_a_flag_that_was_changed_on_the_way_is_found_out(self) -> None:
        server = rfc_server()
        server.first(CLIENT_FIRST.replace(b"n,,", b"y,,"))
        with pytest.raises(ProtocolError, match="channel-binding attribute"):
            server.final(CLIENT_FINAL)

    @pytest.mark.parametrize(
        ("final", "text"),
        [
            (CLIENT_FINAL.replace(b"c=biws", b"c=eSws"), "channel-binding attribute"),
            (CLIENT_FINAL.replace(b"$k0", b"$k1"), "nonce does not match"),
            (CLIENT_FINAL[:-4], "bad proof"),
            (CLIENT_FINAL.replace(b",p=", b",q="), "bad proof"),
            (b"p=" + CLIENT_FINAL[-44:], "bad proof"),
            (b"c=biws,p=" + CLIENT_FINAL[-44:], "attributes are missing"),
            (b"", "bad proof"),
        ],
    )
    def test_a_final_message_that_cannot_be_is_named(self, final: bytes, text: str) -> None:
        server = rfc_server()
        server.first(CLIENT_FIRST)
        with pytest.raises(ProtocolError, match=text):
            server.final(final)

    @given(st.binary() | st.builds(lambda a, b: b"n,,n=" + a + b",r=" + b, st.binary(), st.binary()), st.binary())
    def test_noise_gets_a_protocol_error_and_nothing_else(self, first: bytes, final: bytes) -> None:
        server = rfc_server()
        try:
            server.first(first)
        except ProtocolError:
            pass
        with pytest.raises(ProtocolError):
            server.final(final)


class TestRefusedServers:
    @pytest.mark.parametrize(
        ("server_first", "text"),
        [
            (SERVER_FIRST.replace(b"rOpr", b"xOpr"), "nonce mismatch"),
            (b"r=" + CLIENT_NONCE + b",s=QQ==,i=4096", "nonce mismatch"),
            (b"r=" + CLIENT_NONCE + b"x,s=,i=4096", "bad salt"),
            (b"r=" + CLIENT_NONCE + b"x,s=!,i=4096", "bad salt"),
            (b"r=" + CLIENT_NONCE + b"x,s=QQ==,i=0", "bad iteration count"),
            (b"r=" + CLIENT_NONCE + b"x,s=QQ==,i=-1", "bad iteration count"),
            (b"r=" + CLIENT_NONCE + b"x,s=QQ==,i=99999999999", "bad iteration count"),
            (b"r=" + CLIENT_NONCE + b"x,s=QQ==", "attributes are missing"),
            (b"m=x," + SERVER_FIRST, 'attribute "r" expected'),
        ],
    )
    def test_a_challenge_that_cannot_be_is_named(self, server_first: bytes, text: str) -> None:
        with pytest.raises(ProtocolError, match=text):
            rfc_client().final(server_first)

    def test_a_server_cannot_make_us_work_for_ever(self) -> None:
        challenge = b"r=" + CLIENT_NONCE + b"x,s=QQ==,i=2000000000"
        with pytest.raises(ServerLoginError, match="2000000000 SCRAM iterations, more than 1000000 are refused"):
            rfc_client().final(challenge)
        with_keys = scram.ScramClient(nonce=CLIENT_NONCE, keys=KEYS)
        assert done_at_once(with_keys.final(challenge)).startswith(b"c=biws,")  # costs nothing with keys

    def test_a_server_that_does_not_know_the_password_is_found_out(self) -> None:
        impostor = rfc_client()
        done_at_once(impostor.final(SERVER_FIRST))
        with pytest.raises(ServerLoginError, match="invalid server signature"):
            impostor.verify(b"v=" + base64.b64encode(bytes(32)))
        with pytest.raises(ServerLoginError, match="invalid server signature"):
            rfc_client().verify(b"v=")  # before any proof: even an empty signature matches nothing

    def test_a_server_says_why_it_refuses(self) -> None:
        with pytest.raises(ServerLoginError, match="server login failed: other-error"):
            rfc_client().verify(b"e=other-error")

    @given(st.binary() | st.binary().map(lambda noise: b"r=" + CLIENT_NONCE + noise), st.binary())
    def test_noise_gets_a_known_error_and_nothing_else(self, first: bytes, final: bytes) -> None:
        noisy = scram.ScramClient(nonce=CLIENT_NONCE, keys=KEYS)
        try:
            done_at_once(noisy.final(first))
        except (ProtocolError, ServerLoginError):
            pass
        with pytest.raises((ProtocolError, ServerLoginError)):
            noisy.verify(final)


class TestSaslprep:
    """RFC 4013, section 3, and PostgreSQL's rule for what it refuses: the bytes as they are."""

    @pytest.mark.parametrize(
        ("password", "normalized"),
        [
            ("I\u00adX", b"IX"),
            ("user", b"user"),
            ("USER", b"USER"),
            ("\u00aa", b"a"),
            ("\u2168", b"IX"),
            ("a\u00a0b", b"a b"),
            ("\u0007", b"\x07"),
            ("\u0627\u0031", "\u0627\u0031".encode()),
            ("\u00ad", "\u00ad".encode()),
            ("\u0627x\u0627", "\u0627x\u0627".encode()),
            ("é\ue000", "é\ue000".encode()),
            ("e\u0301", "é".encode()),
        ],
    )
    def test_passwords_are_normalized_as_postgresql_does(self, password: str, normalized: bytes) -> None:
        assert scram.normalized_password(password) == normalized

    def test_bytes_that_are_not_utf8_are_used_as_they_are(self) -> None:
        assert scram.normalized_password("caf\udce9") == b"caf\xe9"


class TestCache:
    def test_a_name_has_one_salt_whoever_it_is(self) -> None:
        assert scram.salt_of("u", b"k") == scram.salt_of("u", b"k") == scram.mock_verifier("u", b"k").salt
        assert len({scram.salt_of("u", b"k"), scram.salt_of("v", b"k"), scram.salt_of("u", b"l")}) == 3

    def test_keys_are_work_once_and_then_they_are_there(self) -> None:
        cache = scram.ScramCache()
        work = cache.keys("x", b"s", 2)
        assert isinstance(work, HeavyStep)
        assert repr(cache) == "ScramCache(0 keys)"  # nothing is kept before the work is done
        assert done_at_once(work) == scram.scram_keys("x", b"s", 2) == cache.keys("x", b"s", 2)
        assert isinstance(cache.keys("x", b"s", 3), HeavyStep)

    def test_the_least_recently_used_go_first(self) -> None:
        cache = scram.ScramCache(size=2)
        kept = done_at_once(cache.keys("a", b"s", 1))
        done_at_once(cache.keys("b", b"s", 1))
        assert cache.keys("a", b"s", 1) is kept
        done_at_once(cache.keys("c", b"s", 1))
        assert cache.keys("a", b"s", 1) is kept
        assert isinstance(cache.keys("b", b"s", 1), HeavyStep)
        assert repr(cache) == "ScramCache(2 keys)"


@given(key=st.binary(max_size=64), data=st.binary(max_size=300))
def test_our_hmac_is_that_of_the_library(key: bytes, data: bytes) -> None:
    assert scram._hmac(key, data) == hmac.digest(key, data, "sha256")
