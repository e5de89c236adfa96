"""What a process writes to its log, and how often. (Its pid file, signals and ends: test_process_control.)"""

from __future__ import annotations

from collections.abc import Callable

from tests.pooler.process import PoolerProcess, eventually

MakePooler = Callable[..., PoolerProcess]


def test_totals_are_logged_every_stats_period_unless_log_stats_is_off(make_pooler: MakePooler) -> None:
    talking = make_pooler(stats_period=1)
    silent = make_pooler(stats_period=1, log_stats=0)
    eventually(lambda: talking.log().count("stats: 0 xacts/s, 0 queries/s") >= 2)
    assert not silent.log_contains("xacts/s")


def test_the_log_file_has_what_standard_error_has(make_pooler: MakePooler) -> None:
    pooler = make_pooler(logfile="second.log")
    pooler.connect().close()
    eventually(lambda: "login attempt: db=app user=alice" in (pooler.directory / "second.log").read_text())
    assert pooler.log_contains("login attempt: db=app user=alice")
