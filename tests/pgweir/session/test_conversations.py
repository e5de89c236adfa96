"""Conversations: the client says, the pooler says, the server says. After each the pooler's books must balance (conftest.py)."""

from __future__ import annotations

import pytest
from tests.pgweir.mini_postgres import MiniPostgres

from pgweir.pool.records import ClientState, ServerState
from pgweir.protocol import messages
from pgweir.protocol.reasons import CloseReason
from pgweir.settings import DatabaseSettings

READY = messages.ready_for_query(b"I")
SELECT = messages.query("SELECT 1")


# --- who gets a server ---------------------------------------------------------------------------------------------------


def test_waiters_are_served_in_the_order_of_their_arrival(make_world):
    world = make_world(default_pool_size=1)
    first, second, third = world.client(), world.client(), world.client()
    first.query("BEGIN")
    third.says(SELECT)
    second.says(SELECT)
    assert [third.state, second.state] == [ClientState.WAITING] * 2
    first.says(messages.query("COMMIT"))
    (server,) = world.alive()
    server.deliver()
    assert (third.state, second.state) == (ClientState.ACTIVE, ClientState.WAITING)
    server.deliver()
    assert second.state is ClientState.ACTIVE
    world.run()
    assert third.hears() == second.hears() == MiniPostgres().feed(SELECT)


def test_every_cut_of_a_pipeline_gives_the_same_conversation(make_world):
    said = messages.parse("s", "SELECT 1") + messages.bind("", "s") + messages.execute() + messages.sync() + SELECT
    expected = MiniPostgres().feed(said)
    for cut in range(1, len(said)):
        world = make_world()
        client = world.client()
        client.says(said[:cut])
        world.run()
        client.says(said[cut:])
        world.run()
        assert client.hears() == expected
        assert client.session.server is None
        world.balance()


def test_every_cut_of_a_reply_gives_the_same_conversation(make_world):
    said = messages.query("SELECT 2; SELECT 1") + messages.query("FAIL")
    expected = MiniPostgres().feed(said)
    for cut in range(1, len(expected)):
        world = make_world()
        client = world.client()
        client.says(said)
        world.alive()[0].deliver(cut)
        world.run()
        assert client.hears() == expected
        assert client.session.server is None


def test_no_server_waits_for_a_client_that_has_not_finished_its_parse(make_world):
    world = make_world(default_pool_size=1)
    slow, other = world.client(), world.client()
    big = messages.parse("s", "SELECT 1" + " " * 300_000) + messages.sync()
    slow.says(big[:100_000])
    assert slow.state is ClientState.IDLE
    assert other.query("SELECT 1").endswith(READY)
    slow.says(big[100_000:])
    world.run()
    assert slow.hears() == MiniPostgres().feed(big)


def test_a_bind_cut_inside_its_names_is_rewritten_all_the_same(make_world):
    said = messages.bind("", "a long name", [b"x" * 5000]) + messages.execute() + messages.sync()
    for cut in range(1, 30):
        world = make_world()
        client = world.client()
        client.says(messages.parse("a long name", "SELECT 1") + messages.sync())
        world.run()
        client.hears()
        client.says(said[:cut])
        client.says(said[cut:])
        world.run()
        assert client.hears()[:5] == b"2\0\0\0\4"


def test_names_in_a_bind_are_not_looked_for_beyond_its_end(make_world):
    world = make_world()
    client = world.client()
    client.says(b"B\0\0\0\x08abcd" + messages.query("x") + messages.sync())
    assert b"broken Bind packet" in client.hears()
    assert client.wire.closed


def test_copy_data_that_comes_too_late_needs_no_server(world):
    client = world.client()
    late = b"d" + (4 + 1000).to_bytes(4, "big") + b"Q" * 1000
    client.says(late[:10])
    client.says(late[10:500])
    client.says(late[500:] + b"c\0\0\0\4" + messages.sync())
    assert client.hears() == READY
    assert client.query("SELECT 1") == MiniPostgres().feed(SELECT)


def test_late_copy_data_while_the_server_is_still_held_does_not_pin_it(world):
    client = world.client()
    client.says(messages.query("COPY t"))
    world.run()
    client.says(b"d\0\0\0\x07bad" + b"d\0\0\0\x50part")  # the row fails while the next one is on its way
    world.run()
    assert client.state is ClientState.ACTIVE
    client.says(bytes(72) + b"c\0\0\0\4")
    assert client.state is ClientState.IDLE
    world.balance()


