"""`pgweir-console`, or `bctl` as pgbalancer's users type it: the console from a shell, where no psql is. Standard library and
our own protocol room, nothing else.

One blocking connection; commands from -c, from standard input or from a prompt. It never reads a configuration file.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from pgweir import VERSION_LINE, doctor_probe
from pgweir.protocol import messages
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ProtocolError, ServerLoginError
from pgweir.protocol.messages import INT4_OID, INT8_OID, B
from pgweir.protocol.reader import MessageReader

FOLDERS: Final = ("/run/pgweir", "/tmp")  # noqa: S108 (PgBouncer's default unix_socket_dir)
DEFAULT_PORT: Final = 6432
LOGIN_TIMEOUT: Final = 15.0  # seconds; a command may take as long as it likes (PAUSE)
NUMBERS: Final = (INT4_OID, INT8_OID, 1700)
MAX_MESSAGE: Final = 64 * 2**20

EPILOG: Final = f"""\
The socket is looked for in the folder of -h or PGHOST, else in {" and ".join(FOLDERS)}; the port is -p or PGPORT, else that
of the only socket there. Over the socket, the Unix user that the pooler runs as needs no password. Elsewhere: -U or PGUSER,
and PGPASSWORD or a prompt. Without any command, commands come from standard input, one a line.

exit status: 0 every command succeeded, 1 one failed (those behind it did not run), 2 wrong command line,
3 no connection or no login."""


class NoConnection(Exception):
    """The console cannot be reached, or does not let us in; the message says what to do."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}: {advice}" if advice else what)
        self.what = what


@dataclass
class Reply:
    """What one command brought."""

    columns: list[tuple[str, int]] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    error: str | None = None


class Console:
    """A connection to a console."""

    def __init__(self, host: str, port: int, user: str, password: str | None) -> None:
        self._reader = MessageReader(MAX_MESSAGE)
        self._stream: Iterator[tuple[int, bytes]] = iter(())
        self.key = b""
        self.address: str | tuple[str, int]
        if host.startswith("/"):
            self._family: int = socket.AF_UNIX
            self.address = f"{host}/.s.PGSQL.{port}"
        else:
            self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.address = (host, port)
        try:
            self._socket = self._connect()
        except OSError as error:
            raise NoConnection(f"cannot connect to {self.address}: {error.strerror or error}") from None
        try:
            self._log_in(user, password)
        except (ProtocolError, ServerLoginError, OSError) as error:
            raise NoConnection(str(error)) from None

    def _connect(self) -> socket.socket:
        found = socket.socket(self._family, socket.SOCK_STREAM)
        found.settimeout(LOGIN_TIMEOUT)
        try:
            found.connect(self.address)
        except OSError:
            found.close()
            raise
        return found

    def _log_in(self, user: str, password: str | None) -> None:
        parameters = {"user": user, "database": "pgbouncer"}
        self._socket.sendall(messages.startup_message(parameters))
        proof = ServerAuthentication(user, password=password, scram_keys=None, random=os.urandom)
        while True:
            kind, body = self._message()
            if kind == B.AUTHENTICATION:
                answer = done_at_once(proof.receive(body))
                if answer:
                    self._socket.sendall(answer)
            elif kind == B.BACKEND_KEY_DATA:
                self.key = messages.parse_backend_key_data(body)
            elif kind == B.ERROR_RESPONSE:
                raise NoConnection(messages.parse_error(body).message)
            elif kind == B.READY_FOR_QUERY:
                self._socket.settimeout(None)
                return

    def run(self, command: str) -> Reply:
        """One command and its whole answer. Raises NoConnection when the connection ends first."""
        self._socket.sendall(messages.query(command))
        return self.reply()

    def reply(self) -> Reply:
        """The answer of the command under way, up to ReadyForQuery."""
        reply = Reply()
        while True:
            kind, body = self._message()
            match kind:
                case B.ROW_DESCRIPTION:
                    reply.columns, reply.rows = messages.parse_row_description(body), []
                case B.DATA_ROW:
                    row = messages.parse_data_row(body)
                    reply.rows.append([None if value is None else value.decode(errors="replace") for value in row])
                case B.COMMAND_COMPLETE:
                    reply.tags.append(messages.parse_command_complete(body))
                case B.NOTICE_RESPONSE:
                    reply.notices.append(_sentence(body))
                case B.ERROR_RESPONSE:
                    reply.error = _sentence(body)
                case B.READY_FOR_QUERY:
                    return reply

    def cancel(self) -> None:
        """Ask for an end of the command that runs; its answer follows as an error."""
        with contextlib.suppress(OSError), self._connect() as other:
            other.sendall(messages.cancel_request(self.key))
            other.recv(1)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(messages.terminate())
        self._socket.close()

    def _message(self) -> tuple[int, bytes]:
        while True:
            found = next(self._stream, None)
            if found is not None:
                return found
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise NoConnection(f"no answer from {self.address}") from None
            except OSError as error:
                raise NoConnection(f"the connection is lost: {error.strerror or error}") from None
            if not data:
                raise NoConnection("the pooler closed the connection")
            self._stream = self._reader.feed(data)


