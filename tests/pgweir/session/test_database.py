"""Several hosts: whose turn it is, and what a failure changes."""

from __future__ import annotations

from typing import Any

import pytest

from pgweir.config import Config
from pgweir.session.database import Database
from pgweir.settings import DatabaseSettings


def entry(hosts: str, **more: Any) -> tuple[Database, Config]:
    settings = DatabaseSettings(name="shop", host=hosts, **more)
    return Database(settings, is_auto=False, now=0.0), Config(databases={"shop": settings})


def turns(database: Database, config: Config, now: float, count: int = 4) -> str:
    return "".join(database.host(config, now) for _ in range(count))


def test_hosts_take_turns():
    assert turns(*entry("a,b,c"), 0.0) == "abca"


def test_disable_stays_with_one_until_it_fails():
    database, config = entry("a,b,c", load_balance_hosts="disable")
    assert turns(database, config, 0.0) == "aaaa"
    assert database.host_failed("a", 0.0, 15.0, config)
    assert database.host_failed("a", 0.0, 15.0, config)  # another login to the same host fails: still one step
    assert turns(database, config, 1.0) == "bbbb"
    assert turns(database, config, 100.0) == "bbbb"


def test_a_host_that_failed_is_passed_over_for_a_while():
    database, config = entry("a,b")
    assert database.host_failed("a", 0.0, 15.0, config)
    assert turns(database, config, 14.0) == "bbbb"
    assert set(turns(database, config, 15.0)) == {"a", "b"}
    assert database.host_failed("a", 20.0, 15.0, config)
    assert not database.host_failed("b", 20.0, 15.0, config)
    assert set(turns(database, config, 21.0)) == {"a", "b"}  # none is better than the other
    database.host_answered("b")
    assert turns(database, config, 21.0) == "bbbb"


@pytest.mark.parametrize("hosts", ["a", "/run/postgresql"])
def test_one_host_is_what_there_is(hosts):
    database, config = entry(hosts)
    assert not database.host_failed(hosts, 0.0, 15.0, config)
    assert turns(database, config, 0.0, 2) == hosts * 2
