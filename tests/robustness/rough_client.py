"""A client that nobody would want: it says anything, in any pieces, and goes at any moment.

What it hears does not matter to it. `onslaught` lets many of them at a pooler, and looks at that alone.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.pooler.wire import (
    LoginRefused,
    WireClient,
    bind,
    cancel_packet,
    close,
    copy_data,
    copy_done,
    copy_fail,
    describe,
    execute,
    flush,
    message,
    parse,
    query,
    startup,
    sync,
    terminate,
)

PATIENCE: Final = 1.5
# Lengths that are none, or that a C int takes for something else.
LENGTHS: Final = (0, 3, 4, 5, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
NAMES: Final = ("", "a", "b", "c", "d", "a name that is longer than most of them are " * 3)
KINDS: Final = "QPBDECSHdcfFpX\0\x01\x7f"

Dice = random.Random
Phrase = Callable[[Dice], bytes]


def pieces(data: bytes, dice: Dice) -> list[bytes]:
    """The data whole, byte by byte, or cut at a few places."""
    match dice.randrange(4):
        case 0:
            return [data]
        case 1 if len(data) < 400:
            return [data[at : at + 1] for at in range(len(data))]
        case _:
            cuts = sorted({0, len(data), *(dice.randrange(len(data) + 1) for _ in range(dice.randint(1, 6)))})
            return [data[start:end] for start, end in itertools.pairwise(cuts)]


def broken(dice: Dice) -> bytes:
    """A header that promises what does not come."""
    return dice.choice(KINDS).encode() + struct.pack("!I", dice.choice(LENGTHS)) + dice.randbytes(dice.randrange(12))


def _prepared(dice: Dice) -> bytes:
    name, sql = dice.choice(NAMES), dice.choice(("SELECT $1::int + 1", "SELECT 7", "SELECT nonsense", "DEALLOCATE ALL"))
    said = parse(name, sql) if dice.random() < 0.7 else b""
    said += describe(name) if dice.random() < 0.3 else b""
    for _ in range(dice.randint(0, 3)):
        said += bind(name, ["1"] if "$" in sql else []) + describe("", "P") + execute(limit=dice.choice((0, 0, 1)))
    said += close(name) if dice.random() < 0.3 else b""
    said += flush() if dice.random() < 0.2 else b""
    return said + sync() * dice.choice((0, 1, 1, 1, 3))


def _copy_in(dice: Dice) -> bytes:
    rows = b"".join(copy_data(b"%d\n" % number * dice.choice((1, 40))) for number in range(dice.randint(0, 5)))
    end = dice.choice(
        (copy_done(), copy_fail("no more"), copy_done() + sync(), sync() + copy_done(), b"", broken(dice))
    )
    if dice.random() < 0.5:
        return query("COPY rough FROM STDIN") + rows + end
    asked = parse("", "COPY rough FROM STDIN") + bind("") + execute()
    return asked + dice.choice((b"", flush(), sync())) + rows + end + sync()


def _large(dice: Dice) -> bytes:
    return query(f"SELECT '{'y' * dice.choice((20_000, 300_000))}'")


def _simple(*texts: str) -> Phrase:
    return lambda dice: query(dice.choice(texts))


PHRASES: Final[Sequence[Phrase]] = (
    _simple("SELECT 1", "SELECT 1; SELECT 2", "", "SELECT 1/0", "BEGIN; SELECT 1; COMMIT"),
    _simple("SELECT repeat('x', 200) FROM generate_series(1, 300)", "SELECT repeat('x', 100000)"),
    _simple("BEGIN", "ROLLBACK", "COMMIT", "SAVEPOINT one"),
    _simple(
        "SET application_name = 'rough'", "SET client_encoding = 'LATIN1'", "RESET ALL", "LISTEN rough", "NOTIFY rough"
    ),
    _simple("DISCARD ALL", "DEALLOCATE ALL", "DISCARD PLANS"),
    _simple("SELECT pg_sleep(0.02)", "SELECT pg_terminate_backend(pg_backend_pid())"),
    _simple("COPY (SELECT generate_series(1, 2000)) TO STDOUT"),
    _prepared,
    _prepared,
    _prepared,
    _copy_in,
    _copy_in,
    _large,
    lambda dice: sync() * dice.randint(1, 5) + flush() * dice.randint(0, 2),
    lambda dice: describe(dice.choice(NAMES), dice.choice("SP")) + execute(dice.choice(NAMES)),
    lambda dice: message("F", dice.randbytes(dice.randrange(30))) + sync(),
    lambda dice: copy_data(b"unasked") + copy_done(),
    broken,
)


class RoughClient(WireClient):
    """One connection; whoever makes it lets it `end`."""

    def __init__(self, port: int, dice: Dice, *, unix: str | None = None) -> None:
        super().__init__(port, timeout=PATIENCE, unix=unix)
        self.dice = dice

    def say(self, *messages: bytes) -> None:
        for piece in pieces(b"".join(messages), self.dice):
            self.socket.sendall(piece)
            if self.dice.random() < 0.2:
                time.sleep(self.dice.random() * 0.002)  # so that the next piece is a read of its own

    def say_whole(self, data: bytes) -> None:
        self.socket.sendall(data)

    def talk(self, *, most: int = 8) -> None:
        self.say(*(self.dice.choice(PHRASES)(self.dice) for _ in range(self.dice.randint(1, most))))

    def listen(self, seconds: float) -> int:
        """Whatever comes in that time, and no longer than it comes."""
        heard = 0
        self.socket.settimeout(seconds)
        try:
            while part := self.socket.recv(65536):
                heard += len(part)
        except (TimeoutError, ssl.SSLWantReadError):
            pass
        finally:
            self.socket.settimeout(PATIENCE)
        return heard

    def reset(self) -> None:
        """Go with a reset: what was not read by either side is lost."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def end(self) -> None:
        match self.dice.randrange(5):
            case 0:
                self.close()
            case 1:
                self.reset()
            case 2:
                self.socket.shutdown(socket.SHUT_WR)
                self.listen(0.05)
                self.close()
            case 3:
                self.say(terminate())
                self.close()
            case _:
                self.say(broken(self.dice))
                self.listen(0.02)
                self.reset()


