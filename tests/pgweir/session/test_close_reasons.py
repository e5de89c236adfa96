"""Each goodbye has one reason: every member of CloseReason is brought about here, and counted under its own name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.standbys import Newer
from tests.pgweir.session.world import Client, RecorderWire, World

from pgweir.log import JsonFormatter
from pgweir.protocol import messages
from pgweir.protocol.errors import SQLSTATES
from pgweir.protocol.reasons import CloseReason
from pgweir.session.credentials import Credentials
from pgweir.session.pooler import CLOSE_SQLSTATES
from pgweir.session.wire import Origin

SELECT = messages.query("SELECT 1")
NOTICE = messages.notice_response("WARNING", "01000", "there is something that you should know")
VERIFIER = "SCRAM-SHA-256$4096:b2xkc2FsdA==$" + "A" * 43 + "=:" + "B" * 43 + "="

Story = Callable[[], World]
STORIES: dict[CloseReason, Story] = {}


def ends_with(reason: CloseReason) -> Callable[[Story], Story]:
    def keep(story: Story) -> Story:
        assert reason not in STORIES
        STORIES[reason] = story
        return story

    return keep


def in_transaction(**settings: Any) -> tuple[World, Client]:
    world = World(**settings)
    client = world.client()
    client.query("BEGIN")
    return world, client


def idle(**settings: Any) -> tuple[World, Client]:
    """A client between transactions, and its pool's server on the shelf."""
    world = World(**settings)
    client = world.client()
    client.query("SELECT 1")
    return world, client


# --- the client left, or was asked to ---


@ends_with(CloseReason.CLIENT_CLOSE)
def _() -> World:
    world, client = idle()
    client.says(messages.terminate())
    return world


@ends_with(CloseReason.CLIENT_GONE)
def _() -> World:
    world, client = idle()
    client.leaves()
    return world


@ends_with(CloseReason.CLIENT_LOST)
def _() -> World:
    world, client = in_transaction(keep_server_of_lost_client=False)
    client.leaves()
    return world


@ends_with(CloseReason.CLIENT_IDLE_TIMEOUT)
def _() -> World:
    world, _client = idle(client_idle_timeout=5.0)
    world.sleep(6)
    return world


@ends_with(CloseReason.CLIENT_IDLE_LIMIT)
def _() -> World:
    world, _client = idle(client_idle_limit=5.0)
    world.sleep(6)
    return world


@ends_with(CloseReason.CLIENT_LOGIN_TIMEOUT)
def _() -> World:
    world = World(client_login_timeout=5.0)
    world.pooler.accept(RecorderWire(), Origin("10.0.0.1", 40000))
    world.sleep(6)
    return world


@ends_with(CloseReason.CLIENT_REFUSED)
def _() -> World:
    world = World()
    world.starts_login("nosuch")
    return world


@ends_with(CloseReason.CLIENT_PROTOCOL_ERROR)
def _() -> World:
    world, client = idle()
    client.says(messages.message(ord("?")))
    return world


@ends_with(CloseReason.ADMIN_KILLED)
def _() -> World:
    world, client = idle()
    world.operations.kill_client(client.session.id)
    return world


@ends_with(CloseReason.PAUSE_TIMEOUT)
def _() -> World:
    world, _client = in_transaction()
    world.operations.pause()
    world.operations.terminate_holders()
    return world


@ends_with(CloseReason.DATABASE_REMOVED)
def _() -> World:
    world, _client = idle()
    world.operations.apply(replace(world.config, databases={}))
    return world


@ends_with(CloseReason.POOLER_SHUTDOWN)
def _() -> World:
    world, _client = idle()
    world.operations.drain()
    return world


# --- a limit on the wait for a server, or on its use ---


@ends_with(CloseReason.QUERY_WAIT_TIMEOUT)
def _() -> World:
    world, _client = in_transaction(default_pool_size=1, query_wait_timeout=5.0)
    world.client().says(SELECT)
    world.sleep(6)
    return world


