"""Our login and auth_query against a real PostgreSQL, with nothing between but a socket.

Each of the server's methods, pass-through with keys from a client's own proof, and the words for a wrong password.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from tests.pgweir.protocol.auth.conversations import application_side, converse, pooler_side
from tests.postgres.server import AUTH_QUERY, PASSWORDS, PostgresServer

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.auth_query import AuthQueryOutcome, AuthQueryResult, Found, NoSuchUser, auth_query_messages
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.md5 import md5_secret
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ServerLoginError
from pgweir.protocol.messages import B
from pgweir.protocol.reader import MessageReader


class ServerConnection:
    """A blocking connection, just enough to carry the pure parts."""

    def __init__(self, port: int, user: str, database: str, login: ServerAuthentication) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._reader = MessageReader(max_size=1 << 20)
        self.parameters: dict[str, str] = {}
        try:
            self._log_in(user, database, login)
        except BaseException:
            self.close()
            raise

    def _log_in(self, user: str, database: str, login: ServerAuthentication) -> None:
        self.send(messages.startup_message({"user": user, "database": database}))
        for type_, body in self.messages():
            if type_ == B.AUTHENTICATION:
                self.send(done_at_once(login.receive(body)) or b"")
            elif type_ == B.ERROR_RESPONSE:
                error = messages.parse_error(body)
                raise ServerLoginError(error.message, error.sqlstate)
            elif type_ == B.PARAMETER_STATUS:
                name, value = messages.parse_parameter_status(body)
                self.parameters[name] = value
            elif type_ == B.BACKEND_KEY_DATA:
                assert len(messages.parse_backend_key_data(body)) == 8
            elif type_ == B.READY_FOR_QUERY:
                assert messages.parse_ready_for_query(body) == b"I"
                return

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def messages(self) -> Iterator[tuple[int, bytes]]:
        data = b""
        while True:
            yield from self._reader.feed(data)
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"

    def close(self) -> None:
        self._socket.close()


def log_in(
    postgres: PostgresServer,
    user: str,
    password: str | None = None,
    keys: scram.ScramKeys | None = None,
    database: str = "app",
) -> ServerConnection:
    login = ServerAuthentication(user, password=password, scram_keys=keys, random=os.urandom)
    return ServerConnection(postgres.port, user, database, login)


@pytest.mark.parametrize("user", ["alice", "bob", "carol", "trusty"])
def test_each_method_of_the_server_lets_us_in(postgres: PostgresServer, user: str) -> None:
    server = log_in(postgres, user, PASSWORDS[user])
    assert server.parameters["client_encoding"] == "UTF8"
    server.close()


def test_a_hashed_password_is_enough_for_md5(postgres: PostgresServer) -> None:
    log_in(postgres, "bob", md5_secret("bob", PASSWORDS["bob"])).close()


@pytest.mark.parametrize("user", ["alice", "bob", "carol"])
def test_a_wrong_password_is_told_as_we_tell_it_ourselves(postgres: PostgresServer, user: str) -> None:
    with pytest.raises(ServerLoginError) as raised:
        log_in(postgres, user, "wrong")
    assert (raised.value.sqlstate, raised.value.message) == (
        "28P01",
        f'password authentication failed for user "{user}"',
    )


def look_up(postgres: PostgresServer, name: str) -> AuthQueryOutcome:
    server = log_in(postgres, "pooler_auth", PASSWORDS["pooler_auth"], database="postgres")
    server.send(auth_query_messages(AUTH_QUERY, name))
    result = AuthQueryResult()
    for type_, body in server.messages():
        outcome = result.receive(type_, body)
        if outcome is not None:
            server.close()
            return outcome
    raise AssertionError("the stream ended")


def test_a_client_proves_itself_against_the_servers_verifier_and_its_keys_open_the_server(
    postgres: PostgresServer,
) -> None:
    found = look_up(postgres, "alice")
    assert isinstance(found, Found)
    assert scram.parse_verifier(found.secret) is not None
    client = application_side(PASSWORDS["alice"], user="alice")
    keys = converse(pooler_side("scram-sha-256", found.secret, user="alice"), client).scram_keys
    assert keys is not None
    log_in(postgres, "alice", keys=keys).close()


def test_auth_query_says_who_is_unknown(postgres: PostgresServer) -> None:
    assert look_up(postgres, "nobody'; --") == NoSuchUser()
    assert look_up(postgres, "bob") == Found("bob", md5_secret("bob", PASSWORDS["bob"]))


UNICODE_PASSWORDS = [
    "pässwörd",
    "e\u0301\u00ad\u00aa",  # composed, dropped, folded
    "\u0627x\u0627",  # both directions mixed: SASLprep refuses
    "\u00ad",  # nothing would be left
    "x\u2003y\U0001f600",  # a wide space; a character that Unicode 3.2 does not know
]


@pytest.mark.parametrize("password", UNICODE_PASSWORDS, ids=ascii)
def test_passwords_outside_ascii_are_prepared_as_postgresql_does(postgres: PostgresServer, password: str) -> None:
    postgres.execute(
        f"SET password_encryption = 'scram-sha-256'; ALTER ROLE expired VALID UNTIL 'infinity' PASSWORD '{password}'"
    )
    try:
        log_in(postgres, "expired", password).close()
    finally:
        postgres.execute(f"ALTER ROLE expired VALID UNTIL '2001-01-01' PASSWORD '{PASSWORDS['expired']}'")