class Roughs:
    """What such clients do, each a deed of its own; `done` counts what came to something."""

    def __init__(
        self, port: int, secrets: dict[str, str], databases: Sequence[str], certificate: ssl.SSLContext, unix: str
    ) -> None:
        self.port = port
        self.secrets = secrets
        self.databases = databases
        self.certificate = certificate
        self.unix = unix
        self.done: Counter[str] = Counter()

    def deeds(self) -> list[Callable[[Dice], None]]:
        return [
            self.log_in,
            self.log_in,
            self.talk,
            self.talk,
            self.talk,
            self.split_everywhere,
            self.read_nothing,
            self.cancel,
            self.knock,
            self.say_nonsense,
            self.storm,
            self.speak_tls,
        ]

    def _enter(self, dice: Dice, user: str | None = None, *, tls: bool = False) -> RoughClient:
        """A login in pieces. Raises what a login can."""
        client = RoughClient(self.port, dice, unix=self.unix if not tls and dice.random() < 0.2 else None)
        try:
            if tls:
                client.start_tls(self.certificate if dice.random() < 0.5 else None)
            user = user or dice.choice(("trusty", "alice", "bob", "carol"))
            more = {"application_name": f"rough {dice.randrange(100)}"} if dice.random() < 0.3 else {}
            client.log_in(user, dice.choice(self.databases), self.secrets[user], **more)
        except BaseException:
            client.reset()
            raise
        self.done[f"{user} in"] += 1
        return client

    def log_in(self, dice: Dice) -> None:
        """Right and wrong ones; what is said after a login comes with its last message, at times."""
        user = dice.choice((*self.secrets, "nobody", "refused"))
        secret = self.secrets.get(user, "x") if dice.random() < 0.8 else dice.choice(("", "wrong", "\0"))
        database = dice.choice((*self.databases, "pgbouncer", "nowhere", "unknown"))
        client = RoughClient(self.port, dice)
        try:
            client.say(startup(user=user, database=database))
            if dice.random() < 0.3:
                client.say(query("SELECT 1"))
            if dice.random() < 0.15:
                client.listen(0.01)
                return
            client.authenticate(user, secret)
            self.done["logins by hand"] += 1
        except LoginRefused:
            self.done["refused"] += 1
        finally:
            with contextlib.suppress(OSError):
                client.end()
            client.close()

    def talk(self, dice: Dice) -> None:
        client = self._enter(dice)
        try:
            for _ in range(dice.randint(1, 4)):
                client.talk()
                if dice.random() < 0.8:
                    self.done["bytes heard"] += client.listen(dice.choice((0.0005, 0.02, 0.1)))
            client.end()
        finally:
            client.close()

    def split_everywhere(self, dice: Dice) -> None:
        """The same pipelines in two pieces, cut at each place in turn."""
        said = parse("s", "SELECT $1::int") + describe("s") + bind("s", ["1"]) + execute() + sync()
        said += bind("s", ["2"]) + execute() + close("s") + sync() + query("SELECT 3")
        said += parse("", "SELECT 4") + bind("") + describe("", "P") + execute() + sync()
        client = self._enter(dice, "trusty")
        try:
            for cut in range(dice.randrange(4), len(said), 4):
                client.say_whole(said[:cut])
                time.sleep(0.0003)
                client.say_whole(said[cut:])
                for _ in range(4):
                    client.until("Z")
                self.done["cuts"] += 1
        finally:
            client.close()

    def read_nothing(self, dice: Dice) -> None:
        """Much is asked, and not taken; or much is said to a server that is busy."""
        client = self._enter(dice)
        try:
            if dice.random() < 0.5:
                client.say_whole(query("SELECT repeat('z', 1000) FROM generate_series(1, 6000)"))
            else:
                client.say_whole(query("COPY rough FROM STDIN") + copy_data(b"1\n" * 200_000) * 6)
            time.sleep(dice.random() * 0.2)
            if dice.random() < 0.5:
                self.done["bytes heard"] += client.listen(0.05)
            self.done["slow readers"] += 1
            client.end()
        finally:
            client.close()

    def cancel(self, dice: Dice) -> None:
        client = self._enter(dice)
        try:
            client.say_whole(query("SELECT pg_sleep(0.3)"))
            time.sleep(dice.random() * 0.03)
            for _ in range(dice.randint(1, 3)):
                key = client.cancel_key if dice.random() < 0.8 else dice.randbytes(dice.choice((4, 8, 32)))
                asks = RoughClient(self.port, dice)
                try:
                    asks.say(cancel_packet(key))
                    if dice.random() < 0.5:
                        asks.listen(0.05)
                    self.done["cancels"] += 1
                finally:
                    asks.reset() if dice.random() < 0.5 else asks.close()
            if dice.random() < 0.6:
                client.listen(0.4)
            client.end()
        finally:
            client.close()

    def knock(self, dice: Dice) -> None:
        """Many at once, who go before they are asked in, or while."""
        callers: list[RoughClient] = []
        try:
            for _ in range(60):
                callers.append(RoughClient(self.port, dice))
                if dice.random() < 0.5:
                    first = startup(user=dice.choice(("trusty", "alice")), database=dice.choice(self.databases))
                    callers[-1].say_whole(first[: dice.choice((1, 4, 9, len(first)))])
            self.done["knocks"] += len(callers)
        finally:
            for caller in callers:
                caller.reset() if dice.random() < 0.8 else caller.close()

    def say_nonsense(self, dice: Dice) -> None:
        """Before a login, and inside of one."""
        client = RoughClient(self.port, dice)
        try:
            if dice.random() < 0.5:
                code = dice.choice((196608, 196610, 80877102, 80877103, 80877104, 0, 0xFFFFFFFF))
                client.say(struct.pack("!II", dice.choice((8, *LENGTHS)), code) + dice.randbytes(dice.randrange(40)))
            else:
                client.say(startup(user=dice.choice(("alice", "bob", "carol")), database="app"))
                client.listen(0.02)
                client.say(dice.choice((message("p", dice.randbytes(dice.randrange(60))), broken(dice), terminate())))
            client.listen(0.02)
            self.done["nonsense"] += 1
        finally:
            client.reset()

    def storm(self, dice: Dice) -> None:
        """Logins that come together: turns are queued, look-ups shared."""
        callers = [RoughClient(self.port, dice) for _ in range(25)]
        try:
            user = dice.choice(("trusty", "alice", "bob", "carol"))
            for caller in callers:
                caller.say_whole(startup(user=user, database=dice.choice(self.databases)))
            for caller in callers:
                if dice.random() < 0.1:
                    caller.reset()
                    continue
                with contextlib.suppress(OSError, AssertionError):
                    caller.authenticate(user, self.secrets[user])
                    caller.talk(most=2)
                    self.done["stormed in"] += 1
        finally:
            for caller in callers:
                with contextlib.suppress(OSError):
                    caller.end()
                caller.close()

    def speak_tls(self, dice: Dice) -> None:
        client = self._enter(dice, tls=True)
        try:
            self.done["over TLS"] += 1
            client.talk()
            client.listen(0.02)
            if dice.random() < 0.5:
                client.reset()  # without a close_notify
        finally:
            client.close()
