"""Who the process is: root becomes the user that is named, or does not start; and there is one for a pidfile."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pgweir.executable import _refuse_second_process, _settle_user
from pgweir.lifecycle import StartError


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What a process of root has asked the system to become."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "initgroups", lambda name, gid: asked.append(("groups", gid)))
    monkeypatch.setattr(os, "setgid", lambda gid: asked.append(("gid", gid)))
    monkeypatch.setattr(os, "setuid", lambda uid: asked.append(("uid", uid)))
    return asked


def test_root_becomes_the_user_that_is_named_and_its_groups_come_first(became: list[tuple[str, int]]):
    entry = pwd.getpwnam("nobody")
    _settle_user("nobody")
    assert became == [("groups", entry.pw_gid), ("gid", entry.pw_gid), ("uid", entry.pw_uid)]


def test_root_that_names_nobody_does_not_start(became: list[tuple[str, int]]):
    with pytest.raises(StartError, match="will not run as root"):
        _settle_user(None)
    with pytest.raises(StartError, match="user = 'no-such-user': there is no such Unix user"):
        _settle_user("no-such-user")
    assert became == []


def test_root_stays_root_when_it_says_so(became: list[tuple[str, int]]):
    _settle_user("root")
    assert became == []


def test_anybody_else_stays_who_they_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    _settle_user("nobody")
    _settle_user(None)


def test_a_pidfile_with_our_own_number_is_an_earlier_containers(tmp_path: Path):
    pidfile = tmp_path / "pooler.pid"
    pidfile.write_text(f"{os.getpid()}\n")
    _refuse_second_process(str(pidfile))
    pidfile.write_text(f"{os.getppid()}\n")
    with pytest.raises(StartError, match="is running"):
        _refuse_second_process(str(pidfile))
