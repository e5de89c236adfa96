"""PostgreSQLs that are standbys, or were, and how they let that be known."""

from __future__ import annotations

from tests.pgweir.mini_postgres import MiniPostgres

from pgweir.protocol import messages
from pgweir.session.server_login import QUESTION

READY = messages.ready_for_query(b"I")


class Newer(MiniPostgres):
    """PostgreSQL 14 and newer: it reports whether it is a standby."""

    def __init__(self, *, standby: bool) -> None:
        super().__init__(greeted=False)
        self.standby = standby

    def _greeting(self) -> bytes:
        ok = messages.authentication_ok()
        says = messages.parameter_status("in_hot_standby", "on" if self.standby else "off")
        return ok + says + super()._greeting().removeprefix(ok)


class Older(MiniPostgres):
    """It has to be asked."""

    def __init__(
        self, *, standby: bool, started: bytes = b"yesterday", knows: bool = True, address: bytes | None = None
    ) -> None:
        super().__init__(greeted=False)
        self.standby, self.started, self.knows, self.address = standby, started, knows, address

    def _query(self, sql: str) -> bytes:
        if sql != QUESTION:
            return super()._query(sql)
        self.queries.append(sql)
        if not self.knows:
            return messages.error_response("ERROR", "42883", "no such function") + READY
        row = messages.data_row([b"t" if self.standby else b"f", self.started, self.address])
        head = messages.row_description([("pg_is_in_recovery", 16), ("pg_postmaster_start_time", 1184), ("host", 25)])
        return head + row + messages.command_complete("SELECT 1") + READY
