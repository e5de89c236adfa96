"""A random workload through the pooler is answered as PostgreSQL answers it: byte for byte.

Two servers start from the same cluster and are told the same things in the same order, one directly, one through the
pooler. What comes back is compared raw. PGWEIR_WORKLOAD_SECONDS makes it run longer, PGWEIR_WORKLOAD_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import re
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from tests.pooler.process import FLAVOUR, PoolerProcess
from tests.pooler.wire import WireClient
from tests.pooler.workload import Mode, Speaker, Turn
from tests.postgres.server import PASSWORDS, PostgresServer

SECONDS = float(os.environ.get("PGWEIR_WORKLOAD_SECONDS", "0"))
# The same workload every time, unless one is asked for; a long run is for finding what the usual one does not.
SEED = int(os.environ.get("PGWEIR_WORKLOAD_SEED", "0")) or (random.SystemRandom().randrange(2**31) if SECONDS else 1)
TURNS = 1000
CLIENTS = 4
FIRST_OF_USERS = 16384  # OIDs below are PostgreSQL's own
IN_TRANSACTION = 2  # clients at once: fewer than servers, so that nobody waits for another one's COMMIT

pytestmark = [
    pytest.mark.timeout(120 + 4 * SECONDS),
    pytest.mark.skipif(FLAVOUR != "pgweir", reason="PgBouncer 1.18 knows no prepared statements in transaction mode"),
]


class Twin:
    """One client, twice: `direct` to its PostgreSQL, `pooled` to the other one's pooler."""

    def __init__(self, speaker: Speaker, direct: WireClient, pooled: WireClient) -> None:
        self.speaker = speaker
        self.direct = direct
        self.pooled = pooled

    def say(self, turn: Turn, chance: random.Random) -> None:
        """Say it to both, hear both out, compare."""
        cuts = sorted(chance.randrange(len(turn.data)) for _ in range(chance.choice((0, 0, 0, 1, 3))))
        for begin, end in zip([0, *cuts], [*cuts, len(turn.data)], strict=True):
            self.direct.say(turn.data[begin:end])
            self.pooled.say(turn.data[begin:end])
        wanted, status = _heard(self.direct, turn.ready)
        got, _ = _heard(self.pooled, turn.ready)
        inside = self.speaker.in_transaction
        assert got == wanted or _alike(got, inside) == _alike(wanted, inside), (
            f"{turn.what}\ndirect: {_shown(wanted)}\npooled: {_shown(got)}"
        )
        self.speaker.in_transaction = status != b"I"
        self.speaker.failed = status == b"E"

    def close(self) -> None:
        self.direct.close()
        self.pooled.close()


def _heard(client: WireClient, ready: int) -> tuple[bytes, bytes]:
    """Everything up to that many ReadyForQuery, raw, and the last one's status."""
    heard = bytearray()
    start = 0
    while True:
        while len(heard) - start >= 5:
            kind = heard[start]
            end = start + 1 + struct.unpack_from("!i", heard, start + 1)[0]
            if end > len(heard):
                break
            start = end
            if kind == ord("Z"):
                ready -= 1
                if not ready:
                    assert end == len(heard), f"something behind the last ReadyForQuery: {bytes(heard[end:])!r}"
                    return bytes(heard), bytes(heard[end - 1 : end])
        try:
            part = client.socket.recv(1 << 16)
        except TimeoutError:
            raise AssertionError(f"silence after {_shown(bytes(heard))}, {ready} ReadyForQuery owed") from None
        assert part, f"closed after {_shown(bytes(heard))}"
        heard += part


# What a failed transaction may be told instead of 25P02, where PostgreSQL looks at something else first.
_BESIDE_25P02 = (b"\0C25P02\0", b"\0C42P05\0", b"\0C42601\0", b'parameters, but prepared statement "statement"')


