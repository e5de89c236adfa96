"""auth_query in conversations: one question for all who ask at the same time, and what becomes of them when it fails."""

from __future__ import annotations

import pytest
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.world import World

from pgweir.pool.records import ClientState
from pgweir.protocol import messages

READY = messages.ready_for_query(b"I")


class AuthPostgres(MiniPostgres):
    """Knows one user, and counts how often it is asked."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(greeted=False)
        self.fails = fails
        self.asked: list[bytes] = []
        self.secret = b"secret"

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
            rows = messages.data_row([b"carol", self.secret]) if b"carol" in self.portal else b""
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


def test_an_answer_that_came_before_is_known_and_another_one_is_read(asking):
    asking.starts_login(user="carol")
    postgres = AuthPostgres()
    asking.accept(postgres)
    asking.run()
    assert [found.secret for found in asking.pooler.lookups.answers.values()] == ["secret"]
    asking.starts_login(user="carol")
    asking.run()
    assert len(postgres.asked) == 2, "PostgreSQL is asked all the same"
    postgres.secret = b"another"
    asking.starts_login(user="carol")
    asking.run()
    assert [found.secret for found in asking.pooler.lookups.answers.values()] == ["secret", "another"]
    asking.pooler.lookups.forget()
    assert not asking.pooler.lookups.answers


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


def test_a_secret_is_kept_for_the_time_that_is_set(make_world):
    asking = make_world(auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)", auth_query_cache_time=60)
    postgres = AuthPostgres()
    asking.starts_login(user="carol")
    asking.accept(postgres)
    asking.run()
    for _ in range(3):
        assert asking.client(user="carol").state is ClientState.IDLE
    assert len(postgres.asked) == 1
    asking.edge.now += 61
    asking.client(user="carol")
    assert len(postgres.asked) == 2
    asking.operations.apply(asking.config)
    asking.client(user="carol")
    assert len(postgres.asked) == 3


def test_nobody_is_kept_who_was_not_found(make_world):
    asking = make_world(auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)", auth_query_cache_time=60)
    postgres = AuthPostgres()
    asking.starts_login(user="dave")
    asking.accept(postgres)
    asking.run()
    asking.starts_login(user="dave")
    asking.run()
    assert len(postgres.asked) == 2


def test_a_kept_secret_that_no_longer_fits_is_asked_for_again(make_world):
    asking = make_world(
        auth_type="plain",
        auth_user="alice",
        auth_query="SELECT usename, passwd FROM look($1)",
        auth_query_cache_time=60,
    )
    postgres = AuthPostgres()

    def logs_in(secret: str) -> bytes:
        carol = asking.starts_login(user="carol")
        if not asking.servers:
            asking.accept(postgres)
        asking.run()
        carol.says(messages.password_message(secret))
        asking.run()
        return carol.hears()

    assert logs_in("secret").endswith(READY)
    assert b"28P01" in logs_in("the new one")
    assert len(postgres.asked) == 1
    assert logs_in("secret").endswith(READY)
    assert len(postgres.asked) == 2


def test_a_look_up_waits_for_the_end_of_a_pause_and_the_login_has_the_time(make_world):
    asking = make_world(
        auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)",
        client_login_timeout=10, query_wait_timeout=10,
    )  # fmt: skip
    asking.operations.pause()
    carol = asking.starts_login(user="carol")
    asking.sleep(100)
    assert carol.hears() == b""
    asking.operations.resume()
    asking.accept(AuthPostgres())
    asking.run()
    assert carol.hears().endswith(READY)


def test_a_look_up_that_waits_too_long_ends_with_its_login(make_world):
    asking = make_world(
        auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)",
        client_login_timeout=60, query_wait_timeout=5,
    )  # fmt: skip
    carol = asking.starts_login(user="carol")
    asking.sleep(7)
    assert b"bouncer config error" in carol.hears()
    assert "query_wait_timeout" in str(asking.pooler.lookups.last_error)


def test_no_more_run_at_a_time_than_the_pool_has_servers(make_world):
    asking = make_world(auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)", default_pool_size=2)
    for number in range(20):
        asking.starts_login(user=f"user{number}")
    asking.accept(AuthPostgres())
    while asking.servers[-1].deliver() or asking.edge.connecting:
        if asking.edge.connecting:
            asking.accept(AuthPostgres())
    asking.run()
    assert len(asking.servers) == 2
    assert sum(len(server.postgres.asked) for server in asking.servers) == 20
    assert not asking.pooler.lookups


def test_what_a_client_of_that_pool_left_on_the_server_is_set_back_first(make_world):
    asking = make_world(auth_user="alice", auth_query="SELECT usename, passwd FROM look($1)")
    alice = asking.starts_login(user="alice", application_name="left")
    postgres = AuthPostgres()
    server = asking.accept(postgres)
    asking.run()
    alice.query("SELECT 1")
    server.postgres.queries.clear()
    carol = asking.starts_login(user="carol")
    asking.run()
    assert carol.hears().endswith(READY)
    assert any("SET application_name=''" in query for query in server.postgres.queries)
