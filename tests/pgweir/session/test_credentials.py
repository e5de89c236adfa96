"""Passwords that PostgreSQL refuses: which refusals heal, how, and at whose expense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.pgweir.mini_postgres import MiniPostgres

from pgweir.config import Config
from pgweir.pool.ledger import Limit
from pgweir.protocol import messages
from pgweir.protocol.auth.auth_query import AuthQueryOutcome, Found, LookupFailed, NoSuchUser
from pgweir.protocol.auth.scram import ScramKeys
from pgweir.session.lookup import Lookups
from pgweir.settings import DatabaseSettings, UserSettings

SELECT = messages.query("SELECT 1")
OLD = "SCRAM-SHA-256$4096:b2xkc2FsdA==$" + "A" * 43 + "=:" + "B" * 43 + "="
NEW = "SCRAM-SHA-256$4096:bmV3c2FsdA==$" + "C" * 43 + "=:" + "D" * 43 + "="
OLD_KEYS, NEW_KEYS = ScramKeys(b"1" * 32, b"2" * 32), ScramKeys(b"3" * 32, b"4" * 32)
MD5 = "md5" + "0" * 32
REFUSAL = ("28P01", 'password authentication failed for user "alice"')


class Store(Lookups):
    """auth_query's place: answers when the test says so."""

    def __init__(self, pooler: Any) -> None:
        super().__init__(pooler)
        self.asked: list[Any] = []

    def ask(self, database: Any, user: str, answer: Any, anew: bool = False) -> None:
        self.asked.append(answer)

    def says(self, outcome: AuthQueryOutcome) -> None:
        self.asked.pop(0)(outcome)


def scene(make_world, clients: int = 2, **settings: Any) -> tuple[Any, list[Any], Store]:
    """Clients that proved themselves with the old verifier, and a pool whose servers are gone."""
    world = make_world(auth_user="auth", server_login_retry=2.0, **settings)
    store = Store(world.pooler)
    world.pooler.lookups = store
    made = [world.client() for _ in range(clients)]
    world.pooler.config = world.config = replace(world.config, userlist={})
    world.pooler.credentials.learn(world.pool, OLD, OLD_KEYS, OLD)
    world.servers[0].lose()
    return world, made, store


def is_refused(world: Any) -> None:
    postgres = MiniPostgres(greeted=False)
    postgres.refusal = REFUSAL
    world.accept(postgres).deliver()


def test_a_new_verifier_costs_one_client_its_connection_and_the_others_a_delay(make_world):
    world, (first, second), store = scene(make_world)
    first.says(SELECT)
    second.says(SELECT)
    is_refused(world)
    assert first.hears() == b""
    store.says(Found("alice", NEW))
    heard = first.hears()
    assert b"C57P01" in heard
    assert b"please connect again" in heard
    assert second.hears() == b""
    # Nobody tries a password that is known to be wrong.
    world.edge.now += 0.5
    world.sleep(0.3)
    assert not world.edge.connecting
    assert world.pooler.opening.wake(world.pool) is Limit.CREDENTIALS
    # It is back, with the new password.
    world.pooler.credentials.learn(world.pool, NEW, NEW_KEYS, NEW)
    world.run()
    assert b"SELECT 1" in second.hears()
    world.balance()


def test_while_nobody_shows_the_new_password_the_waiting_are_asked_one_each_second(make_world):
    world, made, store = scene(make_world, clients=4)
    for client in made:
        client.says(SELECT)
    is_refused(world)
    store.says(Found("alice", NEW))
    gone = [sum(client.wire.closed for client in made)]
    for _ in range(2):
        world.sleep(1.1)
        gone.append(sum(client.wire.closed for client in made))
    assert gone == [1, 2, 3]
    assert not world.edge.connecting


def test_servers_that_are_there_go_on_serving(make_world):
    world = make_world(auth_user="auth", default_pool_size=2, server_login_retry=2.0)
    world.pooler.lookups = store = Store(world.pooler)
    holder, waiter = world.client(), world.client()
    world.pooler.config = world.config = replace(world.config, userlist={})
    world.pooler.credentials.learn(world.pool, OLD, OLD_KEYS, OLD)
    holder.query("BEGIN")
    waiter.says(SELECT)
    is_refused(world)
    store.says(LookupFailed("the database is starting up"))
    holder.query("COMMIT")
    assert b"SELECT 1" in waiter.hears()