@ends_with(CloseReason.QUERY_TIMEOUT)
def _() -> World:
    world, client = idle(query_timeout=5.0)
    client.says(SELECT)
    world.sleep(6)
    return world


@ends_with(CloseReason.IDLE_TRANSACTION_TIMEOUT)
def _() -> World:
    world, _client = in_transaction(idle_transaction_timeout=5.0)
    world.sleep(6)
    return world


@ends_with(CloseReason.TRANSACTION_TIMEOUT)
def _() -> World:
    world, _client = in_transaction(transaction_timeout=5.0)
    world.sleep(6)
    return world


@ends_with(CloseReason.STATEMENT_MODE)
def _() -> World:
    return in_transaction(pool_mode="statement")[0]


@ends_with(CloseReason.PASSWORD_CHANGED)
def _() -> World:
    world, client = idle()
    credentials = world.pooler.credentials
    world.pooler.config = replace(world.config, userlist={})
    credentials.learn(world.pool, VERIFIER, None, VERIFIER)
    credentials._known["shop", "alice"] = Credentials(secret=credentials._known["shop", "alice"].secret, stale=True)
    world.servers[0].lose()
    client.says(SELECT)
    world.sleep(1)
    return world


@ends_with(CloseReason.INVALID_SERVER_PARAMETER)
def _() -> World:
    world, _client = idle(default_pool_size=1)
    other = world.client(application_name="another")
    other.says(SELECT)
    world.servers[0].replies = messages.error_response("ERROR", "22023", "no") + messages.ready_for_query(b"I")
    return world


# --- the server left, could not be had, or is no longer wanted ---


@ends_with(CloseReason.SERVER_GONE)
def _() -> World:
    world, _client = idle()
    world.servers[0].lose()
    return world


def ended_by_postgresql(sqlstate: str, *, in_use: bool) -> World:
    world, _client = in_transaction() if in_use else idle()
    world.servers[0].say(messages.error_response("FATAL", sqlstate, "terminating connection"))
    if in_use:
        world.servers[0].lose()
    return world


@ends_with(CloseReason.SERVER_IDLE_SESSION)
def _() -> World:
    return ended_by_postgresql("57P05", in_use=False)


@ends_with(CloseReason.SERVER_IDLE_IN_TRANSACTION)
def _() -> World:
    return ended_by_postgresql("25P03", in_use=True)


@ends_with(CloseReason.SERVER_IN_TRANSACTION)
def _() -> World:
    return ended_by_postgresql("25P04", in_use=True)


@ends_with(CloseReason.SERVER_TERMINATED)
def _() -> World:
    return ended_by_postgresql("57P01", in_use=False)


@ends_with(CloseReason.SERVER_PROTOCOL_ERROR)
def _() -> World:
    world, client = idle()
    client.says(SELECT)
    world.servers[0].say(b"\x01\0\0\0\x04")
    return world


@ends_with(CloseReason.SERVER_CONNECT_FAILED)
def _() -> World:
    world = World()
    world.starts_login()
    world.fails_to_connect()
    return world


@ends_with(CloseReason.SERVER_STANDBY)
def _() -> World:
    world = World(target_session_attrs="primary")
    world.starts_login()
    world.accept(Newer(standby=True))
    return world


@ends_with(CloseReason.SERVER_CONNECT_TIMEOUT)
def _() -> World:
    world = World()
    world.starts_login()
    world.fails_to_connect("connect timeout")
    return world


@ends_with(CloseReason.SERVER_LOGIN_FAILED)
def _() -> World:
    world = World()
    world.starts_login()
    postgres = MiniPostgres(greeted=False)
    postgres.refusal = ("3D000", 'database "shop" does not exist')
    world.accept(postgres).deliver()
    return world


@ends_with(CloseReason.SERVER_IDLE_TIMEOUT)
def _() -> World:
    world, _client = idle(server_idle_timeout=5.0)
    world.sleep(6)
    return world


@ends_with(CloseReason.SERVER_LIFETIME)
def _() -> World:
    world, _client = idle(server_lifetime=5.0)
    world.sleep(6)
    return world