def _alike(data: bytes, in_transaction: bool) -> list[bytes]:
    """The messages, without what may differ.

    - The server knows a statement by the pooler's name; and a server that did not have it yet says about its Parse, at
      another place in its source, what it would have said about the Bind. In a failed transaction it refuses that
      Parse, where it might have found another fault in what the client said.
    - The numbers of tables: what a statement takes of them depends on what its backend remembers (TRUNCATE of a table
      that is new in the transaction). Seen once in fifty thousand turns, and from there on everywhere.
    - Settings that change together are reported in the order in which this server once met them.
    """
    found: list[bytes] = []
    reports: list[bytes] = []
    for each in _messages(data):
        if each[:1] == b"S":
            reports.append(each)
            continue
        found += sorted(reports)
        reports = []
        if each[:1] == b"T":
            each = _without_table_numbers(each)
        if each[:1] == b"E":
            each = re.sub(rb'"(?:PGBOUNCER_|stmt)\d+"', b'"statement"', each)
            each = re.sub(rb"\0[FLR][^\0]*", b"", each)
            if in_transaction and any(mark in each for mark in _BESIDE_25P02):
                each = b"E refused in a failed transaction"
        found.append(each)
    return found


def _without_table_numbers(description: bytes) -> bytes:
    """A RowDescription, with 0 for every table that somebody made."""
    found, at = bytearray(description), 7
    while at < len(found):
        at = found.index(b"\0", at) + 1
        if struct.unpack_from("!I", found, at)[0] >= FIRST_OF_USERS:
            found[at : at + 4] = bytes(4)
        at += 18
    return bytes(found)


def _messages(data: bytes) -> list[bytes]:
    """Each without its length; an error is the only kind whose length may differ."""
    found, at = [], 0
    while at + 5 <= len(data):
        end = at + 1 + struct.unpack_from("!i", data, at + 1)[0]
        found.append(data[at : at + 1] + data[at + 5 : end] if data[at] == ord("E") else data[at:end])
        at = end
    return found


def _shown(data: bytes) -> str:
    """The messages in short, for people."""
    found, at = [], 0
    while at + 5 <= len(data):
        length = struct.unpack_from("!i", data, at + 1)[0]
        found.append(f"{chr(data[at])}{data[at + 5 : at + 1 + length][:90]!r}")
        at += 1 + length
    head, tail = found[:12], found[12:][-6:]
    return "\n   ".join([*head, f"({len(found)} messages)", *tail])


@pytest.fixture
def twins(make_postgres: Callable[..., PostgresServer]) -> Iterator[Callable[[Mode, int], list[Twin]]]:
    made: list[Twin] = []
    poolers: list[PoolerProcess] = []

    def make(mode: Mode, seed: int) -> list[Twin]:
        alone, behind = make_postgres(), make_postgres()
        alone.start()
        behind.start()
        size = IN_TRANSACTION + 1 if mode == "transaction" else CLIENTS
        settings = {"pool_mode": mode, "default_pool_size": size, "max_prepared_statements": 6}
        pooler = PoolerProcess(behind.port, settings=settings)
        poolers.append(pooler)
        pooler.start()
        for number in range(CLIENTS):
            direct = WireClient(alone.port).log_in("alice", "app", PASSWORDS["alice"])
            speaker = Speaker(f"s{number}", random.Random(f"{seed}/{number}"), mode)
            made.append(Twin(speaker, direct, pooler.wire()))
        return made

    yield make
    for twin in made:
        twin.close()
    for pooler in poolers:
        pooler.remove()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_random_workload_gives_the_same_bytes_through_the_pooler(
    twins: Callable[[Mode, int], list[Twin]], mode: Mode
) -> None:
    print(f"PGWEIR_WORKLOAD_SEED={SEED}")  # pytest shows it where the test fails
    chance = random.Random(SEED)
    everybody = twins(mode, SEED)
    for twin in everybody:
        twin.say(twin.speaker.setup(), chance)
    end, number = time.monotonic() + SECONDS, 0
    while number < TURNS or time.monotonic() < end:
        twin = chance.choice(everybody)
        busy = sum(other.speaker.in_transaction for other in everybody)
        turn = twin.speaker.turn(may_begin=busy < IN_TRANSACTION)
        number += 1
        try:
            twin.say(turn, chance)
        except AssertionError as error:
            raise AssertionError(f"turn {number} of seed {SEED}, {twin.speaker.schema}: {error}") from None
    for twin in everybody:
        twin.say(twin.speaker.farewell(), chance)