def test_terminate_in_the_middle_of_a_buffer_ends_the_session(world):
    client = world.client()
    client.says(messages.sync() + messages.terminate() + SELECT)
    assert client.wire.closed
    assert not world.pooler.clients


@pytest.mark.parametrize("noise", [b"\0\0\0\0\0\0", b"Q\0\0\0\1", b"y\0\0\0\4", b"Q\xff\xff\xff\xff"])
def test_noise_from_a_client_ends_it_alone(make_world, noise):
    world = make_world()
    client, other = world.client(), world.client()
    client.says(noise)
    assert client.wire.closed
    assert b"FATAL" in client.hears()
    assert other.query("SELECT 1").endswith(READY)


# --- a client goes --------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_inside_a_transaction_costs_a_rollback(world):
    client = world.client()
    client.query("BEGIN")
    client.leaves()
    world.run()
    assert world.servers[0].postgres.queries[-1] == "ROLLBACK"
    assert len(world.pool.idle) == 1


def test_a_client_that_leaves_with_a_query_under_way_costs_the_server(world):
    client = world.client()
    client.says(SELECT)
    client.leaves()
    assert world.servers[0].closed
    assert world.pooler.closed_counts[CloseReason.CLIENT_LEFT_SERVER_BUSY] == 1


def test_a_client_that_leaves_in_the_middle_of_its_message_costs_the_server(world):
    client = world.client()
    client.says(messages.query("SELECT 1" + " " * 100)[:50])
    client.leaves()
    assert world.servers[0].closed


def test_a_client_that_leaves_the_queue_is_forgotten(make_world):
    world = make_world(default_pool_size=1)
    first, second = world.client(), world.client()
    first.query("BEGIN")
    second.says(SELECT)
    second.leaves()
    first.query("COMMIT")
    assert len(world.pool.idle) == 1


def test_a_client_that_leaves_while_its_variables_are_set_costs_the_server(make_world):
    world = make_world()
    world.client()
    other = world.client(application_name="other")
    other.says(SELECT)
    assert other.session.linking is not None
    other.leaves()
    assert world.servers[0].closed


# --- a server goes --------------------------------------------------------------------------------------------------------


def test_a_client_is_told_when_its_server_crashes(world):
    client = world.client()
    client.says(SELECT)
    world.servers[0].lose()
    assert b"server conn crashed?" in client.hears()
    assert client.wire.closed


def test_no_error_is_put_into_the_middle_of_a_row(world):
    client = world.client()
    client.says(messages.query("SELECT 5"))
    world.servers[0].deliver(50)
    heard = client.hears()
    world.servers[0].lose()
    assert client.hears() == b""
    assert heard == MiniPostgres().feed(messages.query("SELECT 5"))[:50]


def test_postgres_own_goodbye_is_not_followed_by_a_second_one(world):
    client = world.client()
    client.query("BEGIN")
    goodbye = messages.error_response("FATAL", "57P01", "terminating connection")
    world.servers[0].say(goodbye)
    world.servers[0].lose()
    assert client.hears() == goodbye
    assert client.wire.closed


def test_an_idle_server_that_says_goodbye_is_replaced(world):
    client = world.client()
    world.servers[0].say(messages.error_response("FATAL", "57P01", "terminating connection"))
    assert world.servers[0].closed
    assert client.query("SELECT 1").endswith(READY)


def test_a_parameter_status_does_not_dirty_an_idle_server_that_once_served_an_error(world):
    client = world.client()
    client.query("FAIL")
    world.servers[0].say(messages.parameter_status("TimeZone", "Europe/Berlin"))
    assert not world.servers[0].closed


def test_noise_from_a_server_costs_both_their_connections(world):
    client = world.client()
    client.says(SELECT)
    world.servers[0].say(b"\0\0\0\0\0\0\0")
    assert b"protocol violation by the server" in client.hears()
    assert world.servers[0].closed


def test_a_server_lost_while_it_sets_variables_is_replaced_and_its_client_hears_nothing_of_it(make_world):
    world = make_world()
    world.client()
    other = world.client(application_name="other")
    other.says(SELECT)
    world.servers[0].say(messages.error_response("FATAL", "57P01", "terminating connection"))
    world.servers[0].lose()
    assert other.hears() == b""
    assert world.pool.waiting
    world.run()
    assert b"SELECT 1" in other.hears()