@ends_with(CloseReason.SERVER_DIRTY)
def _() -> World:
    world, _client = idle()
    world.servers[0].say(NOTICE)
    return world


@ends_with(CloseReason.SERVER_CHECK_FAILED)
def _() -> World:
    world, client = idle(server_check_query="SELECT 1", server_check_delay=1.0, server_connect_timeout=5.0)
    world.sleep(2)
    client.says(SELECT)
    world.sleep(6)
    return world


@ends_with(CloseReason.SERVER_RESET_FAILED)
def _() -> World:
    world, client = idle(pool_mode="session", server_reset_query="DISCARD ALL")
    client.leaves()
    world.servers[0].replies = messages.error_response("ERROR", "25001", "no") + messages.ready_for_query(b"I")
    return world


@ends_with(CloseReason.CLIENT_LEFT_SERVER_BUSY)
def _() -> World:
    world, client = idle()
    client.says(SELECT)
    client.leaves()
    return world


@ends_with(CloseReason.CONFIGURATION_CHANGED)
def _() -> World:
    world, _client = idle(pool_mode="session", server_fast_close=True)
    world.operations.reconnect()
    world.sleep(1)
    return world


@ends_with(CloseReason.CLOSE_NEEDED)
def _() -> World:
    world, _client = idle()
    world.operations.reconnect()
    return world


@ends_with(CloseReason.PAUSED)
def _() -> World:
    world, _client = idle()
    world.operations.pause()
    return world


@ends_with(CloseReason.EVICTED)
def _() -> World:
    world, _client = idle(max_db_connections=1)
    world.starts_login(user="bob")
    return world


@ends_with(CloseReason.POOL_TOO_BIG)
def _() -> World:
    world, client = in_transaction()
    world.client().query("SELECT 1")
    client.query("COMMIT")
    smaller = replace(world.config, settings=replace(world.config.settings, default_pool_size=1))
    world.operations.apply(smaller)
    world.sleep(1)
    return world


@pytest.mark.parametrize("reason", CloseReason, ids=lambda reason: reason.label)
def test_each_reason_is_one_word_in_metric_and_log(reason: CloseReason, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = STORIES[reason]()
    world.run()
    assert world.pooler.closed_counts.get(reason), world.pooler.closed_counts
    lines = [json.loads(JsonFormatter().format(record))["record"] for record in caplog.records]
    (line, *_) = [line for line in lines if line.get("close_reason") == reason.label]
    assert reason.text in line["msg"] or "closing because: " in line["msg"] or "login failed: " in line["msg"]


def test_both_lines_of_an_end_in_use_name_the_other_side_and_the_same_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world, client = in_transaction()
    client_id, server_pid = client.session.id, world.servers[0].postgres.pid
    world.servers[0].say(messages.error_response("FATAL", "25P03", "terminating connection"))
    assert b"C25P03\0" in client.hears()
    world.servers[0].lose()
    assert client.hears() == b"", "PostgreSQL has said it already"
    ends = [json.loads(JsonFormatter().format(r))["record"] for r in caplog.records if "closing because" in r.message]
    assert {line["close_reason"] for line in ends} == {"server_timeout:25P03"}
    assert {line["msg"][:2] for line in ends} == {"C-", "S-"}
    (server,) = [line for line in ends if line["msg"].startswith("S-")]
    assert (server["client_id"], server["server_pid"]) == (client_id, server_pid)
    assert server["msg"].endswith("25P03: terminating connection")


def test_no_two_reasons_share_a_word() -> None:
    labels = [reason.label for reason in CloseReason]
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"[a-z_]+(:[0-9A-Z]{5})?", label) for label in labels)
    texts = [reason.text for reason in CloseReason]
    assert len(set(texts)) == len(texts)


def test_a_text_has_one_code_whoever_says_it() -> None:
    for reason in CloseReason:
        code = SQLSTATES.get(reason.text)
        if code is not None:
            assert CLOSE_SQLSTATES.get(reason, code) == code, reason