def _sentence(body: bytes) -> str:
    found = messages.parse_error(body)
    lines = [f"{found.severity}:  {found.message}"]
    lines += [f"{word}:  {text}" for word, text in (("DETAIL", found.detail), ("HINT", found.hint)) if text]
    return "\n".join(lines)


# --- where it is -----------------------------------------------------------------------------------------------------------


def find_address(host: str | None, port: int | None) -> tuple[str, int]:
    """Folder (or host) and port, from what was said and what is there. Raises NoConnection."""
    if host is not None and not host.startswith("/"):
        return host, port or DEFAULT_PORT
    folders = [host] if host is not None else list(FOLDERS)
    for folder in folders:
        ports = sorted(int(path.suffix[1:]) for path in Path(folder).glob(".s.PGSQL.*") if path.suffix[1:].isdigit())
        if port in ports or (port is None and len(ports) == 1):
            return folder, port or ports[0]
        if port is None and ports:
            found = ", ".join(map(str, ports))
            raise NoConnection(f"several sockets in {folder} (ports {found})", "say which with -p")
    where = " or ".join(folders)
    what = "no socket" if port is None else f"no socket of port {port}"
    raise NoConnection(f"{what} in {where}", "name the folder (unix_socket_dir) or the host with -h")


# --- printing --------------------------------------------------------------------------------------------------------------


def table(columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[str | None]]) -> str:
    """Aligned columns, numbers to the right."""
    texts = [["" if value is None else value for value in row] for row in rows]
    widths = [
        max(len(name), *(len(row[at]) for row in texts)) if texts else len(name) for at, (name, _) in enumerate(columns)
    ]
    lines = [" | ".join(name.ljust(width) for (name, _), width in zip(columns, widths, strict=True))]
    lines.append("-+-".join("-" * width for width in widths))
    for row in texts:
        cells = zip(row, columns, widths, strict=True)
        lines.append(" | ".join(text.rjust(w) if oid in NUMBERS else text.ljust(w) for text, (_, oid), w in cells))
    return "\n".join(line.rstrip() for line in lines)


def as_json(reply: Reply) -> str:
    if not reply.columns:
        return json.dumps({"result": reply.tags[-1] if reply.tags else None})
    return json.dumps([_json_row(reply.columns, row) for row in reply.rows], indent=1)


def _json_row(columns: Sequence[tuple[str, int]], row: Sequence[str | None]) -> dict[str, Any]:
    pairs = zip(columns, row, strict=True)
    return {name: int(value) if value is not None and oid in NUMBERS else value for (name, oid), value in pairs}


def show(reply: Reply, *, json_output: bool, out: IO[str], err: IO[str]) -> None:
    for notice in reply.notices:
        print(notice, file=err)
    if reply.error is not None:
        print(reply.error, file=err)
    elif json_output:
        print(as_json(reply), file=out)
    elif reply.columns:
        print(table(reply.columns, reply.rows), file=out)
    else:
        print("\n".join(reply.tags), file=out)
    out.flush()


# --- measuring -------------------------------------------------------------------------------------------------------------


