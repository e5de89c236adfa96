"""What is overdue, an hour in a microsecond."""

from __future__ import annotations

from pgweir.pool import janitor
from pgweir.pool.ledger import Pool
from pgweir.pool.policy import PoolPolicy
from pgweir.pool.records import ClientRecord, ClientState, ServerRecord, ServerState
from pgweir.protocol.reasons import CloseReason

Book = Pool[ServerRecord, ClientRecord]


def book(**policy: object) -> Book:
    return Pool("shop", "alice", PoolPolicy(**policy))  # type: ignore[arg-type]


def server(pool: Book, state: ServerState, now: float = 0.0) -> ServerRecord:
    made = ServerRecord(now)
    pool.open(made)
    pool.place(made, state)
    return made


def waiter(pool: Book, since: float) -> ClientRecord:
    made = ClientRecord(since)
    pool.check_out(made, since)
    return made


def reasons(pool: Book, now: float) -> list[CloseReason]:
    return [reason for _, reason in janitor.overdue_servers(pool, now)]


def test_idle_servers_go_but_min_pool_size_stays():
    pool = book(idle_timeout=600.0, min_size=1)
    for _ in range(3):
        server(pool, ServerState.IDLE)
    assert reasons(pool, 600.0) == []
    assert reasons(pool, 601.0) == [CloseReason.SERVER_IDLE_TIMEOUT] * 2


def test_old_servers_go_one_by_one():
    pool = book(lifetime=3600.0, idle_timeout=0.0, size=20)
    for _ in range(3):
        server(pool, ServerState.IDLE)
    assert reasons(pool, 3599.0) == []
    assert reasons(pool, 3600.0) == [CloseReason.SERVER_LIFETIME]


def test_between_two_that_are_too_old_passes_their_share_of_the_lifetime():
    pool = book(lifetime=3600.0, idle_timeout=0.0, size=20)
    made = [server(pool, ServerState.IDLE) for _ in range(3)]
    assert pool.is_outlived(made[0], 3600.0)
    pool.aged_out_at = 3600.0
    assert not pool.is_outlived(made[0], 3779.0)
    assert reasons(pool, 3779.0) == []
    assert pool.is_outlived(made[0], 3780.0)
    single_use = book(lifetime=0.0)
    assert single_use.is_outlived(server(single_use, ServerState.IDLE), 0.0)


def test_a_client_s_variables_without_answer_have_an_end_too():
    pool = book(connect_timeout=15.0)
    held = server(pool, ServerState.ACTIVE)
    held.query_started = 100.0
    assert janitor.stuck_servers(pool, 116.0) == []
    held.own_query = True
    assert janitor.stuck_servers(pool, 116.0) == [held]


def test_servers_of_which_nothing_was_heard_since():
    pool = book()
    old, new = server(pool, ServerState.IDLE, 50.0), server(pool, ServerState.USED, 150.0)
    assert janitor.silent_servers(pool, 100.0) == [old]
    assert janitor.silent_servers(pool, 150.0) == [old, new]


def test_fast_close_waits_for_the_end_of_the_transaction():
    pool = book(fast_close=True)
    held = server(pool, ServerState.ACTIVE)
    assert janitor.outdated_holders(pool) == []
    held.close_needed = True
    assert janitor.outdated_holders(pool) == [held]
    for busy in ("query_open", "in_transaction", "own_query"):
        setattr(held, busy, True)
        assert janitor.outdated_holders(pool) == []
        setattr(held, busy, False)
    pool.policy = PoolPolicy()
    assert janitor.outdated_holders(pool) == []


def test_a_pool_that_shrank_and_servers_that_have_to_go():
    pool = book(size=1)
    for _ in range(3):
        server(pool, ServerState.IDLE)
    pool.idle[0].close_needed = True
    assert reasons(pool, 0.0) == [CloseReason.CLOSE_NEEDED, CloseReason.POOL_TOO_BIG, CloseReason.POOL_TOO_BIG]


def test_servers_are_checked_after_the_delay_when_there_is_a_check():
    for query, expected in (("", 0), (";", 1)):
        pool = book(check_query=query, check_delay=30.0)
        server(pool, ServerState.IDLE)
        assert len(janitor.stale_servers(pool, 29.0)) == 0
        assert len(janitor.stale_servers(pool, 30.0)) == expected