def test_a_client_that_showed_a_newer_proof_meanwhile_is_enough(make_world):
    world, (first, _), store = scene(make_world)
    first.says(SELECT)
    world.edge.connecting[0].pool  # noqa: B018 (it is under way, with the old keys)
    postgres = MiniPostgres(greeted=False)
    postgres.refusal = REFUSAL
    wire = world.accept(postgres)
    world.pooler.credentials.learn(world.pool, NEW, NEW_KEYS, NEW)
    wire.deliver()
    assert not store.asked
    world.run()
    assert b"SELECT 1" in first.hears()


def test_a_secret_that_opens_the_server_by_itself_is_used(make_world):
    world, (first, second), store = scene(make_world)
    first.says(SELECT)
    is_refused(world)
    store.says(Found("alice", MD5))
    world.run()
    assert b"SELECT 1" in first.hears()
    assert not second.wire.closed


def test_a_refusal_of_what_the_store_holds_to_be_right_is_told(make_world):
    for outcome in (Found("alice", OLD), NoSuchUser()):
        world, (first, second), store = scene(make_world)
        first.says(SELECT)
        is_refused(world)
        store.says(outcome)
        assert b"C28P01" in first.hears()
        assert not second.wire.closed  # it has asked for nothing
        second.says(SELECT)
        assert not world.edge.connecting  # no second wrong password before server_login_retry
        world.sleep(2.1)
        assert len(world.edge.connecting) == 1


def test_a_look_up_that_fails_is_repeated_with_the_next_refusal(make_world):
    world, (first, _), store = scene(make_world)
    first.says(SELECT)
    is_refused(world)
    store.says(LookupFailed("no server"))
    assert first.hears() == b""
    world.sleep(2.1)
    is_refused(world)
    store.says(Found("alice", NEW))
    assert b"please connect again" in first.hears()


def test_those_who_wait_too_long_are_told_what_the_server_said(make_world):
    world, (first, _), _ = scene(make_world, query_wait_timeout=5.0)
    first.says(SELECT)
    is_refused(world)
    world.sleep(6)
    heard = first.hears()
    assert b"C28P01" in heard
    assert REFUSAL[1].encode() in heard


def test_a_new_auth_file_heals_without_auth_query(make_world):
    world, (first, second), store = scene(make_world)
    world.pooler.config = replace(world.config, userlist={"alice": NEW})
    first.says(SELECT)
    second.says(SELECT)
    is_refused(world)
    assert not store.asked
    assert b"please connect again" in first.hears()
    world.pooler.config = replace(world.config, userlist={"alice": "plain"})
    world.sleep(3)
    world.run()
    assert b"SELECT 1" in second.hears()


def test_a_configured_password_that_is_wrong_is_told_at_once(make_world):
    world = make_world(server_login_retry=2.0)  # alice's password is in auth_file
    client = world.starts_login()
    is_refused(world)
    assert b"C28P01" in client.hears()


def test_a_forced_user_keeps_the_files_credentials_whoever_logs_in(make_world):
    entry = DatabaseSettings(name="shop", dbname="shop", host="db", port=5432, user="bob", password="hidden")
    world = make_world(databases={"shop": entry}, config={"users": {"bob": UserSettings(name="bob")}})
    assert isinstance(world.config, Config)
    world.client(user="alice")
    assert not world.pooler.credentials._known
    (server,) = world.pool.servers()
    assert server.credentials is None


def test_a_password_sent_in_clear_heals_in_the_same_way(make_world):
    world, (first, _), store = scene(make_world)
    world.pooler.credentials.learn(world.pool, "opensesame", None, OLD)
    first.says(SELECT)
    is_refused(world)
    store.says(Found("alice", NEW))
    assert b"please connect again" in first.hears()
    world.pooler.credentials.learn(world.pool, "closesesame", None, NEW)
    assert not world.pooler.credentials.lost(world.pool)
