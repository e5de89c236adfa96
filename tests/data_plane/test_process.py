"""The process as an administrator knows it: its files, its user, its log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pooler.process import PoolerProcess, eventually

pytestmark = pytest.mark.timeout(60)
MakePooler = Callable[..., PoolerProcess]


def test_the_pid_file_is_there_as_long_as_the_process(make_pooler: MakePooler, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    pidfile = tmp_path / "pid"
    pooler = make_pooler(pidfile=pidfile)
    eventually(lambda: int(pidfile.read_text()) == pooler.pid)
    pooler.terminate()
    pooler.wait_exit()
    assert not pidfile.exists()


def test_totals_are_logged_every_stats_period_unless_log_stats_is_off(make_pooler: MakePooler) -> None:
    talking = make_pooler(stats_period=1)
    silent = make_pooler(stats_period=1, log_stats=0)
    talking.wait_for_log("stats: 0 xacts/s, 0 queries/s")
    talking.wait_for_log("stats: 0 xacts/s, 0 queries/s")
    assert not silent.log_contains("xacts/s")


def test_the_log_file_has_what_standard_error_has(make_pooler: MakePooler, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    pooler = make_pooler(logfile=tmp_path / "log")
    pooler.connect().close()
    eventually(lambda: "login attempt: db=app user=alice" in (tmp_path / "log").read_text())
