"""What the rooms of `admin` ask of the process they look into. `lifecycle.Service` is it; tests hand in their own.

Data and a protocol, nothing else: `admin` never imports `lifecycle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pgweir.admin.nodes import Nodes
from pgweir.bundle import Bundle
from pgweir.bundle_store import BundleStore
from pgweir.config import Config
from pgweir.pool.stats import Stats, Timings
from pgweir.session.operations import Operations
from pgweir.session.pooler import Pooler

if TYPE_CHECKING:
    from pgweir.admin.console import ConsoleSession

ShutdownMode = Literal["immediate", "wait_for_servers", "wait_for_clients"]


@dataclass
class Consoles:
    """The consoles that are open, and what all of them have done so far (the row `pgbouncer` of SHOW STATS)."""

    sessions: set[ConsoleSession] = field(default_factory=set)
    stats: Stats = field(default_factory=Stats)


@dataclass
class Reloads:
    """What became of the configurations that came after the first."""

    applied: int = 0
    refused: int = 0
    applied_at: float = 0.0  # wall clock; 0: the first one runs
    last_refused: str | None = None  # why the last one was refused; None: it was not

    def took(self, wall: float) -> None:
        self.applied += 1
        self.applied_at = wall
        self.last_refused = None

    def refuse(self, why: str) -> None:
        self.refused += 1
        self.last_refused = why


class Options(Protocol):
    """What the command line said."""

    @property
    def control_dir(self) -> Path | None: ...

    @property
    def metrics_prefix(self) -> str: ...


class Descriptors(Protocol):
    """File descriptors (net/descriptors)."""

    limit: int
    needed: int  # by max_client_conn and the pool sizes
    shortages: int  # looks, three a second, that found none left


class Service(Protocol):
    """One running pooler."""

    version: str
    started_at: float  # wall clock
    config_path: Path
    bundle: Bundle | None  # what runs, where an operator sends bundles
    store: BundleStore | None
    stopping: bool
    pooler: Pooler
    operations: Operations
    consoles: Consoles
    nodes: Nodes
    reloads: Reloads
    loop_lag: Timings

    @property
    def options(self) -> Options: ...

    @property
    def listening(self) -> bool: ...

    @property
    def descriptors(self) -> Descriptors: ...

    @property
    def state(self) -> Literal["active", "pausing", "paused", "draining"]: ...

    def reload(self) -> None:
        """Read the configuration again. Raises ConfigError, and then nothing has changed."""

    def apply(self, config: Config) -> None:
        """Take a configuration. Raises ConfigError, and then nothing has changed."""

    def shutdown(self, mode: ShutdownMode, /) -> None: ...
