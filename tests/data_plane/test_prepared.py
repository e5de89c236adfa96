"""Named prepared statements in transaction mode: the client's names hold on whichever server it gets."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator

import asyncpg
import psycopg
import pytest
from tests.pooler.process import SECRETS, PoolerProcess
from tests.pooler.wire import bind, close, describe, execute, flush, parse, query, sync

MakePooler = Callable[..., PoolerProcess]


def test_asyncpg_with_its_statement_cache_over_two_servers(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=2)

    async def run(mark: int) -> list[int]:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=pooler.port, user="alice", password=SECRETS["alice"], database="app"
        )
        try:
            return [await connection.fetchval("SELECT $1::int * 2", mark * 1000 + n) for n in range(50)]
        finally:
            await connection.close()

    async def everybody() -> list[list[int]]:
        return await asyncio.gather(*(run(mark) for mark in range(5)))

    assert asyncio.run(everybody()) == [[2 * (mark * 1000 + n) for n in range(50)] for mark in range(5)]


def test_psycopg_preparing_everything_over_two_servers(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=2)
    wrong: list[object] = []

    def run(mark: int) -> None:
        try:
            with pooler.connect(prepare_threshold=0) as connection:
                for n in range(60):
                    column = n % 7
                    sql = f"SELECT %s::int + {column}, pg_backend_pid()"
                    answer = connection.execute(sql.encode(), [mark]).fetchone()
                    if answer is None or answer[0] != mark + column:
                        wrong.append(answer)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(mark,)) for mark in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_the_same_name_means_each_clients_own_statement(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as one, pooler.wire() as two:
        one.say(parse("s", "SELECT 'one'"), sync())
        one.expect("1Z")
        two.say(parse("s", "SELECT 'two'"), sync())
        two.expect("1Z")
        for client, text in ((one, b"one"), (two, b"two"), (one, b"one")):
            client.say(bind("s"), execute(), sync())
            assert client.expect("2DCZ")[1].values == [text]


def test_a_statement_follows_its_client_to_a_server_that_never_saw_it(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=2)
    with pooler.wire() as client, pooler.wire() as other:
        client.say(parse("s", "SELECT pg_backend_pid()"), sync())
        client.expect("1Z")
        client.say(bind("s"), execute(), sync())
        first = client.expect("2DCZ")[1].values
        other.ask("BEGIN")
        assert other.ask("SELECT pg_backend_pid()") == [first], "the idle server should have been taken"
        client.say(describe("s"), bind("s"), execute(), sync())
        assert client.expect("tT2DCZ")[3].values != first
        other.ask("COMMIT")


def test_the_oldest_statements_leave_the_server_but_not_the_client(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1, max_prepared_statements=3)
    with pooler.wire() as client:
        for n in range(10):
            client.say(parse(f"s{n}", f"SELECT {n}"), sync())
            client.expect("1Z")
        assert int(client.ask("SELECT count(*) FROM pg_prepared_statements")[0][0] or 0) <= 3
        for n in reversed(range(10)):
            client.say(bind(f"s{n}"), execute(), sync())
            assert client.expect("2DCZ")[1].values == [str(n).encode()]
        assert int(client.ask("SELECT count(*) FROM pg_prepared_statements")[0][0] or 0) <= 3


def test_random_pipelines_with_eviction_answer_in_order(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=2, max_prepared_statements=4)
    dice = random.Random(7)
    clients = [pooler.wire() for _ in range(4)]
    prepared: list[set[int]] = [set() for _ in clients]
    for _ in range(60):
        which = dice.randrange(len(clients))
        said, expected, answers = [], "", []
        for _ in range(dice.randint(1, 10)):
            n = dice.randrange(12)
            if n not in prepared[which]:
                said.append(parse(f"s{n}", f"SELECT {n}"))
                expected += "1"
                prepared[which].add(n)
            elif dice.random() < 0.2:
                said.append(close(f"s{n}"))
                expected += "3"
                prepared[which].discard(n)
                continue
            said += [bind(f"s{n}"), execute()]
            expected += "2DC"
            answers.append([str(n).encode()])
        clients[which].say(*said, sync())
        heard = clients[which].expect(expected + "Z")
        assert [item.values for item in heard if item.type == "D"] == answers
    for client in clients:
        client.close()


def test_a_failed_parse_in_a_pipeline_leaves_both_sides_consistent(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        client.say(parse("good", "SELECT 1"), parse("bad", "SELECT broken"), parse("after", "SELECT 3"), sync())
        client.expect("1")
        client.expect_error("42703")
        client.expect("Z")
        client.say(bind("good"), execute(), sync())
        client.expect("2DCZ")
    with pooler.wire() as other:
        for name, sql in (("x", "SELECT 1"), ("y", "SELECT 3")):
            other.say(parse(name, sql), bind(name), execute(), sync())
            other.expect("12DCZ")
        other.say(parse("z", "SELECT broken"), sync())
        other.expect_error("42703")
        other.expect("Z")


def test_an_error_before_the_sync_skips_a_prepared_bind_too(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(parse("s", "SELECT 1 / $1::int"), sync())
        client.expect("1Z")
        client.say(bind("s", ["0"]), execute(), bind("s", ["1"]), execute(), sync())
        heard = client.until("Z")  # PostgreSQL computes it at Bind or at Execute: the first reply may be a BindComplete
        assert [item.type for item in heard if item.type != "2"] == ["E", "Z"]
        assert heard[-2].fields["C"] == "22012"
        client.say(bind("s", ["1"]), execute(), sync())
        client.expect("2DCZ")


@pytest.mark.parametrize("sql", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_discarding_everything_forgets_the_statements_on_both_sides(make_pooler: MakePooler, sql: str) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client, pooler.wire() as other:
        for one in (client, other):
            one.say(parse("s", "SELECT 1"), sync())
            one.expect("1Z")
        client.ask(sql)
        client.say(parse("s", "SELECT 2"), bind("s"), execute(), sync())
        assert client.expect("12DCZ")[2].values == [b"2"]
        other.say(bind("s"), execute(), sync())
        assert other.expect("2DCZ")[1].values == [b"1"], "the other client's statement is parsed again"


def test_close_frees_the_name(make_pooler: MakePooler) -> None:
    with make_pooler().wire() as client:
        client.say(parse("s", "SELECT 1"), close("s"), parse("s", "SELECT 2"), bind("s"), execute(), sync())
        assert client.expect("1312DCZ")[4].values == [b"2"]
        client.say(close("never heard of"), sync())
        client.expect("3Z")


def test_an_unknown_statement_is_an_error(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.say(bind("nothing"), execute(), sync())
        assert client.until("E")[-1].type == "E"
    with pooler.wire() as client:
        assert client.ask("SELECT 1") == [[b"1"]]


def test_a_name_that_is_taken_is_an_error(make_pooler: MakePooler) -> None:
    with make_pooler().wire() as client:
        client.say(parse("s", "SELECT 1"), sync())
        client.expect("1Z")
        client.say(parse("s", "SELECT 2"), sync())
        assert client.until("E")[-1].type == "E"


def test_an_error_names_a_statement_as_its_client_does(make_pooler: MakePooler) -> None:
    with make_pooler().wire() as client:
        client.say(parse("mine", "SELECT 1"), sync())
        client.expect("1Z")
        client.say(bind("mine", ["too", "many"]), execute(), sync())
        too_many = 'bind message supplies 2 parameters, but prepared statement "mine" requires 0'
        assert client.until("Z")[0].fields["M"] == too_many
        client.say(parse("mine", "SELECT 2"), sync())
        assert client.until("Z")[0].fields["M"] == 'prepared statement "mine" already exists'
        client.say(parse("other", "SELECT 3"), bind("other", ["one"]), execute(), sync(), query("SELECT 'PGBOUNCER_1'"))
        heard = client.until("Z") + client.until("Z")
        assert 'statement "other" requires 0' in heard[1].fields["M"]
        assert heard[-3].values == [b"PGBOUNCER_1"]


def test_flush_in_the_middle_of_a_prepared_pipeline(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(parse("s", "SELECT 1"), flush())
        client.expect("1")
        client.say(bind("s"), describe("", "P"), flush())
        client.expect("2T")
        client.say(execute(), sync())
        client.expect("DCZ")
        client.say(parse("t", "SELECT 1"), flush())
        client.expect("1")
        client.say(sync())
        client.expect("Z")


def test_a_big_parse_and_a_big_bind(make_pooler: MakePooler) -> None:
    with make_pooler().connect(prepare_threshold=0) as connection:
        text = "x" * 300_000
        assert connection.execute(f"SELECT length(%s::text || '{text}')", [text]).fetchone() == (600_000,)
        assert connection.execute(f"SELECT length(%s::text || '{text}')", [text]).fetchone() == (600_000,)


def test_the_unnamed_statement_is_left_alone(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(parse("", "SELECT 1"), bind(""), execute(), sync())
        client.expect("12DCZ")
        assert client.ask("SELECT count(*) FROM pg_prepared_statements") == [[b"0"]]


def test_session_mode_hands_statements_through(make_pooler: MakePooler) -> None:
    with make_pooler(pool_mode="session").wire() as client:
        client.say(parse("mine", "SELECT 1"), sync())
        client.expect("1Z")
        client.say(query("SELECT name FROM pg_prepared_statements"))
        assert client.expect("TDCZ")[1].values == [b"mine"]


@pytest.fixture
def changing(make_pooler: MakePooler) -> Iterator[PoolerProcess]:
    """A pooler of one server, and a table that somebody is about to change."""
    pooler = make_pooler(default_pool_size=1)
    with pooler.connect() as owner:
        owner.execute("CREATE TABLE changing AS SELECT 1 AS x")
    yield pooler
    with pooler.connect() as owner:
        owner.execute("DROP TABLE changing")


def test_libpq_never_notices_a_type_change_under_its_prepared_statement(changing: PoolerProcess) -> None:
    with changing.connect() as owner, changing.connect(prepare_threshold=0) as user:
        assert user.execute("SELECT * FROM changing").fetchall() == [(1,)]
        owner.execute("ALTER TABLE changing ADD COLUMN y text DEFAULT 'new'")
        assert user.execute("SELECT * FROM changing").fetchall() == [(1, "new")]
        user.execute("BEGIN")
        user.execute("DO $$ BEGIN ALTER TABLE changing ADD COLUMN z int; END $$")  # (psycopg looks out for ALTER)
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            user.execute("SELECT * FROM changing")  # PostgreSQL has given the transaction up
        user.execute("ROLLBACK")
        assert user.execute("SELECT * FROM changing").fetchall() == [(1, "new")]


def test_asyncpgs_own_cure_for_a_type_change_works_through_the_pooler(changing: PoolerProcess) -> None:
    async def story() -> None:
        secret = SECRETS["alice"]
        user = await asyncpg.connect(
            host="127.0.0.1", port=changing.port, user="alice", password=secret, database="app"
        )
        try:
            assert list((await user.fetch("SELECT * FROM changing"))[0]) == [1]
            with changing.connect() as owner:
                owner.execute("ALTER TABLE changing ADD COLUMN y int DEFAULT 2")
            assert list((await user.fetch("SELECT * FROM changing"))[0]) == [1, 2]
        finally:
            await user.close()

    asyncio.run(story())


def test_statements_that_a_function_threw_away_are_prepared_anew(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(parse("s", "SELECT 1"), sync())
        client.expect("1Z")
        client.ask("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
        assert client.ask("SELECT count(*) FROM pg_prepared_statements") == [[b"0"]]
        client.say(bind("s"), execute(), sync())
        assert client.expect("2DCZ")[1].values == [b"1"]


def test_what_is_prepared_right_behind_deallocate_all_is_there(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(parse("s", "SELECT 1"), sync())
        client.expect("1Z")
        client.say(query("DEALLOCATE ALL"), parse("s", "SELECT 1"), sync(), bind("s"), execute(), sync())
        assert client.expect("CZ1Z2DCZ")[5].values == [b"1"]