def probe(source: IO[str], out: IO[str]) -> int:
    """One line of JSON in, one out; the console is asked beside it, if it can be."""
    try:
        request = json.loads(source.readline())
    except ValueError as error:
        print(f"pgweir-console --probe: a request is one line of JSON ({error})", file=sys.stderr)
        return 2
    try:
        console = Console(
            *find_address(os.environ.get("PGHOST"), _environment_port()), os.environ.get("PGUSER", "pgbouncer"), None
        )
    except NoConnection as error:
        answer = {**doctor_probe.probe(request), "console_error": str(error)}
    else:
        with contextlib.closing(console):
            answer = {**doctor_probe.probe(request, lambda name: _shown(console, name)), "console_error": ""}
    print(json.dumps(answer), file=out, flush=True)
    return 0


def _shown(console: Console, table: str) -> list[dict[str, Any]]:
    try:
        reply = console.run(f"SHOW {table}")
    except NoConnection as error:
        raise doctor_probe.LookFailed(str(error)) from None
    if reply.error is not None:
        raise doctor_probe.LookFailed(reply.error)
    return [_json_row(reply.columns, row) for row in reply.rows]


# --- running ---------------------------------------------------------------------------------------------------------------


def run_all(console: Console, commands: Iterable[str], *, json_output: bool) -> int:
    for command in commands:
        reply = _run(console, command)
        show(reply, json_output=json_output, out=sys.stdout, err=sys.stderr)
        if reply.error is not None:
            return 1
    return 0


def _run(console: Console, command: str) -> Reply:
    """One command; ^C cancels it at the console, and a second one ends us."""
    try:
        return console.run(command)
    except KeyboardInterrupt:
        console.cancel()
        return console.reply()


def prompt(console: Console, *, json_output: bool) -> int:
    """A person types; an error is shown and the next command is asked for."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (importing it is what gives input() its history)
    print(f"{VERSION_LINE}; SHOW HELP lists the commands, ^D ends")
    while True:
        try:
            line = input("pgbouncer=# ").strip()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return 0
        if line in ("\\q", "quit", "exit"):
            return 0
        if line.rstrip(";"):
            show(_run(console, line), json_output=json_output, out=sys.stdout, err=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point; exits with a status."""
    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))


def run(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.probe:
        return probe(sys.stdin, sys.stdout)
    try:
        host, port = find_address(arguments.host or os.environ.get("PGHOST"), arguments.port)
        password = os.environ.get("PGPASSWORD")
        if password is None and not host.startswith("/") and sys.stdin.isatty():
            password = getpass.getpass(f"Password for {arguments.user}: ")
        console = Console(host, port, arguments.user, password)
        with contextlib.closing(console):
            commands = [*(arguments.command or ()), *([" ".join(arguments.words)] if arguments.words else ())]
            if commands:
                return run_all(console, commands, json_output=arguments.json)
            if sys.stdin.isatty():
                return prompt(console, json_output=arguments.json)
            lines = (line.strip() for line in sys.stdin)
            return run_all(console, (line for line in lines if line), json_output=arguments.json)
    except NoConnection as error:
        print(f"pgweir-console: {error}", file=sys.stderr)
        return 3
    except (KeyboardInterrupt, BrokenPipeError):
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgweir-console",
        description="Ask or command a running pooler.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="a command, as in: pgweir-console show pools")
    parser.add_argument("--help", action="help", help="show this and exit")
    parser.add_argument("-h", "--host", metavar="HOST", help="folder of the socket, or a host (PGHOST)")
    parser.add_argument("-p", "--port", type=int, default=_environment_port(), metavar="PORT", help="port (PGPORT)")
    user = os.environ.get("PGUSER", "pgbouncer")
    parser.add_argument("-U", "--user", default=user, metavar="USER", help="user (PGUSER; default pgbouncer)")
    parser.add_argument("-c", "--command", action="append", metavar="COMMAND", help="run this; may be repeated")
    parser.add_argument("-j", "--json", action="store_true", help="print results as JSON")
    parser.add_argument(
        "--probe", action="store_true", help="measure what a JSON request on standard input asks for (the doctor)"
    )
    parser.add_argument("-V", "--version", action="version", version=VERSION_LINE)
    return parser


def _environment_port() -> int | None:
    text = os.environ.get("PGPORT", "")
    return int(text) if text.isdigit() else None


if __name__ == "__main__":
    main()