# --- flow control ---------------------------------------------------------------------------------------------------------


def test_a_slow_client_stops_its_server_and_the_next_client_gets_it_running(make_world):
    world = make_world(default_pool_size=1)
    client, other = world.client(), world.client()
    server = world.servers[0]
    client.says(messages.query("SELECT 2"))
    server.deliver(30)
    client.session.pause_writing()
    assert not server.reading
    client.session.resume_writing()
    assert server.reading
    client.session.pause_writing()
    replies, server.replies = server.replies, b""
    server.say(replies)  # bytes that had been read before the pause
    assert server.reading
    assert client.state is ClientState.IDLE
    assert other.query("SELECT 1").endswith(READY)
    client.says(SELECT)  # its writing is still paused
    assert not server.reading
    client.session.resume_writing()
    world.run()
    assert client.hears().endswith(READY)


def test_a_slow_server_stops_its_client(world):
    client = world.client()
    client.says(messages.query("COPY t"))
    world.run()
    server = client.session.server
    server.pause_writing()
    assert not client.wire.reading
    server.resume_writing()
    assert client.wire.reading
    client.says(b"c\0\0\0\4")
    world.run()


def test_a_grant_does_not_undo_the_pause_of_a_full_server(make_world):
    world = make_world(default_pool_size=1)
    first, second = world.client(), world.client()
    first.query("BEGIN")
    second.says(messages.query("SELECT 1" + " " * 100_000))
    second.says(messages.query("SELECT 1"))
    assert not second.wire.reading  # more than is kept of a client that waits
    server = world.servers[0]
    write = server.write

    def write_much(data: bytes) -> None:
        write(data)
        if len(data) > 1000:
            server.protocol.pause_writing()

    server.write = write_much
    first.says(messages.query("COMMIT"))
    server.deliver()
    assert second.state is ClientState.ACTIVE
    assert not second.wire.reading
    server.protocol.resume_writing()
    assert second.wire.reading
    world.run()


# --- variables ------------------------------------------------------------------------------------------------------------


def test_a_clients_variables_follow_it_and_are_set_once(make_world):
    world = make_world(default_pool_size=1)
    plain, other = world.client(), world.client(application_name="other", DateStyle="ISO")
    queries = world.servers[0].postgres.queries
    assert other.query("SELECT 1") == MiniPostgres().feed(SELECT)
    assert queries == ["SET DateStyle='ISO';SET application_name='other';", "SELECT 1"]
    other.query("SELECT 1")
    assert len(queries) == 3  # the canonical spelling was taken over
    plain.query("SELECT 1")
    assert queries[-2:] == ["SET application_name='';", "SELECT 1"]


def test_a_variable_that_the_server_refuses_closes_both(make_world):
    world = make_world()
    world.client()
    other = world.client(TimeZone="bad")
    other.says(SELECT)
    world.run()
    assert b"invalid server parameter" in other.hears()
    assert world.servers[0].closed


# --- modes ----------------------------------------------------------------------------------------------------------------


def test_statement_mode_refuses_a_transaction_block(make_world):
    world = make_world(pool_mode="statement")
    client = world.client()
    heard = client.query("BEGIN")
    assert b"transaction blocks not allowed" in heard
    assert world.servers[0].closed
    failing = world.client()
    assert failing.query("FAIL").endswith(READY)


def test_a_failed_copy_in_statement_mode_is_no_transaction_block(make_world):
    world = make_world(pool_mode="statement")
    client = world.client()
    client.says(messages.query("COPY t"))
    world.run()
    client.says(b"f\0\0\0\x06x\0")
    while world.servers[0].deliver(1):
        pass
    assert client.hears().endswith(READY)
    assert not client.wire.closed


def test_session_mode_keeps_the_server_and_resets_it_behind_the_client(make_world):
    world = make_world(pool_mode="session", default_pool_size=1)
    client, other = world.client(), world.client()
    client.query("SELECT 1")
    other.says(SELECT)
    assert other.state is ClientState.WAITING
    client.leaves()
    assert world.pool.tested
    world.run()
    assert other.hears() == MiniPostgres().feed(SELECT)
    assert world.servers[0].postgres.queries == ["SELECT 1", "DISCARD ALL", "SELECT 1"]
    assert not world.pool.tested


