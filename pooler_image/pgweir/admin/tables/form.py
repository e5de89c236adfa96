"""What a table of the console is, and the moment that it is a picture of. Pure; the rooms beside this one build on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pgweir.admin.nodes import Nodes
from pgweir.admin.service import Consoles, Service
from pgweir.config import Config
from pgweir.protocol.messages import INT4_OID, TEXT_OID
from pgweir.session.pooler import Pooler

NUMERIC_OID: Final = 1700

Value = str | int | None
Row = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[tuple[str, int], ...]  # name, type
    rows: list[Row]

    def dictionaries(self) -> list[dict[str, Value]]:
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class View:
    """A running pooler at one moment."""

    pooler: Pooler
    consoles: Consoles
    now: float  # of the pooler's clock
    wall: float  # the same moment by the calendar
    config_path: str = ""
    nodes: Nodes = field(default_factory=Nodes)

    @classmethod
    def of(cls, service: Service, wall: float) -> View:
        pooler = service.pooler
        return cls(pooler, service.consoles, pooler.clock(), wall, str(service.config_path), service.nodes)

    @property
    def config(self) -> Config:
        return self.pooler.config

    def time(self, moment: float) -> str:
        """A moment of the pooler's clock, as the calendar has it."""
        local = datetime.fromtimestamp(self.wall - (self.now - moment)).astimezone()
        return f"{local:%Y-%m-%d %H:%M:%S %Z}"

    def moment(self, moment: float) -> str:
        """The same as pgpool writes it, without the zone."""
        return self.time(moment).rpartition(" ")[0]

    def database_names(self) -> list[str]:
        """Configured ones, and those that `*` made."""
        return sorted({*self.config.databases, *self.pooler.databases})


def texts(names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, TEXT_OID) for name in names.split())


def ints(names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, INT4_OID) for name in names.split())


def numerics(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple((name, NUMERIC_OID) for name in names)


def seconds_and_microseconds(seconds: float) -> tuple[int, int]:
    """Seconds, and the microseconds beyond them."""
    whole = max(0, int(seconds * 1_000_000))
    return whole // 1_000_000, whole % 1_000_000


def load_balance_hosts(view: View, name: str) -> str | None:
    entry = view.config.database(name)
    return view.config.load_balance_hosts(name) if entry is not None and len(entry.hosts) > 1 else None


def one_value(name: str, value: Any) -> Table:
    """A table of one row and one column."""
    return Table(((name, INT4_OID if isinstance(value, int) else TEXT_OID),), [(value,)])
