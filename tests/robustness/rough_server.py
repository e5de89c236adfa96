"""What stands between the pooler and a PostgreSQL that nobody would want: replies come in any pieces, damaged, or not at all."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Final, Self

from tests.robustness.rough_client import LENGTHS, pieces

DAMAGE: Final = 0.01  # of the reads from PostgreSQL: bytes that are others than it said
DEATH: Final = 0.01  # of them: the connection ends there, whatever was half-said


class RoughFront:
    """Listens on a free port, and hands on to the PostgreSQL at `target_port`."""

    def __init__(self, target_port: int, seed: int) -> None:
        self._target_port = target_port
        self._dice = random.Random(seed)
        self._is_closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]
        self.served = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                pooler, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                postgres = socket.create_connection(("127.0.0.1", self._target_port), timeout=10)
            except OSError:
                pooler.close()
                continue
            self.served += 1
            for end in (pooler, postgres):
                end.settimeout(10)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dice = random.Random(self._dice.random())
            threading.Thread(target=_pump, args=(pooler, postgres), daemon=True).start()
            threading.Thread(target=_pump_roughly, args=(postgres, pooler, dice), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(target)


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
    _end(target)
    _end(source)
    target.close()


def _damaged(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    if dice.random() < 0.5:
        return data[:at] + struct.pack("!I", dice.choice(LENGTHS)) + data[at + 4 :]
    return data[:at] + dice.randbytes(1) + data[at + 1 :]


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