def test_a_reset_that_fails_costs_the_server(make_world):
    world = make_world(pool_mode="session", server_reset_query="FAIL")
    client = world.client()
    client.query("SELECT 1")
    client.leaves()
    world.run()
    assert world.servers[0].closed
    assert world.pooler.closed_counts[CloseReason.SERVER_RESET_FAILED] == 1


# --- a server is given back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "age", "reason"),
    [
        ({"server_lifetime": 10.0}, 11, CloseReason.SERVER_LIFETIME),
        ({"server_lifetime": 0.0}, 0, CloseReason.SERVER_LIFETIME),
    ],
)
def test_an_old_server_goes_when_it_is_given_back(make_world, settings, age, reason):
    world = make_world(**settings)
    client = world.starts_login()
    world.run()
    client.hears()
    client.says(messages.query("BEGIN"))
    world.run()
    world.edge.now += age
    client.query("COMMIT")
    assert world.pooler.closed_counts[reason] >= 1
    assert not world.pool.idle


def test_reconnect_replaces_a_held_server_when_it_is_free(world):
    client = world.client()
    client.query("BEGIN")
    world.operations.reconnect()
    assert not world.servers[0].closed
    client.query("COMMIT")
    assert world.servers[0].closed


def test_a_server_idle_for_long_is_checked_before_its_next_use(make_world):
    world = make_world(server_check_query="SELECT 1", server_check_delay=5.0)
    client = world.client()
    world.sleep(6)
    assert [s.state for s in world.pool.servers()] == [ServerState.USED]
    assert client.query("SELECT 2") == MiniPostgres().feed(messages.query("SELECT 2"))
    assert world.servers[0].postgres.queries == ["SELECT 1", "SELECT 2"]
    assert len(world.pool.idle) == 1


def test_a_server_that_does_not_answer_its_check_is_replaced(make_world):
    world = make_world(server_check_query="SELECT 1", server_check_delay=5.0, server_connect_timeout=3.0)
    client = world.client()
    world.sleep(6)
    client.says(SELECT)
    world.sleep(4)
    assert world.servers[0].closed
    world.run()
    assert client.hears().endswith(READY)


# --- pause ----------------------------------------------------------------------------------------------------------------


def test_pause_waits_for_the_transaction_and_keeps_the_order_and_the_wait(make_world):
    world = make_world(default_pool_size=1, query_wait_timeout=10.0)
    holder, first, second = world.client(), world.client(), world.client()
    holder.query("BEGIN")
    first.says(SELECT)
    paused: list[bool] = []
    world.operations.pause()
    world.operations.when_paused(None, paused.append)
    second.says(SELECT)
    assert (world.operations.held_servers(), paused) == (1, [])
    world.sleep(60)
    holder.query("COMMIT")
    assert (world.operations.held_servers(), paused) == (0, [True])
    assert world.servers[0].closed
    world.operations.resume()
    world.sleep(1)
    assert (first.state, second.state) == (ClientState.WAITING, ClientState.WAITING)
    world.accept()
    world.servers[-1].deliver()
    assert (first.state, second.state) == (ClientState.ACTIVE, ClientState.WAITING)
    world.run()
    assert first.hears().endswith(READY)
    assert second.hears().endswith(READY)


def test_a_login_during_a_pause_is_greeted_from_what_is_known(world):
    world.client()
    world.operations.pause()
    late = world.client()
    late.says(SELECT)
    assert late.state is ClientState.WAITING
    world.operations.resume()
    world.run()
    assert late.hears().endswith(READY)


# --- waiting in vain ----------------------------------------------------------------------------------------------------------


def test_query_wait_timeout(make_world):
    world = make_world(default_pool_size=1, query_wait_timeout=5.0)
    first, second = world.client(), world.client()
    first.query("BEGIN")
    second.says(SELECT)
    world.sleep(6)
    assert b"query_wait_timeout" in second.hears()
    assert second.wire.closed


def test_query_wait_timeout_names_the_servers_failure(make_world):
    world = make_world(query_wait_timeout=5.0)
    client = world.client()
    world.servers[0].lose()
    client.says(SELECT)
    world.fails_to_connect("connect failed: Connection refused")
    world.sleep(6)
    heard = client.hears()
    assert b"query_wait_timeout" in heard
    assert b"Connection refused" in heard


