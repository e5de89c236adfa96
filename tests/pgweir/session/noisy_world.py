"""A world in which clients say what no client should: its PostgreSQL ends a connection over noise, as the real one does."""

from __future__ import annotations

from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.world import ServerWire, World

from pgweir.protocol import messages


class Startled(MiniPostgres):
    """Ends the connection over what it cannot read, as PostgreSQL does."""

    gone = False

    def feed(self, data: bytes) -> bytes:
        if self.gone:
            return b""
        try:
            return super().feed(data)
        except (ValueError, IndexError, AttributeError):
            self.gone = True
            return messages.error_response("FATAL", "08P01", "invalid frontend message")


class NoisyWorld(World):
    def accept(self, postgres: MiniPostgres | None = None) -> ServerWire:
        return super().accept(postgres or Startled(100 + len(self.servers), greeted=False))

    def run(self) -> None:
        while True:
            super().run()
            gone = [wire for wire in self.alive() if getattr(wire.postgres, "gone", False) and not wire.replies]
            if not gone:
                return
            for wire in gone:
                wire.lose()
