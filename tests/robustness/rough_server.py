"""What stands between the pooler and a PostgreSQL that nobody would want: replies come in any pieces, damaged, or not at all."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from typing import Final

from tests.pooler.front import Front, pump, shut
from tests.robustness.rough_client import LENGTHS, pieces

DAMAGE: Final = 0.01  # of the reads from PostgreSQL: bytes that are others than it said
DEATH: Final = 0.01  # of them: the connection ends there, whatever was half-said


class RoughFront(Front):
    """Listens on a free port, and hands on to the PostgreSQL at `target_port`."""

    def __init__(self, target_port: int, seed: int) -> None:
        self._dice = random.Random(seed)
        self.served = 0
        super().__init__(target_port)

    def _admit(self, client: socket.socket) -> None:
        try:
            postgres = self._reach(timeout=10)
        except OSError:
            client.close()
            return
        self.served += 1
        client.settimeout(10)
        dice = random.Random(self._dice.random())
        threading.Thread(target=pump, args=(client, postgres), daemon=True).start()
        threading.Thread(target=_pump_roughly, args=(postgres, client, dice), daemon=True).start()


def _pump_roughly(source: socket.socket, target: socket.socket, dice: random.Random) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(dice.choice((7, 300, 65536))):
            chance = dice.random()
            if chance < DAMAGE:
                data = _damaged(data, dice)
            for piece in pieces(data, dice):
                target.sendall(piece)
                if dice.random() < 0.1:
                    time.sleep(dice.random() * 0.002)
            if chance > 1 - DEATH:
                if dice.random() < 0.5:
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
    shut(target)
    shut(source)
    target.close()


def _damaged(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    if dice.random() < 0.5:
        return data[:at] + struct.pack("!I", dice.choice(LENGTHS)) + data[at + 4 :]
    return data[:at] + dice.randbytes(1) + data[at + 1 :]