def test_a_server_that_is_full_keeps_the_waiters(make_world):
    world = make_world(server_login_retry=1.0)
    client = world.starts_login()
    full = MiniPostgres(greeted=False)
    full.refusal = ("53300", "sorry, too many clients already")
    world.accept(full).deliver()
    assert client.hears() == b""
    world.sleep(2)
    world.run()
    assert client.hears().endswith(READY)


def test_a_server_that_refuses_us_is_quoted_to_everybody_who_waits(make_world):
    world = make_world()
    clients = [world.starts_login(), world.starts_login()]
    strict = MiniPostgres(greeted=False)
    strict.refusal = ("28P01", "password authentication failed")
    world.accept(strict).deliver()
    for client in clients:
        heard = client.hears()
        assert b"C28P01" in heard
        assert b"password authentication failed" in heard
        assert client.wire.closed


def test_a_login_that_waits_for_the_first_server_has_an_end(make_world):
    world = make_world(client_login_timeout=5.0, query_wait_timeout=0.0)
    client = world.starts_login()
    world.sleep(6)
    assert client.wire.closed
    assert client.hears().startswith(b"E")


def test_a_silent_client_has_an_end(make_world):
    world = make_world(client_login_timeout=5.0)
    wire = type(world.client().wire)()
    wire.protocol = world.pooler.accept(wire, world.clients[0].session.origin)
    world.sleep(6)
    assert wire.closed
    assert not world.pooler.logins


# --- limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_client_conn": 1}, b"max_client_conn"),
        ({"max_db_client_connections": 1}, b"max_db_client_connections"),
        ({"max_user_client_connections": 1}, b"max_user_client_connections"),
    ],
)
def test_client_limits_refuse_the_one_too_many(make_world, settings, words):
    world = make_world(**settings)
    first = world.client()
    second = world.starts_login()
    heard = second.hears()
    assert words in heard
    assert b"C53300" in heard
    first.leaves()
    world.client()


def test_the_reserve_opens_for_those_who_have_waited(make_world):
    world = make_world(default_pool_size=1, reserve_pool_size=1, reserve_pool_timeout=2.0)
    first, second = world.client(), world.client()
    first.query("BEGIN")
    second.says(SELECT)
    world.sleep(1)
    assert not world.edge.connecting
    world.sleep(2)
    world.run()
    assert second.hears().endswith(READY)
    assert world.pool.server_count == 2


def test_an_idle_server_of_another_user_makes_room(make_world):
    world = make_world(max_db_connections=1)
    first, second = world.client(), world.starts_login(user="bob")
    world.run()
    assert second.hears().endswith(READY)
    assert world.pooler.closed_counts[CloseReason.EVICTED] == 1
    assert first.query("SELECT 1").endswith(READY)


def test_min_pool_size_never_takes_a_server_from_another_pool(make_world):
    world = make_world(max_db_connections=2, min_pool_size=2)
    world.client()
    world.sleep(1)
    world.run()
    bob = world.client(user="bob")
    world.run()
    before = world.pooler.closed_counts.get(CloseReason.EVICTED, 0)
    for _ in range(10):
        world.sleep(1)
        world.run()
    assert world.pooler.closed_counts.get(CloseReason.EVICTED, 0) == before
    bob.leaves()


# --- cancel ---------------------------------------------------------------------------------------------------------------


def cancel(world, client):
    world.pooler.cancels.request(client.session.cancel_key, lambda: world.served.append(client))


@pytest.fixture
def cancels(make_world):
    world = make_world(default_pool_size=1)
    world.served = []
    return world


def test_a_cancel_for_an_idle_client_is_dropped(cancels):
    client = cancels.client()
    cancel(cancels, client)
    client.query("BEGIN")
    cancel(cancels, client)
    assert cancels.served == [client, client]
    assert not cancels.edge.cancels


def test_a_server_waits_for_its_cancel_before_its_next_client(cancels):
    client, other = cancels.client(), cancels.client()
    client.says(SELECT)
    cancel(cancels, client)
    other.says(SELECT)
    cancels.run()
    assert client.hears().endswith(READY)
    assert [s.state for s in cancels.pool.servers()] == [ServerState.BEING_CANCELED]
    assert other.state is ClientState.WAITING
    ((_, done),) = cancels.edge.cancels
    cancels.edge.cancels.clear()
    done()
    cancels.run()
    assert other.hears().endswith(READY)
    assert cancels.served == [client]
    assert not cancels.pool.being_canceled


