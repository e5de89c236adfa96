"""What is measured: one cell for each kind of traffic, with the goals that it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bench.loads import Copy, Idle, Resume
from bench.measure import Figures, Pgbench, Target

# How the poolers of a cell are set up (`bench.stage`).
Setup = Literal["plain", "session", "md5", "scram", "auth_query", "tls_clients", "tls_servers", "tls_both"]


class Load(Protocol):
    def run(self, target: Target, seconds: float, program: Path) -> Figures: ...


@dataclass(frozen=True)
class Goal:
    """`of`: "ratio" (ours over PgBouncer's), "own" (our figure itself), or the name of a cell of ours to divide by."""

    first: float
    final: float
    figure: str = "cpu_us"
    of: str = "ratio"
    more_is_better: bool = False

    def is_met(self, value: float, bound: float) -> bool:
        return value >= bound if self.more_is_better else value <= bound


@dataclass(frozen=True)
class Cell:
    name: str
    load: Load
    goals: tuple[Goal, ...] = ()
    setup: Setup = "plain"
    core: bool = False  # part of --quick
    most: int = 99  # repetitions that it is worth
    needs: str = ""  # "prepared": PgBouncer 1.21; "latency": PostgreSQL itself is measured, too
    pgpool: bool = False  # a load that pgpool-II can take, too

    @property
    def figures(self) -> list[str]:
        """Those to be shown, the first of all being CPU per transaction."""
        return list(dict.fromkeys(["cpu_us", *(goal.figure for goal in self.goals)]))


def _protocols(name: str, clients: int, goal: Goal | None, builtin: str = "", *, core: bool = False) -> list[Cell]:
    cells = []
    for protocol in ("simple", "extended", "prepared"):
        own = Goal(1.15, 1.1, of=f"{name}-simple-{clients}")
        wanted = own if protocol == "prepared" and goal is not None and clients == 32 else goal
        cells.append(
            Cell(
                f"{name}-{protocol}-{clients}",
                Pgbench(clients, protocol, builtin=builtin),
                () if wanted is None or (protocol == "prepared" and wanted is goal) else (wanted,),
                core=core and (clients == 32 or protocol == "simple"),
                needs="prepared" if protocol == "prepared" else "",
                pgpool=clients <= 32,
            )
        )
    return cells


BUSY = Goal(1.05, 0.85)
CELLS: tuple[Cell, ...] = (
    *_protocols("select1", 32, BUSY, core=True),
    *_protocols("select1", 1, Goal(1.25, 1.0)),
    *_protocols("select1", 1000, BUSY),
    *_protocols("select-S", 32, BUSY, "select-only"),
    *_protocols("select-S", 1, Goal(1.25, 1.0), "select-only"),
    *_protocols("select-S", 1000, BUSY, "select-only"),
    Cell("tpcb-32", Pgbench(32, builtin="tpcb-like"), (BUSY,), core=True, pgpool=True),
    Cell(
        "small-rows",
        Pgbench(8, script="SELECT * FROM generate_series(1, 1000);"),
        (Goal(0.75, 0.65),),
        core=True,
        pgpool=True,
    ),
    Cell(
        "bulk-rows",
        Pgbench(4, script="SELECT repeat('x', 8000) FROM generate_series(1, 1000);"),
        (Goal(0.35, 0.3),),
        core=True,
    ),
    Cell("copy-out", Copy("out"), (Goal(0.35, 0.3),)),
    Cell("copy-in", Copy("in")),
    Cell(
        "pipeline-20",
        Pgbench(32, "extended", script="\\startpipeline\n" + "SELECT 1;\n" * 20 + "\\endpipeline"),
        (BUSY,),
    ),
    Cell(
        "latency-1",
        Pgbench(1, sampling=1.0),
        (Goal(1.25, 1.0, "added_us"), Goal(1.25, 1.0)),
        core=True,
        needs="latency",
    ),
    Cell("saturated", Pgbench(128), (Goal(1.15, 1.4, "tps", more_is_better=True),), core=True),
    Cell(
        "oversubscribed-10x",
        Pgbench(80, script="SELECT pg_sleep(0.002);", sampling=1.0),
        (Goal(1.0, 0.8, "tail"),),
    ),
    Cell(
        "idle-5000",
        Idle(5000),
        (Goal(5, 2, "idle_kib", of="own"),),
        most=2,
    ),
    Cell("resume-1000", Resume(1000), (Goal(300, 100, "resume_ms", of="own"),), most=3),
    Cell("session-32", Pgbench(32), (BUSY,), setup="session"),
    Cell("login-trust", Pgbench(8, reconnect=True), (Goal(1.1, 0.9),), core=True),
    Cell("login-md5", Pgbench(8, reconnect=True), (Goal(1.1, 0.9),), setup="md5"),
    Cell("login-scram", Pgbench(8, reconnect=True), (Goal(1.1, 0.9),), setup="scram"),
    Cell("login-auth-query", Pgbench(8, reconnect=True), (Goal(1.1, 0.9),), setup="auth_query"),
    Cell("tls-clients", Pgbench(32), (Goal(1.3, 1.0),), setup="tls_clients"),
    Cell("tls-servers", Pgbench(32), (Goal(1.3, 1.0),), setup="tls_servers"),
    Cell("tls-both", Pgbench(32), (Goal(1.3, 1.0),), setup="tls_both", core=True),
    Cell("tls-bulk", Pgbench(4, script="SELECT repeat('x', 8000) FROM generate_series(1, 1000);"), setup="tls_both"),
    Cell("tls-login", Pgbench(8, reconnect=True), setup="tls_clients"),
    Cell(
        "tls-idle-1000",
        Idle(1000),
        (Goal(60, 30, "idle_kib", of="own"),),
        setup="tls_clients",
        most=2,
    ),
)
