"""Both sides of a login face to face, as tests of either side need them."""

from __future__ import annotations

import os

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.protocol.auth.client_auth import ClientAuthentication, ClientAuthMethod, Continue, Succeeded
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.server_auth import ServerAuthentication

MOCK_KEY = b"k" * 32


def pooler_side(method: ClientAuthMethod, secret: str | None, user: str = "u") -> ClientAuthentication:
    return ClientAuthentication(method, user=user, secret=secret, random=os.urandom, mock_key=MOCK_KEY)


def application_side(
    password: str | None = None, keys: scram.ScramKeys | None = None, user: str = "u"
) -> ServerAuthentication:
    return ServerAuthentication(user, password=password, scram_keys=keys, random=os.urandom)


def converse(pooler: ClientAuthentication, application: ServerAuthentication) -> Succeeded:
    """The whole login; whatever either side raises comes out."""
    said = pooler.start()
    while said:
        answer = done_at_once(application.receive(said[5:]))
        assert answer is not None
        outcome = done_at_once(pooler.receive(answer[0], answer[5:]))
        if isinstance(outcome, Succeeded):
            if outcome.data:
                assert application.receive(outcome.data[5:]) == b""
            assert application.receive(messages.authentication_ok()[5:]) is None
            return outcome
        assert isinstance(outcome, Continue)
        said = outcome.data
    return Succeeded()
