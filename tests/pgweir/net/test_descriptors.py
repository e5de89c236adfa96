"""When no file descriptor is left, the log says so, once a minute; and the soft limit is raised to what may be needed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from pgweir.net.descriptors import Descriptors


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_shortage_is_told_once_a_minute_and_counted_at_each_look(
    limits: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    watch = Descriptors()
    watch.look(0.0)
    assert (watch.shortages, caplog.records) == (0, [])
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # the kernel gives out no number from 3 on
    for second in range(180):
        watch.look(float(second))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    watch.look(200.0)
    assert watch.shortages == 180
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "no file descriptor is left (limit 3)" in caplog.text


def test_whatever_else_is_wrong_with_a_descriptor_is_no_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_number: int) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(os, "dup", closed)
    watch = Descriptors()
    watch.look(0.0)
    assert watch.shortages == 0


def test_the_limit_is_raised_to_what_may_be_needed(limits: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    descriptors = Descriptors()
    descriptors.provide(300, 20)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 632  # 300 clients, and 300 that have said nothing yet
    assert "max expected fd use: 332" in caplog.text
    assert (descriptors.limit, descriptors.needed) == (632, 332)
    descriptors.provide(300, 20)
    assert len(caplog.records) == 1, "a RELOAD that asks for as many says nothing"
    descriptors.provide(400, 20)
    assert (descriptors.limit, descriptors.needed) == (832, 432)


def test_a_limit_that_cannot_be_raised_is_said_and_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 96))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    descriptors = Descriptors()
    descriptors.provide(100, 20)
    assert asked == [(96, 96)]
    assert (descriptors.limit, descriptors.needed) == (96, 132)
    assert "the file descriptor limit of 96 is below the 132" in caplog.text
