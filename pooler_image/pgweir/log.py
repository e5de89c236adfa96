"""Where log records go and what they look like: JSON lines on standard output in a pod, PgBouncer's text lines elsewhere.

`setup` is called once at start by `executable`, `reconfigure` after each RELOAD by `lifecycle`. Everything is a record:
uncaught exceptions, warnings, what libraries log. What may not be logged (secrets) is the duty of whoever writes a record.
"""

from __future__ import annotations

import json as json_module
import logging
import os
import re
import select
import sys
import threading
from datetime import UTC, datetime
from functools import cache, lru_cache
from types import TracebackType
from typing import IO, Any, Final

from pgweir.settings import Settings

NOISE: Final = 5  # below DEBUG: verbose = 2 and more

FIELDS: Final = "fields"  # of a record's `extra`: what a JSON line has beside the text, for whoever counts or joins

_CONTROL: Final = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f]")  # but tabs and ends of lines

# Python's level -> (PgBouncer's word, level of the JSON line)
_LEVELS: Final = (
    (logging.CRITICAL, "FATAL", "error"),
    (logging.ERROR, "ERROR", "error"),
    (logging.WARNING, "WARNING", "warning"),
    (logging.INFO, "LOG", "info"),
    (logging.DEBUG, "DEBUG", "debug"),
    (0, "NOISE", "debug"),
)


@lru_cache(maxsize=8)
def _utc(second: int) -> tuple[str, str]:
    """Day and time. PERF: once for all lines of a second; it was a third of what a line costs."""
    moment = datetime.fromtimestamp(second, UTC)
    return f"{moment:%Y-%m-%d}", f"{moment:%H:%M:%S}"


@lru_cache(maxsize=8)
def _local(second: int) -> tuple[str, str]:
    """Day and time, and the zone."""
    moment = datetime.fromtimestamp(second).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}", f"{moment:%Z}"


@cache
def levels(number: int) -> tuple[str, str]:
    """PgBouncer's word for a level of Python's, and the JSON line's."""
    return next((word, outer) for least, word, outer in _LEVELS if number >= least)


def _text(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    """The message, with the traceback of an exception behind it."""
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        text += "\n" + formatter.formatException(record.exc_info)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a name may hold what no stream can write


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in the shape that readers of pooler logs know: the record inside, its source around it."""

    def format(self, record: logging.LogRecord) -> str:
        word, outer = levels(record.levelno)
        second = int(record.created)
        day, time = _utc(second)
        microseconds = int((record.created - second) * 1e6)
        fields: dict[str, object] = getattr(record, FIELDS, {})
        return json_module.dumps(
            {
                "level": outer,
                "ts": f"{day}T{time}.{microseconds:06d}Z",
                "msg": "record",
                "logger": "pgweir",
                "pipe": "stderr",
                "record": {
                    "timestamp": f"{day} {time}.{microseconds // 1000:03d} UTC",
                    "pid": str(record.process),
                    "level": word,
                    "msg": _text(record, self),
                    **fields,
                },
            }
        )


class TextFormatter(logging.Formatter):
    """PgBouncer's line: time, zone, [pid], level, text; further lines of a text begin with a tab."""

    def format(self, record: logging.LogRecord) -> str:
        word, _ = levels(record.levelno)
        moment, zone = _local(int(record.created))
        text = _text(record, self)
        if not text.isprintable():  # names are whatever a stranger sent, and a log is read at a terminal
            text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).replace("\n", "\n\t")
        return f"{moment}.{int(record.msecs):03d} {zone} [{record.process}] {word} {text}"


class _Stream(logging.StreamHandler[Any]):
    """A handler whose own failure (a closed pipe) never prints a traceback that is no record, and that never waits: whoever
    should read the other end may have stopped, and no client's query waits for that. What was lost is counted and said."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._lost = 0
        self._is_cut = False  # the last line has no end
        self._number = -1
        try:
            self._number = stream.fileno()
        except (AttributeError, OSError, ValueError):
            return  # it is no file at all, or was closed before we came
        self._room = select.poll()
        self._room.register(self._number, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        if self._number < 0:
            super().emit(record)
            return
        try:
            if self._lost:
                text = f"{self._lost} records of the log were lost: nobody took them"
                words = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
                if self._write(self.format(logging.makeLogRecord(words))):
                    self._lost = 0
            if self._lost or not self._write(self.format(record)):
                self._lost += 1
        except Exception:
            self.handleError(record)

    def _write(self, line: str) -> bool:
        """False when there is no room now. WHY pieces: of a pipe that has room, this much is always taken at once."""
        data = ("\n" if self._is_cut else "").encode() + f"{line}\n".encode("utf-8", "backslashreplace")
        for start in range(0, len(data), select.PIPE_BUF):
            if not self._room.poll(0):
                self._is_cut = self._is_cut or start > 0
                return False
            os.write(self._number, data[start : start + select.PIPE_BUF])
        self._is_cut = False
        return True

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        """A RELOAD lets go of the file; what could not be written to a full disk cannot be written now either."""
        try:
            super().close()
        except OSError:
            pass


_as_json = False
_verbosity = 0


def setup(
    settings: Settings, *, json: bool, quiet: bool = False, verbosity: int = 0, stream: IO[str] | None = None
) -> None:
    """Send every record of this process where it belongs. `verbosity` counts -v on the command line.

    `stream` replaces standard output (json) or standard error; `quiet` switches the latter off.
    """
    global _as_json, _verbosity
    _as_json, _verbosity = json, verbosity
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    if json or not quiet:
        handler = _Stream(stream or (sys.stdout if json else sys.stderr))
        handler.setFormatter(JsonFormatter() if json else TextFormatter())
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda caught: _log_uncaught(caught.exc_type, caught.exc_value, caught.exc_traceback)
    sys.unraisablehook = _log_unraisable
    reconfigure(settings)


def reconfigure(settings: Settings) -> None:
    """Follow `verbose` and `logfile`; the file is opened anew, so that a rotated one is let go."""
    verbose = max(settings.verbose, _verbosity)
    logging.getLogger("pgweir").setLevel((logging.INFO, logging.DEBUG)[verbose] if verbose < 2 else NOISE)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _File)]:
        root.removeHandler(handler)
        handler.close()
    if settings.logfile:
        try:
            file = _File(settings.logfile, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            logging.getLogger(__name__).error(
                "logfile = %r: name a file that can be written (%s)", settings.logfile, error.strerror
            )
            return
        file.setFormatter(JsonFormatter() if _as_json else TextFormatter())
        root.addHandler(file)


def fatal(text: str) -> None:
    """The last word of a process that cannot go on."""
    logging.getLogger(__name__).critical("%s", text)


def _log_uncaught(
    kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
) -> None:
    if kind is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    assert error is not None
    logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, error, traceback))


def _log_unraisable(caught: Any) -> None:
    error = caught.exc_value
    if error is not None:
        text = caught.err_msg or "exception ignored"
        logging.getLogger(__name__).error("%s", text, exc_info=(type(error), error, error.__traceback__))
