"""A client that checks every answer, remembers what it committed, and can die at any byte."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field

from tests.pooler.wire import (
    Message,
    bind,
    cancel_request,
    copy_data,
    copy_done,
    describe,
    execute,
    parse,
    query,
    startup,
    sync,
    terminate,
)


class Died(Exception):
    """The client was told to die, and did."""


class Gone(Exception):
    """The connection ended; with the FATAL error that was the last word, if there was one."""


class Wrong(AssertionError):
    """An answer that this client should never have had."""


@dataclass
class Ledger:
    """What must be in the table at the end. Keys are unique for each piece of work."""

    committed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)  # the connection ended between COMMIT and its answer
    absent: set[str] = field(default_factory=set)
    scenes: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


PARTS = 2  # rows for each piece of work: all or none


class SoakClient:
    """One connection after another, scene after scene, until `stop`."""

    def __init__(self, number: int, port: int, ledger: Ledger, dice: random.Random, *, deaths: float) -> None:
        self.number = number
        self.port = port
        self.ledger = ledger
        self.dice = dice
        self.deaths = deaths  # the share of connections that end by the client's death
        self.stopping = False
        self._work = 0
        self._life: int | None = None  # bytes that may still be written before it dies
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._key = (0, 0)
        self._prepared: dict[str, str] = {}
        self._application_name = ""
        self._fatal = ""
        self._told_to_cancel = False

    # --- a connection --------------------------------------------------------------------------------------------

    async def live(self) -> None:
        while not self.stopping:
            try:
                await self._connection()
            except Died:
                self.ledger.endings["client died"] += 1
            except (Gone, ConnectionError, asyncio.IncompleteReadError) as error:
                self.ledger.endings[f"server or pooler went: {self._fatal or type(error).__name__}"] += 1
            except Wrong as error:
                self.ledger.wrong.append(f"client {self.number}: {error}")
            finally:
                self._hang_up()
            await asyncio.sleep(self.dice.random() * 0.05)

    async def _connection(self) -> None:
        self._fatal = ""
        self._prepared = {}
        self._life = self.dice.randint(0, 4000) if self.dice.random() < self.deaths else None
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        self._application_name = f"soak {self.number}"
        await self.say(startup(user="alice", database="app", application_name=self._application_name))
        await self._login()
        for _ in range(self.dice.randint(1, 40)):
            if self.stopping:
                break
            scene = self.dice.choice(SCENES)
            await asyncio.wait_for(getattr(self, scene)(), 60)
            self.ledger.scenes[scene] += 1
            if self.dice.random() < 0.1:
                await asyncio.sleep(self.dice.random() * 0.1)
        if self.dice.random() < 0.5:
            await self.say(terminate())

    def _hang_up(self) -> None:
        writer = getattr(self, "_writer", None)
        if writer is None:
            return
        if self.dice.random() < 0.5:  # RST rather than FIN
            sock = writer.get_extra_info("socket")
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
            writer.transport.abort()
        writer.close()

    async def say(self, data: bytes) -> None:
        """All of it, or as much as there is life left for."""
        if self._life is not None:
            if self._life < len(data):
                self._writer.write(data[: self._life])
                await asyncio.sleep(0)
                raise Died
            self._life -= len(data)
        self._writer.write(data)
        await self._writer.drain()

    async def hear(self) -> Message:
        if self._life is not None and self.dice.random() < 0.01:
            raise Died
        head = await self._reader.readexactly(5)
        body = await self._reader.readexactly(int.from_bytes(head[1:], "big") - 4)
        heard = Message(chr(head[0]), body)
        if heard.type == "E" and heard.fields.get("V") in ("FATAL", "PANIC"):
            self._fatal = f"{heard.fields['C']} {heard.fields['M']}"
        return heard

    async def _login(self) -> None:
        while True:
            heard = await self.hear()
            if heard.type == "K":
                self._key = struct.unpack("!ii", heard.body)
            if heard.type == "E":
                raise Gone
            if heard.type == "Z":
                return

    async def answers(self, *, fail: str | None = None) -> list[Message]:
        """Up to ReadyForQuery. An error is wrong, unless it is the end of the connection or the SQLSTATE that was asked for."""
        heard: list[Message] = []
        while True:
            message = await self.hear()
            if message.type == "E":
                fields = message.fields
                if fields.get("V") in ("FATAL", "PANIC"):
                    raise Gone
                if fields["C"] != fail:
                    raise Wrong(f"unexpected error {fields}")
            if message.type in "SNA":
                continue
            heard.append(message)
            if message.type == "Z":
                return heard

    def _rows(self, heard: list[Message]) -> list[str]:
        return [(item.values[0] or b"").decode() for item in heard if item.type == "D"]

    def token(self) -> str:
        self._work += 1
        return f"{self.number}-{self._work}-{self.dice.randrange(1 << 30)}"

    def _same(self, found: object, expected: object, what: str) -> None:
        if found != expected:
            raise Wrong(f"{what}: {str(found)[:200]} instead of {str(expected)[:200]}")

    # --- scenes: whatever clients do -----------------------------------------------------------------------------

    async def simple(self) -> None:
        token = self.token()
        await self.say(query(f"SELECT '{token}'"))
        heard = await self.answers()
        self._same("".join(item.type for item in heard), "TDCZ", "simple")
        self._same(self._rows(heard), [token], "simple")

    async def pipeline(self) -> None:
        """Several at once, with an error in the middle of some."""
        tokens = [self.token() for _ in range(self.dice.randint(2, 8))]
        bad = self.dice.randrange(len(tokens)) if self.dice.random() < 0.3 else None
        data = b""
        for at, token in enumerate(tokens):
            sql = "SELECT 1/0" if at == bad else "SELECT $1::text"
            data += parse("", sql) + bind("", [] if at == bad else [token]) + describe("", "P") + execute()
        await self.say(data + sync())
        heard = await self.answers(fail="22012" if bad is not None else None)
        self._same(self._rows(heard), tokens[:bad], "pipeline")

    async def prepared(self) -> None:
        name = f"s{self.dice.randrange(6)}"
        token = self.token()
        sql = f"SELECT $1::text || '{name}' || {self.dice.randrange(4)} * 0"
        data = b""
        if name not in self._prepared:
            data = parse(name, sql)
        await self.say(data + bind(name, [token]) + describe("", "P") + execute() + sync())
        heard = await self.answers()
        self._prepared[name] = sql
        self._same(self._rows(heard), [f"{token}{name}0"], "prepared")

    async def discard(self) -> None:
        if self.dice.random() < 0.2:
            await self.say(query("DEALLOCATE ALL"))
            await self.answers()
            self._prepared = {}

    async def transaction(self) -> None:
        token = self.token()
        self.ledger.absent.add(token)  # until COMMIT is sent
        rows = [f"INSERT INTO ledger VALUES ('{token}', {part}, {self.number})" for part in range(PARTS)]
        if self.dice.random() < 0.5:
            await self.say(query("BEGIN"))
            await self.answers()
            for row in rows:
                await self.say(query(row))
                await self.answers()
            last, commit = "COMMIT", query("COMMIT")
        else:
            last, commit = "COMMIT", query(";".join(["BEGIN", *rows, "COMMIT"]))
        if self.dice.random() < 0.1 and len(commit) < 20:
            await self.say(query("ROLLBACK"))
            await self.answers()
            return
        await self.say(commit)
        self.ledger.absent.discard(token)
        self.ledger.unknown.add(token)
        heard = await self.answers()
        tags = [item.body.rstrip(b"\0").decode() for item in heard if item.type == "C"]
        self._same(tags[-1:], [last], "transaction")
        self.ledger.unknown.discard(token)
        self.ledger.committed.add(token)

    async def copy(self) -> None:
        token = self.token()
        self.ledger.absent.add(token)
        await self.say(query("COPY ledger FROM STDIN"))
        while (heard := await self.hear()).type != "G":
            if heard.type == "E":
                raise Gone if heard.fields.get("V") == "FATAL" else Wrong(f"copy: {heard.fields}")
        rows = b"".join(copy_data(f"{token}\t{part}\t{self.number}\n".encode()) for part in range(PARTS))
        await self.say(rows)
        if self.dice.random() < 0.3:
            await asyncio.sleep(self.dice.random() * 0.02)
        await self.say(copy_done())
        self.ledger.absent.discard(token)
        self.ledger.unknown.add(token)
        await self.answers()
        self.ledger.unknown.discard(token)
        self.ledger.committed.add(token)

    async def large(self) -> None:
        """More than fits into any buffer, read at leisure."""
        token, count = self.token(), self.dice.randint(100, 4000)
        await self.say(query(f"SELECT '{token}' || repeat('x', 500) FROM generate_series(1, {count})"))
        if self.dice.random() < 0.3:
            await asyncio.sleep(self.dice.random() * 0.2)
        rows = self._rows(await self.answers())
        self._same(len(rows), count, "large")
        self._same(set(rows), {token + "x" * 500}, "large")

    async def variable(self) -> None:
        """What was set stays this client's, on whatever server."""
        name = self.token()
        await self.say(query(f"SET application_name = '{name}'"))
        await self.answers()
        self._application_name = name

    async def reads_variable(self) -> None:
        await self.say(query("SELECT current_setting('application_name')"))
        self._same(self._rows(await self.answers()), [self._application_name], "application_name")

    async def _cancel(self) -> None:
        """Ask for it, and wait until the pooler says that it is over: a later query of this client's must not meet it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(cancel_request(*self._key))
            await reader.read()
        finally:
            writer.close()

    async def canceled(self) -> None:
        """A cancel ends this client's query and nobody else's (theirs would be an unexpected error)."""
        await self.say(query("SELECT pg_sleep(5)"))
        await asyncio.sleep(self.dice.random() * 0.1)
        answer = asyncio.ensure_future(self.answers(fail="57014"))
        try:
            while not answer.done():  # a cancel that comes before the query has a server does nothing
                await self._cancel()
                await asyncio.wait([answer], timeout=0.5)
            await answer
        finally:
            answer.cancel()

    async def late_cancel(self) -> None:
        """One that races the end of a short query may hit that, or nothing."""
        await self.say(query("SELECT 1"))
        cancel = asyncio.ensure_future(self._cancel())
        try:
            await self.answers(fail="57014")
            await cancel
        finally:
            cancel.cancel()


SCENES = (
    *("simple",) * 6,
    *("pipeline",) * 4,
    *("prepared",) * 6,
    *("transaction",) * 6,
    *("copy",) * 2,
    "large",
    "variable",
    *("reads_variable",) * 2,
    "canceled",
    "late_cancel",
    "discard",
)
