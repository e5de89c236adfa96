"""The pool's book. Time is handed in, nothing is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.pool.ledger import MAX_CONCURRENT_LOGINS, Limit, Open, Pool
from pgweir.pool.policy import PoolPolicy
from pgweir.pool.records import ClientRecord, ClientState, ServerRecord, ServerState

Book = Pool[ServerRecord, ClientRecord]


def book(**policy: object) -> Book:
    return Pool("shop", "alice", PoolPolicy(**policy))  # type: ignore[arg-type]


def idle_server(pool: Book, now: float = 0.0) -> ServerRecord:
    server = ServerRecord(now)
    pool.open(server)
    pool.place(server, ServerState.IDLE)
    return server


def client(pool: Book) -> ClientRecord:
    made = ClientRecord(0.0)
    made.state = ClientState.IDLE
    pool.clients.add(made)
    return made


def decide(pool: Book, now: float = 0.0, database: int = 0, user: int = 0) -> Open | Limit:
    return pool.may_open(now, database_servers=database, user_servers=user)


def test_the_server_used_last_is_used_first_and_round_robin_turns_that_round():
    for round_robin, expected in ((False, 1), (True, 0)):
        pool = book(round_robin=round_robin)
        servers = [idle_server(pool), idle_server(pool)]
        assert pool.check_out(client(pool), 1.0) is servers[expected]


def test_a_server_that_has_to_go_is_given_out_last():
    pool = book()
    good, going = idle_server(pool), ServerRecord(0.0)
    going.close_needed = True
    pool.open(going)
    pool.place(going, ServerState.IDLE)
    assert pool.check_out(client(pool), 1.0) is good


def test_nobody_passes_the_queue():
    pool = book(size=1)
    server = idle_server(pool)
    assert pool.check_out(client(pool), 0.0) is server
    waiters = [client(pool) for _ in range(3)]
    assert [pool.check_out(waiter, float(n)) for n, waiter in enumerate(waiters)] == [None] * 3
    assert [pool.next_waiter(server, 5.0) for _ in range(4)] == [*waiters, None]
    assert pool.stats.wait_time == 5.0 + 4.0 + 3.0


@pytest.mark.parametrize("state", [ServerState.TESTED, ServerState.BEING_CANCELED])
def test_a_server_that_goes_straight_to_a_waiter_leaves_its_shelf(state):
    pool = book()
    server = idle_server(pool)
    pool.place(server, state)
    pool.check_out(client(pool), 0.0)
    assert pool.next_waiter(server, 1.0) is not None
    assert list(pool.servers()) == [server]
    assert pool.active == {server}


def test_a_paused_pool_gives_nothing_out_and_the_time_does_not_count():
    pool = book()
    before, during = client(pool), client(pool)
    pool.check_out(before, 0.0)
    pool.pause(10.0)
    pool.pause(15.0)
    server = idle_server(pool)
    assert pool.next_waiter(server, 20.0) is None
    pool.check_out(during, 20.0)
    assert decide(pool, 20.0) is Limit.PAUSED
    pool.resume(110.0)
    assert (pool.max_wait(110.0), before.waiting_since, during.waiting_since) == (10.0, 100.0, 110.0)


# --- when another server is opened ------------------------------------------------------------------------------------------


def test_one_server_is_opened_for_each_who_waits_and_one_at_a_time_before_the_first():
    pool = book()
    assert decide(pool) is Limit.NOT_NEEDED
    for _ in range(9):
        pool.check_out(client(pool), 0.0)
    assert decide(pool) is Open.WAITER
    pool.open(ServerRecord(0.0))
    assert decide(pool) is Limit.LOGIN_IN_PROGRESS
    pool.login_succeeded({})
    for _ in range(MAX_CONCURRENT_LOGINS - 1):
        assert decide(pool) is Open.WAITER
        pool.open(ServerRecord(0.0))
    assert decide(pool) is Limit.LOGIN_IN_PROGRESS


def test_a_login_that_waits_for_the_first_server_asks_for_one():
    pool = book()
    waiting = client(pool)
    waiting.state, waiting.waiting_since = ClientState.WAITING_LOGIN, 0.0
    pool.waiting_login.append(waiting)
    assert decide(pool) is Open.WAITER
    pool.login_succeeded({})
    assert decide(pool) is Limit.NOT_NEEDED
    pool.forget_client(waiting)
    assert not pool.waiting_login


def test_the_reserve_opens_when_the_first_has_waited():
    pool = book(size=1, reserve_size=1, reserve_timeout=5.0)
    pool.proven = True
    pool.place(idle_server(pool), ServerState.ACTIVE)
    pool.check_out(client(pool), 10.0)
    assert decide(pool, 14.9) is Limit.POOL_SIZE
    assert decide(pool, 15.0) is Open.RESERVE
    pool.place(idle_server(pool), ServerState.ACTIVE)
    assert decide(pool, 60.0) is Limit.POOL_SIZE


def test_a_failed_login_is_not_repeated_at_once():
    pool = book(login_retry=15.0)
    server = ServerRecord(0.0)
    pool.open(server)
    pool.login_failed("no", "28P01", 100.0, for_good=True)
    pool.place(server, ServerState.CLOSED)
    pool.check_out(client(pool), 100.0)
    assert not pool.proven
    assert decide(pool, 114.0) is Limit.LOGIN_RETRY
    assert decide(pool, 115.0) is Open.WAITER


def test_what_may_pass_is_tried_again_soon_and_then_less_and_less_often():
    pool = book(login_retry=2.0)
    now, pauses = 100.0, []
    for _ in range(6):
        pool.login_failed("connection refused", "08006", now)
        pool.login_failed("connection refused", "08006", now)  # one that was under way at the same time
        pauses.append(pool.retry_at - now)
        now = pool.retry_at
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    pool.login_succeeded({})
    pool.login_failed("connection refused", "08006", now)
    assert pool.retry_at == now + 0.25


def test_after_a_failure_one_login_is_tried_at_a_time():
    pool = book(login_retry=2.0)
    pool.login_succeeded({})
    for _ in range(3):
        pool.check_out(client(pool), 100.0)
    pool.login_failed("sorry, too many clients already", "53300", 100.0)
    pool.open(ServerRecord(101.0))
    assert decide(pool, 101.0) is Limit.LOGIN_IN_PROGRESS


def test_a_pool_without_servers_is_taken_for_alive_for_a_while():
    pool = book()
    server = ServerRecord(0.0)
    pool.open(server)
    assert not pool.alive(0.0)
    pool.login_succeeded({})
    pool.place(server, ServerState.IDLE)
    assert pool.alive(1000.0)
    pool.place(server, ServerState.CLOSED, 1000.0)
    assert pool.alive(1029.0)
    assert not pool.alive(1030.0)


def test_a_client_whose_server_was_no_good_is_the_first_again_and_has_waited_all_the_time():
    pool = book()
    first, second = client(pool), client(pool)
    pool.check_out(first, 100.0)
    pool.check_out(second, 101.0)
    server = ServerRecord(100.0)
    pool.open(server)
    assert pool.next_waiter(server, 105.0) is first
    pool.requeue(first)
    assert list(pool.waiting) == [first, second]
    assert pool.max_wait(110.0) == 10.0


def test_min_pool_size_of_a_forced_user_needs_no_client():
    assert decide(book(min_size=1), 0.0) is Limit.NOT_NEEDED
    assert decide(book(min_size=1, min_size_always=True), 0.0) is Open.MIN_SIZE


def test_a_failed_login_beside_working_servers_leaves_the_pool_proven():
    pool = book()
    pool.login_succeeded({})
    idle_server(pool)
    pool.open(ServerRecord(0.0))
    pool.login_failed("no", "53300", 1.0)
    assert pool.proven


def test_limits_of_the_database_and_the_user():
    pool = book(max_db_connections=2, max_user_connections=2)
    pool.check_out(client(pool), 0.0)
    assert decide(pool, database=2) is Limit.MAX_DB_CONNECTIONS
    assert decide(pool, user=2) is Limit.MAX_USER_CONNECTIONS
    assert decide(pool, database=1, user=1) is Open.WAITER


def test_min_pool_size_opens_for_a_client_and_never_at_the_cost_of_others():
    pool = book(min_size=2, size=1, max_db_connections=5)
    assert decide(pool) is Limit.NOT_NEEDED
    client(pool)
    assert decide(pool) is Open.MIN_SIZE
    assert decide(pool, database=5) is Limit.NOT_NEEDED
    idle_server(pool)
    assert decide(pool) is Limit.NOT_NEEDED  # pool_size is the smaller


@given(st.lists(st.sampled_from([*ServerState, "give"]), max_size=30))
def test_whatever_happens_to_a_server_it_stands_on_one_shelf(moves):
    pool = book()
    server = ServerRecord(0.0)
    pool.open(server)
    for move in moves:
        if move == "give":
            if server.state in (ServerState.LOGIN, ServerState.IDLE, ServerState.USED, ServerState.CLOSED):
                continue
            pool.check_out(client(pool), 0.0)
            pool.next_waiter(server, 0.0)
        else:
            pool.place(server, move)
        on_shelves = list(pool.servers())
        assert on_shelves == ([] if server.state is ServerState.CLOSED else [server])
        assert pool.server_count == len(on_shelves)
