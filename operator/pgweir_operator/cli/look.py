"""`pgweir show, pause, resume, reload, console`: one running pooler, looked at or told something.

Each function here is one command and answers its exit code. How the pooler is reached is `source`'s, what is printed
`screen`'s.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence

from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DEADLINE, DONE, FAILED, UNREACHABLE, UNUSABLE
from pgweir_operator.cli.shown import Refused, Unreachable
from pgweir_operator.cli.source import Source, open_source

LOCK_NOT_AVAILABLE = "55P03"  # a PAUSE that took itself back


@contextlib.contextmanager
def opened(url: str | None, user: str | None, token: str | None) -> Iterator[Source]:
    screen.fresh()
    source = open_source(url, user, token)
    try:
        yield source
    finally:
        source.close()


def run_show(
    words: Sequence[str],
    *,
    url: str | None,
    user: str | None,
    token: str | None,
    as_json: bool,
    every: float | None,
    columns: Sequence[str],
) -> int:
    try:
        with opened(url, user, token) as source:
            if every is None:
                screen.print_shown(screen.picked(source.show(words), columns), as_json=as_json)
                return DONE
            screen.picked(source.show(words), columns)  # what is wrong with the question is said at once
            screen.watch(lambda: screen.picked(source.show(words), columns), every, as_json=as_json)
    except KeyboardInterrupt:
        return DONE
    except (Unreachable, Refused, ValueError) as error:
        return _complain(error)
    return DONE


def run_command(command: str, *, url: str | None, user: str | None) -> int:
    """One command that is done at once."""
    try:
        with opened(url, user, None) as source:
            screen.print_shown(source.run(command), as_json=False)
    except (Unreachable, Refused) as error:
        return _complain(error)
    return DONE


def named(verb: str, database: str | None) -> str:
    """The verb, for all databases or for one."""
    if database is None:
        return verb
    quoted = database.replace('"', '""')
    return f'{verb} "{quoted}"'


def run_pause(database: str | None, seconds: float | None, *, url: str | None, user: str | None) -> int:
    """PAUSE waits for transactions; meanwhile another connection counts what is still held."""
    command = named("PAUSE", database) + (f" TIMEOUT {seconds:g}" if seconds is not None else "")
    try:
        with opened(url, user, None) as source, _counting(url, user, database):
            source.run(command)
    except KeyboardInterrupt:
        screen.complain("the pause was taken back")
        return FAILED
    except Refused as error:
        screen.complain(str(error))
        return DEADLINE if error.sqlstate == LOCK_NOT_AVAILABLE else FAILED
    except Unreachable as error:
        return _complain(error)
    screen.say("paused: clients stay connected and wait, and no server is held; pgweir resume goes on")
    return DONE


@contextlib.contextmanager
def _counting(url: str | None, user: str | None, database: str | None) -> Iterator[None]:
    """A line with the number of servers that are still held, on a terminal."""
    if not screen.err.is_terminal:
        yield
        return
    over = threading.Event()
    with screen.err.status("pausing") as status:

        def count() -> None:
            with contextlib.suppress(Unreachable, Refused), contextlib.closing(open_source(url, user)) as source:
                while not over.wait(0.3):
                    rows = source.show(["pools"]).dictionaries()
                    held = sum(int(row["sv_active"] or 0) for row in rows if database in (None, row["database"]))
                    status.update(f"pausing: {held} servers are still in a transaction (^C takes it back)")

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=2)


def run_console(commands: Sequence[str], *, url: str | None, user: str | None, as_json: bool) -> int:
    """Commands from -c, from standard input, or from a person."""
    try:
        with opened(url, user, None) as source:
            if commands:
                return _run_all(source, commands, as_json=as_json)
            if sys.stdin.isatty():
                return _prompt(source, as_json=as_json)
            return _run_all(source, (line.strip() for line in sys.stdin), as_json=as_json)
    except (Unreachable, Refused) as error:
        return _complain(error)


def _run_all(source: Source, commands: Iterable[str], *, as_json: bool) -> int:
    for command in filter(None, commands):
        screen.print_shown(source.run(command), as_json=as_json)
    return DONE


def _prompt(source: Source, *, as_json: bool) -> int:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (importing it is what gives input() its history)
    screen.say("SHOW HELP lists the commands, ^D ends")
    while True:
        try:
            line = input("pgweir=# ").strip()
        except KeyboardInterrupt:
            screen.say("")
            continue
        except EOFError:
            screen.say("")
            return DONE
        if line in ("\\q", "quit", "exit"):
            return DONE
        if not line.rstrip(";"):
            continue
        try:
            screen.print_shown(source.run(line), as_json=as_json)
        except Refused as error:
            screen.complain(str(error))
        except KeyboardInterrupt:
            screen.complain("given up")


def _complain(error: Exception) -> int:
    screen.complain(str(error))
    if isinstance(error, Unreachable):
        return UNREACHABLE
    return FAILED if isinstance(error, Refused) else UNUSABLE
