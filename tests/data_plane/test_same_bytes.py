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
_ABORTED = b"\0C25P02\0"
# Too many values in a Bind; what is no SQL, or is empty, under a name that is taken.
_FOUND_FIRST = (b"\0C08P01\0Mbind message supplies ", b"\0C42601\0", b"\0C42P05\0")
_PLACE, _NAME = rb"\0[LR][^\0]*", rb'"(stmt\d|PGBOUNCER_\d+)"'
IN_TRANSACTION = 2  # clients at once: fewer than servers, so that nobody waits for another one's COMMIT

pytestmark = [
    pytest.mark.timeout(120 + 4 * SECONDS),
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
        assert got == wanted or self._are_alike(_without_chance(wanted), _without_chance(got), turn), (
            f"{turn.what}\ndirect: {_shown(wanted)}\npooled: {_shown(got)}"
        )
        self.speaker.in_transaction = status != b"I"
        self.speaker.failed = status == b"E"

    def _are_alike(self, wanted: list[bytes], got: list[bytes], turn: Turn) -> bool:
        return len(wanted) == len(got) and all(
            one == other or (one[:1] == other[:1] == b"E" and self._is_same_error(one, other, turn))
            for one, other in zip(wanted, got, strict=True)
        )

    def _is_same_error(self, wanted: bytes, got: bytes, turn: Turn) -> bool:
        """What may differ, and only so.

        - A server that does not have a statement yet must prepare it before its Bind, or before it can say that its name
          is taken. In a failed transaction it refuses that (25P02), where the other one finds another fault first.
        - Where in its source PostgreSQL says 25P02: at that Parse, or at the Bind behind it.
        - The pooler knows one statement where its client has two names for it, and the error says the first; it has its
          own name alone for one that was closed behind the fault, in the same flight.
        """
        wanted, got = wanted[5:], got[5:]
        if _ABORTED in got and any(fault in wanted for fault in _FOUND_FIRST):
            return True
        if _ABORTED in got and _ABORTED in wanted:
            return re.sub(_PLACE, b"", wanted) == re.sub(_PLACE, b"", got)
        if re.sub(_NAME, b"", wanted) != re.sub(_NAME, b"", got):
            return False
        names = [re.findall(_NAME, error) for error in (wanted, got)]
        if [len(each) for each in names] != [1, 1]:
            return False
        meant, said = (each[0].decode() for each in names)
        if said.startswith("PGBOUNCER_"):
            return f"close {meant}" in turn.what
        given = self.speaker.given
        return not given.get(meant, set()).isdisjoint(given.get(said, set()))

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


def _without_chance(data: bytes) -> list[bytes]:
    """The messages, without what differs from server to server.

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
        found.append(_without_table_numbers(each) if each[:1] == b"T" else each)
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
    found, at = [], 0
    while at + 5 <= len(data):
        end = at + 1 + struct.unpack_from("!i", data, at + 1)[0]
        found.append(data[at:end])
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
        settings: dict[str, object] = {"pool_mode": mode, "default_pool_size": size}
        if FLAVOUR == "pgweir":
            settings["max_prepared_statements"] = 6
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
