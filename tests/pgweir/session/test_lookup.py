"""auth_query in conversations: one question for all who ask at the same time, and what becomes of them when it fails."""

from __future__ import annotations

import pytest
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.world import World

from pgweir.protocol import messages

READY = messages.ready_for_query(b"I")


class AuthPostgres(MiniPostgres):
    """Knows one user, and counts how often it is asked."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(greeted=False)
        self.fails = fails
        self.asked: list[bytes] = []

    def _extended(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"B":
            self.asked.append(body.split(b"\0")[-1] or body)
            if self.fails:
                return self._fail("42883")
            self.portal = body
            return super()._extended(b"P", b"\0x\0") and b"2\0\0\0\4"
        if kind == b"D" and self.portal is not None:
            return messages.row_description([("usename", 25), ("passwd", 25)])
        if kind == b"E" and self.portal is not None:
            rows = messages.data_row([b"carol", b"secret"]) if b"carol" in self.portal else b""
            return rows + messages.command_complete("SELECT 1")
        return super()._extended(kind, body)


@pytest.fixture
def asking(make_world) -> World:
    return make_world(auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)")


def test_those_who_ask_at_the_same_time_share_one_question(asking):
    carols = [asking.starts_login(user="carol") for _ in range(3)]
    postgres = AuthPostgres()
    asking.accept(postgres)
    asking.run()
    assert len(postgres.asked) == 1
    for carol in carols:
        assert carol.hears().endswith(READY)
    assert asking.pooler.lookups.last_ok is True
    assert not asking.pooler.lookups
    late = asking.starts_login(user="carol")
    asking.run()
    assert late.hears().endswith(READY)
    assert len(postgres.asked) == 2  # nothing is kept


def test_a_user_whom_nobody_knows_is_refused(asking):
    dave = asking.starts_login(user="dave")
    asking.accept(AuthPostgres())
    asking.run()
    assert dave.hears().startswith(b"E")
    assert dave.wire.closed
    assert asking.pooler.lookups.last_ok is True


def test_a_question_that_fails_is_a_fault_of_ours(asking):
    carol = asking.starts_login(user="carol")
    asking.accept(AuthPostgres(fails=True))
    asking.run()
    assert b"bouncer config error" in carol.hears()
    assert asking.pooler.lookups.last_ok is False
    assert "42883" in str(asking.pooler.lookups.last_error)


def test_a_server_lost_during_the_question_fails_it(asking):
    carol = asking.starts_login(user="carol")
    server = asking.accept(AuthPostgres())
    while len(server.postgres.asked) == 0:
        server.deliver()
    server.lose()
    assert b"bouncer config error" in carol.hears()
    assert not asking.pooler.lookups


def test_a_client_that_leaves_during_the_question_is_forgotten(asking):
    carol = asking.starts_login(user="carol")
    asking.accept(AuthPostgres())
    carol.leaves()
    asking.run()
    assert carol.hears() == b""
    assert not asking.pooler.logins
