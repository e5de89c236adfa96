"""What an operator does to a pooler in service: pause, resume, reload, shut down. No client may suffer."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest
from tests.pooler.process import PoolerProcess, Traffic, eventually
from tests.pooler.wire import WireClient, query
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]


def test_pause_holds_everybody_and_resume_lets_go_without_an_error(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    pooler = make_pooler(application_name_add_host=0)
    with Traffic(pooler, clients=8) as traffic:
        for _ in range(3):
            pooler.console("PAUSE")
            eventually(traffic.is_held)  # answers that were on their way are counted a moment later
            assert pooler.pool()["sv_active"] == pooler.pool()["sv_idle"] == 0
            eventually(lambda: postgres.backends(usename="alice") == [], "no session of alice is left")
            pooler.console("RESUME")
            traffic.wait_for_more(50)
    assert traffic.errors == []


def test_a_hundred_held_clients_are_served_at_the_resume_and_none_hears_an_error(make_pooler: MakePooler) -> None:
    pooler = make_pooler(auth_type="trust", max_client_conn=200, default_pool_size=4)
    with ExitStack() as stack:
        clients = [stack.enter_context(pooler.wire()) for _ in range(100)]
        clients[0].ask("SELECT 1")
        pooler.console("PAUSE")
        for number, client in enumerate(clients):
            client.say(query(f"SELECT {number}"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 100)
        resumed = time.monotonic()
        pooler.console("RESUME")
        heard = [clients[0].until("Z")]
        waited = time.monotonic() - resumed
        print(
            f"the first of 100 held clients had its result {waited * 1000:.0f} ms after RESUME was typed; goal 100 ms"
        )
        heard += [client.until("Z") for client in clients[1:]]
        rows = [[item.values for item in items if item.type in "DE"] for items in heard]
        assert rows == [[[str(number).encode()]] for number in range(100)]
        assert waited < 10


def test_pause_waits_for_the_running_transaction(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as holder:
        holder.ask("BEGIN")
        pausing = threading.Thread(target=pooler.console, args=("PAUSE",))
        pausing.start()
        time.sleep(0.5)
        assert pausing.is_alive()
        assert holder.ask("SELECT 1") == [[b"1"]]
        holder.ask("COMMIT")
        pausing.join(60)
        assert not pausing.is_alive()
        pooler.console("RESUME")


def test_a_client_that_connects_during_a_pause_waits_and_is_served(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    pooler.connect().close()
    pooler.console("PAUSE")
    with pooler.wire() as client:
        client.say(query("SELECT 1"))
        client.expect_silence(0.5)
        pooler.console("RESUME")
        client.expect("TDCZ")


def test_one_database_is_paused_and_the_other_is_not(make_pooler: MakePooler) -> None:
    databases = {name: f"host=127.0.0.1 port={{port}} dbname={name}" for name in ("app", "other")}
    pooler = make_pooler(databases=databases)
    with pooler.wire() as held, pooler.wire(dbname="other") as free:
        held.ask("SELECT 1")
        pooler.console("PAUSE app")
        held.say(query("SELECT 1"))
        held.expect_silence()
        assert free.ask("SELECT 1") == [[b"1"]]
        assert {row["name"]: row["paused"] for row in pooler.console("SHOW DATABASES")}["app"] == 1
        pooler.console("RESUME app")
        held.expect("TDCZ")


def test_pausing_twice_and_resuming_what_is_not_paused_are_errors(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pytest.raises(psycopg.Error):
        pooler.console("RESUME")
    pooler.console("PAUSE")
    with pytest.raises(psycopg.Error, match="already suspended/paused"):
        pooler.console("PAUSE")
    pooler.console("RESUME")


def test_signals_pause_and_resume(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with Traffic(pooler, clients=4) as traffic:
        pooler.signal(signal.SIGUSR1)
        eventually(traffic.is_held)
        pooler.signal(signal.SIGUSR2)
        traffic.wait_for_more()
    assert traffic.errors == []


@pytest.mark.parametrize("how", ["console", "signal"])
def test_reload_under_load_takes_effect_and_disturbs_nobody(make_pooler: MakePooler, how: str) -> None:
    pooler = make_pooler(default_pool_size=2)
    with Traffic(pooler, clients=6) as traffic:
        for size in range(3, 8):
            pooler.settings["default_pool_size"] = size
            pooler.write_files()
            if how == "console":
                pooler.console("RELOAD")
            else:
                pooler.hang_up()
            eventually(lambda n=size: config(pooler)["default_pool_size"] == str(n))  # type: ignore[misc]
            traffic.wait_for_more()
    assert traffic.errors == []


def test_a_bad_value_is_refused_and_the_old_configuration_goes_on(make_pooler: MakePooler) -> None:
    pooler = make_pooler(query_wait_timeout=77)
    with Traffic(pooler, clients=4) as traffic:
        pooler.settings |= {"query_wait_timeout": 99, "default_pool_size": "many"}
        pooler.write_files()
        with pytest.raises(psycopg.Error, match="RELOAD failed"):
            pooler.console("RELOAD")
        pooler.hang_up()
        traffic.wait_for_more()
        assert pooler.is_running
    assert traffic.errors == []


def test_a_reload_is_all_or_nothing(make_pooler: MakePooler) -> None:
    pooler = make_pooler(query_wait_timeout=77)
    pooler.settings = {"query_wait_timeout": 99, "default_pool_size": "many"}
    pooler.write_files()
    with pytest.raises(psycopg.Error):
        pooler.console("RELOAD")
    assert config(pooler)["query_wait_timeout"] == "77"
    assert "default_pool_size" in pooler.log()


def test_a_mistyped_reject_lets_nobody_in(make_pooler: MakePooler) -> None:
    rules = ["host app bob 127.0.0.1/32 reject", "host all all 127.0.0.1/32 md5"]
    pooler = make_pooler(hba=rules)
    pooler.hba = ["host app bob 127.0.0.1/32 rejct", rules[1]]
    pooler.write_files()
    with pytest.raises(psycopg.Error, match="'rejct' is no method; write one of"):
        pooler.console("RELOAD")
    assert "pg_hba.conf:1: 'host app bob 127.0.0.1/32 rejct': 'rejct' is no method" in pooler.log()
    with pytest.raises(psycopg.OperationalError, match="rejects connection"):
        pooler.connect("bob")
    pooler.connect("carol").close()


def test_reload_reads_the_userlist_again(make_pooler: MakePooler) -> None:
    pooler = make_pooler(userlist={"admin": "admin-password", "alice": "alice-password"})
    with pytest.raises(psycopg.OperationalError):
        pooler.connect("bob")
    pooler.userlist["bob"] = "bob-password"
    pooler.write_files()
    pooler.console("RELOAD")
    pooler.connect("bob").close()


def test_a_database_gone_from_the_file_is_gone(make_pooler: MakePooler) -> None:
    databases = {name: f"host=127.0.0.1 port={{port}} dbname={name}" for name in ("app", "other")}
    pooler = make_pooler(databases=databases)
    with pooler.wire(dbname="other") as client, pooler.wire() as stays:
        client.ask("SELECT 1")
        del pooler.databases["other"]
        pooler.write_files()
        pooler.console("RELOAD")
        assert "database removed" in str([item.fields for item in client.until_closed() if item.type == "E"])
        assert stays.ask("SELECT 1") == [[b"1"]]


def test_a_bad_configuration_does_not_start_and_says_why(make_pooler: MakePooler) -> None:
    pooler = PoolerProcess(server_port=1, settings={"pool_mode": "everything"})
    try:
        pooler.port = 1
        pooler.write_files()
        pooler.spawn()
        assert pooler.wait_exit() != 0
        assert pooler.log_contains("pool_mode")
        assert pooler.log_contains("everything")
    finally:
        pooler.remove()


def test_sigterm_lets_clients_finish_and_then_leaves(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.ask("BEGIN")
        pooler.terminate()
        eventually(lambda: not accepts(pooler))
        assert pooler.is_running
        assert client.ask("SELECT 1") == [[b"1"]]
        client.say(query("COMMIT"))
        client.expect("CZ")
    assert pooler.wait_exit() == 0


def test_shutdown_ends_at_once(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.ask("SELECT 1")
        try:
            pooler.console("SHUTDOWN")
        except psycopg.OperationalError:
            pass  # the connection is just closed: PgBouncer says no goodbye
        assert pooler.wait_exit() == 0


def test_sigint_lets_servers_finish(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.ask("BEGIN")
        pooler.signal(signal.SIGINT)
        time.sleep(0.5)
        assert pooler.is_running
        client.say(query("COMMIT"))
        client.expect("CZ")
        assert pooler.wait_exit() == 0


def test_sigquit_ends_at_once(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.ask("BEGIN")
        pooler.signal(signal.SIGQUIT)
        assert pooler.wait_exit() == 0


def test_reconnect_replaces_servers_between_transactions(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        before = client.ask("SELECT pg_backend_pid()")
        pooler.console("RECONNECT")
        assert client.ask("SELECT pg_backend_pid()") != before


def test_a_disabled_database_takes_no_new_clients(make_pooler: MakePooler) -> None:
    pooler = make_pooler(databases={"app": "host=127.0.0.1 port={port}"})
    with pooler.wire() as client:
        pooler.console("DISABLE app")
        with pytest.raises(psycopg.OperationalError, match="disabled"):
            pooler.connect()
        assert client.ask("SELECT 1") == [[b"1"]]
        pooler.console("ENABLE app")
        pooler.connect().close()


def test_kill_drops_clients_and_resume_brings_the_database_back(make_pooler: MakePooler) -> None:
    pooler = make_pooler(databases={"app": "host=127.0.0.1 port={port}"})
    with pooler.wire() as client:
        client.ask("SELECT 1")
        pooler.console("KILL app")
        client.until_closed()
    pooler.console("RESUME app")
    pooler.connect().close()


def test_set_changes_a_setting_until_the_next_reload(make_pooler: MakePooler) -> None:
    pooler = make_pooler(query_wait_timeout=50)
    pooler.console("SET query_wait_timeout = 5")
    assert config(pooler)["query_wait_timeout"] == "5"
    pooler.console("RELOAD")
    assert config(pooler)["query_wait_timeout"] == "50"


def config(pooler: PoolerProcess) -> dict[str, str]:
    return {row["key"]: row["value"] for row in pooler.console("SHOW CONFIG")}


def accepts(pooler: PoolerProcess) -> bool:
    try:
        WireClient(pooler.port, timeout=1).close()
    except OSError:
        return False
    return True