def test_a_cancel_asked_for_while_one_is_under_way_follows_it(cancels):
    client = cancels.client()
    client.says(SELECT)
    cancel(cancels, client)
    cancel(cancels, client)
    assert len(cancels.edge.cancels) == 1
    cancels.edge.cancels.pop()[1]()
    assert len(cancels.edge.cancels) == 1
    cancels.edge.cancels.pop()[1]()
    assert cancels.served == [client, client]
    cancels.run()


def test_a_lost_server_answers_its_cancels(cancels):
    client = cancels.client()
    client.says(SELECT)
    cancel(cancels, client)
    cancels.servers[0].lose()
    assert cancels.served == [client]
    cancels.edge.cancels.pop()[1]()


# --- drain, and databases that go -------------------------------------------------------------------------------------------


def test_drain_sends_idle_clients_away_and_the_others_at_the_end_of_their_transaction(make_world):
    world = make_world()
    idle, busy = world.client(), world.client()
    busy.query("BEGIN")
    world.operations.drain()
    assert b"C57P01" in idle.hears()
    assert not busy.wire.closed
    assert busy.query("SELECT 1").endswith(messages.ready_for_query(b"T"))
    told = busy.query("COMMIT")
    assert READY in told
    assert told.index(READY) < told.index(b"C57P01")
    assert b"shutting down" in world.starts_login().hears()


def test_a_removed_database_takes_its_clients_and_servers_with_it(make_world):
    world = make_world({"shop": DatabaseSettings(name="shop", dbname="shop", host="db", port=5432)})
    client = world.client()
    other = type(world)({"else": DatabaseSettings(name="else", dbname="else", host="db", port=5432)})
    world.operations.apply(other.config)
    assert b"database removed" in client.hears()
    assert not world.pooler.pools


# --- clocks ---------------------------------------------------------------------------------------------------------------


def test_a_client_idle_in_a_transaction_is_sent_away_and_its_server_kept(make_world):
    world = make_world(idle_transaction_timeout=5.0)
    client = world.client()
    client.query("BEGIN")
    world.sleep(6)
    assert b"C25P03" in client.hears()
    world.run()
    assert not world.servers[0].closed
    assert world.servers[0].postgres.queries[-1] == "ROLLBACK"


def test_a_query_that_takes_too_long_is_cancelled_and_its_server_closed(make_world):
    world = make_world(query_timeout=5.0)
    client = world.client()
    client.says(SELECT)
    world.sleep(6)
    assert b"query timeout" in client.hears()
    assert len(world.edge.cancels) == 1
    assert world.servers[0].closed


def test_a_queued_client_is_told_once(make_world):
    world = make_world(default_pool_size=1, query_wait_notify=2)
    first, second = world.client(), world.client()
    first.query("BEGIN")
    second.says(SELECT)
    world.sleep(10)
    assert second.hears().count(b"client being queued") == 1


def test_an_idle_client_has_an_end(make_world):
    world = make_world(client_idle_timeout=5.0)
    client = world.client()
    world.sleep(6)
    assert b"client_idle_timeout" in client.hears()


def test_a_database_in_which_a_stranger_was_looked_up_is_soon_forgotten(make_world):
    template = DatabaseSettings(name="*", dbname=None, host="db", port=5432)
    world = make_world(config={"template": template}, auth_type="plain", auth_user="alice", autodb_idle_timeout=0.0)
    for number in range(3):
        world.starts_login(f"guess {number}", user="stranger")
        (server,) = world.edge.connecting
        world.edge.connecting.clear()
        world.pooler.opening.failed(server, "no such database", "3D000", answered=True)
    assert not world.pooler.logins
    world.sleep(11)
    assert not world.pooler.databases
    assert not world.pooler.pools


def test_a_database_that_the_template_made_is_forgotten_when_nobody_uses_it(make_world):
    template = DatabaseSettings(name="*", dbname=None, host="db", port=5432)
    world = make_world(config={"template": template}, autodb_idle_timeout=60.0, server_idle_timeout=30.0)
    client = world.client("guessed")
    world.client("another").leaves()
    assert set(world.pooler.databases) == {"guessed", "another"}
    world.sleep(100)
    assert set(world.pooler.databases) == {"guessed"}
    client.leaves()
    world.sleep(100)
    assert not world.pooler.databases
    assert not world.pooler.pools
