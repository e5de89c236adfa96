"""Log lines: JSON in a pod, PgBouncer's text elsewhere; nothing gets out that is no record."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgweir import log
from pgweir.settings import Settings


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("pgweir")
    kept = root.handlers[:], root.level, own.level, sys.excepthook, sys.unraisablehook
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:], level, own_level, sys.excepthook, sys.unraisablehook = kept
    root.setLevel(level)
    own.setLevel(own_level)
    logging.captureWarnings(False)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_the_known_shape() -> None:
    stream = io.StringIO()
    log.setup(Settings(), json=True, stream=stream)
    logging.getLogger("pgweir.x").info("hello\nthere %s", "you")
    (line,) = records(stream)
    assert {name: line[name] for name in ("level", "msg", "logger", "pipe")} == {
        "level": "info", "msg": "record", "logger": "pgweir", "pipe": "stderr",
    }  # fmt: skip
    assert line["record"].keys() == {"timestamp", "pid", "level", "msg"}
    assert (line["record"]["level"], line["record"]["msg"]) == ("LOG", "hello\nthere you")
    assert isinstance(line["record"]["pid"], str)
    assert line["record"]["timestamp"].endswith(" UTC")


@pytest.mark.parametrize(
    ("level", "inner", "outer"),
    [(50, "FATAL", "error"), (40, "ERROR", "error"), (30, "WARNING", "warning"), (20, "LOG", "info")],
)
def test_levels_are_what_they_say(level: int, inner: str, outer: str) -> None:
    stream = io.StringIO()
    log.setup(Settings(), json=True, stream=stream)
    logging.getLogger("pgweir").log(level, "x")
    (line,) = records(stream)
    assert (line["level"], line["record"]["level"]) == (outer, inner)


def test_verbose_opens_debug_and_noise() -> None:
    stream = io.StringIO()
    log.setup(Settings(), json=True, stream=stream)
    own = logging.getLogger("pgweir.y")
    own.debug("silent")
    log.reconfigure(replace(Settings(), verbose=1))
    own.debug("heard")
    own.log(log.NOISE, "silent")
    log.reconfigure(replace(Settings(), verbose=2))
    own.log(log.NOISE, "heard, too")
    assert [(r["record"]["level"], r["record"]["msg"]) for r in records(stream)] == [
        ("DEBUG", "heard"),
        ("NOISE", "heard, too"),
    ]


def test_a_text_line_is_pgbouncers() -> None:
    stream = io.StringIO()
    log.setup(Settings(), json=False, stream=stream)
    logging.getLogger("pgweir").warning("one\ntwo")
    first, second = stream.getvalue().splitlines()
    assert first.split(" ", 3)[2] == time.strftime("%Z")
    assert "] WARNING one" in first
    assert second == "\ttwo"


def test_the_log_file_is_opened_anew_so_that_it_can_be_rotated(tmp_path: Path) -> None:
    settings = replace(Settings(), logfile=str(tmp_path / "log"))
    log.setup(settings, json=False, quiet=True)
    logging.getLogger("pgweir").info("before")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.reconfigure(settings)
    logging.getLogger("pgweir").info("after")
    assert "before" in (tmp_path / "log.1").read_text()
    assert "after" in (tmp_path / "log").read_text()
    assert "before" not in (tmp_path / "log").read_text()


def test_a_log_file_that_cannot_be_written_is_an_error_and_no_end() -> None:
    stream = io.StringIO()
    log.setup(replace(Settings(), logfile="/nowhere/log"), json=True, stream=stream)
    (line,) = records(stream)
    assert "name a file that can be written" in line["record"]["msg"]


def test_what_a_stranger_calls_itself_moves_no_cursor() -> None:
    stream = io.StringIO()
    log.setup(Settings(), json=False, stream=stream)
    logging.getLogger("pgweir.x").info("C-1: %s", "\x1b[31mé\r\x9b\0\tx\nLOG forged")
    assert stream.getvalue().endswith(" LOG C-1: \\x1b[31mé\\x0d\\x9b\\x00\tx\n\tLOG forged\n")


def test_a_process_without_a_standard_error_logs_nothing_and_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log.setup(Settings(), json=False)
    logging.getLogger("pgweir.x").info("nobody hears this")


@pytest.mark.parametrize("size", [100, 10_000], ids=["short", "longer-than-a-piece"])
def test_a_reader_that_has_stopped_stops_nobody_and_hears_later_how_much_it_missed(size: int) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as reader, open(writing, "w") as stream:
        log.setup(Settings(), json=True, stream=stream)
        own = logging.getLogger("pgweir.x")
        for number in range(2_000):
            own.info("%d %s", number, "x" * size)
        heard = b"".join(iter(lambda: reader.read(1 << 20), None))
        own.info("again")
        *_, lost, last = [json.loads(line)["record"]["msg"] for line in reader.read(1 << 20).splitlines() if line]
    assert last == "again"
    count = int(lost.partition(" records of the log were lost")[0])
    whole = [line for line in heard.splitlines() if line.endswith(b"}")]
    assert len(whole) + count == 2_000


def test_warnings_are_records() -> None:
    stream = io.StringIO()
    log.setup(Settings(), json=True, stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("mind this", stacklevel=1)
    assert "mind this" in records(stream)[0]["record"]["msg"]


CRASH = """
import threading
from pgweir import log
from pgweir.settings import Settings
log.setup(Settings(), json=True)
thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
class Bad:
    def __del__(self): raise KeyError("del")
Bad()
raise RuntimeError("the end")
"""


def test_even_a_crash_is_json() -> None:
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=200)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    texts = [line["record"]["msg"] for line in lines]
    assert ["ZeroDivisionError" in texts[0], "KeyError" in texts[1], "the end" in texts[2]] == [True] * 3
    assert lines[2]["record"]["level"] == "FATAL"
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_full_disk_does_not_stop_a_reload() -> None:
    log.setup(Settings(logfile="/dev/full"), json=False, quiet=True)
    logging.getLogger("pgweir.test").warning("nobody will read this")
    log.reconfigure(Settings(logfile=""))
    assert not [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