def test_a_check_without_answer_has_an_end():
    pool = book(connect_timeout=15.0)
    tested = server(pool, ServerState.TESTED)
    tested.query_started = 100.0
    assert janitor.stuck_servers(pool, 115.0) == []
    assert janitor.stuck_servers(pool, 116.0) == [tested]


def test_holders_are_overdue_for_one_reason_each():
    pool = book(query_timeout=5.0, idle_transaction_timeout=10.0, transaction_timeout=60.0)
    held = server(pool, ServerState.ACTIVE)
    held.query_open, held.query_started, held.transaction_started = True, 100.0, 100.0
    assert list(janitor.overdue_holders(pool, 105.0)) == []
    assert list(janitor.overdue_holders(pool, 106.0)) == [(held, CloseReason.QUERY_TIMEOUT)]
    held.query_open, held.in_transaction, held.settled_at = False, True, 106.0
    assert list(janitor.overdue_holders(pool, 116.0)) == []
    assert list(janitor.overdue_holders(pool, 117.0)) == [(held, CloseReason.IDLE_TRANSACTION_TIMEOUT)]
    held.settled_at = 160.0
    assert list(janitor.overdue_holders(pool, 161.0)) == [(held, CloseReason.TRANSACTION_TIMEOUT)]


def test_waiters_are_overdue_in_their_order_and_never_in_a_pause():
    pool = book(query_wait_timeout=120.0, query_wait_notify=5.0)
    first, second = waiter(pool, 0.0), waiter(pool, 10.0)
    assert list(janitor.waiters_to_notify(pool, 6.0)) == [first]
    first.notified = True
    assert list(janitor.waiters_to_notify(pool, 60.0)) == [second]
    assert [client for client, _ in janitor.overdue_waiters(pool, 121.0)] == [first]
    assert [client for client, _ in janitor.overdue_waiters(pool, 131.0)] == [first, second]
    pool.pause(121.0)
    assert list(janitor.overdue_waiters(pool, 1000.0)) == []


def test_query_timeout_counts_the_wait():
    pool = book(query_timeout=3.0)
    first = waiter(pool, 0.0)
    assert list(janitor.overdue_waiters(pool, 4.0)) == [(first, CloseReason.QUERY_TIMEOUT)]


def test_idle_clients():
    pool = book()
    client = ClientRecord(0.0)
    client.state = ClientState.IDLE
    pool.clients.add(client)
    assert janitor.idle_clients(pool, 60.0, limit=60.0) == []
    assert janitor.idle_clients(pool, 61.0, limit=60.0) == [client]
    assert janitor.idle_clients(pool, 61.0, limit=0.0) == []
    client.state = ClientState.ACTIVE
    assert janitor.idle_clients(pool, 61.0, limit=60.0) == []


def test_a_crowd_is_looked_at_when_the_first_of_it_can_be_due_and_not_before():
    class Crowd(set):
        looks = 0

        def __iter__(self):
            self.looks += 1
            return super().__iter__()

    pool = book()
    pool.clients = crowd = Crowd(ClientRecord(float(start)) for start in range(100))
    for client in crowd:
        client.state = ClientState.IDLE
    crowd.looks = 0
    due = [client for tick in range(600) for client in janitor.idle_clients(pool, 100 + tick / 3, limit=1000.0)]
    assert (due, crowd.looks) == ([], 1)
    (first,) = janitor.idle_clients(pool, 1000.5, limit=1000.0)
    crowd.discard(first)
    assert {c.requested_at for c in janitor.idle_clients(pool, 1002.5, limit=1000.0)} == {1.0, 2.0}
    assert len(janitor.idle_clients(pool, 1002.6, limit=50.0)) == 99  # another limit has a date of its own


def test_holders_that_have_fallen_silent():
    pool = book(client_idle_limit=60.0)
    server = ServerRecord(0.0)
    pool.open(server)
    pool.place(server, ServerState.ACTIVE)
    assert janitor.idle_holders(pool, 60.0) == []
    assert janitor.idle_holders(pool, 61.0) == [server]
    server.query_open = True
    assert janitor.idle_holders(pool, 61.0) == []
    server.query_open, server.settled_at = False, 30.0
    assert janitor.idle_holders(pool, 61.0) == []
    assert janitor.idle_holders(book(), 61.0) == []
