"""Our pooler beside Debian's PgBouncer and pgpool-II: same PostgreSQL, same settings, interleaved runs, one table.

`make bench` runs it: it installs what it needs, starts everything by itself on free ports, prints the goals beside what was
measured, writes `bench/results/<date>.json`, and draws `docs/ratios.svg`. Cells are in `bench.cells`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from bench import stage
from bench.cells import CELLS, Cell, Goal
from bench.chart import svg
from bench.measure import BenchmarkFailed, Figures, Target
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from tests.postgres.server import PostgresServer

RESULTS: Final = Path(__file__).parent / "results"
CHART: Final = Path(__file__).parent.parent / "docs" / "ratios.svg"
OURS, THEIRS = "pgweir", "pgbouncer"
UNITS: Final = {"cpu_us": "µs", "added_us": "µs", "idle_kib": "KiB", "resume_ms": "ms", "tps": "/s", "tail": "p99/p50"}
screen = Console(stderr=True)


@dataclass(frozen=True)
class Run:
    cell: str
    pooler: str
    repetition: int
    figures: Figures


def main() -> int:
    options = parse_arguments()
    if options.list:
        for cell in CELLS:
            print(f"{cell.name:24} {cell.setup:12} {'core' if cell.core else ''}")
        return 0
    cells = [cell for cell in CELLS if chosen(cell, options)]
    if not cells:
        screen.print(f"[red]no cell is called {' or '.join(options.cell)}; `--list` names them")
        return 2
    allow_many_files()
    poolers = available(options.poolers)
    with tempfile.TemporaryDirectory() as folder, stage.postgres(Path(folder)) as (server, certificates):
        theirs = stage.pgbouncer_version() if THEIRS in poolers else None
        report: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(server, theirs),
            "load": {"servers": options.servers, "seconds": options.seconds, "repetitions": options.repeat},
        }
        runs, troubles = measure(cells, poolers, options, server, certificates, theirs)
    report["summary"] = summary(cells, runs)
    report["troubles"] = troubles
    report["runs"] = [{"cell": r.cell, "pooler": r.pooler, "repetition": r.repetition, **r.figures} for r in runs]
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}.json"
    target.write_text(json.dumps(report, indent=1) + "\n")
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        Console(width=max(screen.width, 120)).print(table(cells, runs, report))
    if THEIRS in poolers and not options.cell:
        CHART.write_text(chart(cells, runs, report))
        screen.print(f"drawn: {CHART}")
    screen.print(f"kept in {target}")
    for trouble in troubles:
        screen.print(f"[red]{trouble}")
    failed = sum(run.figures.get("failed", 0) for run in runs)
    if failed:
        screen.print(f"[red]{failed:g} transactions failed")
    return 1 if failed or troubles else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="the core cells, three short runs of each: under 3 minutes"
    )
    parser.add_argument(
        "--cell", action="append", default=[], metavar="NAME", help="only this one (a pattern; repeatable)"
    )
    parser.add_argument("--list", action="store_true", help="name the cells")
    parser.add_argument("--json", action="store_true", help="the whole report on stdout instead of the table")
    parser.add_argument("--repeat", type=int, help="repetitions of every cell (5; 3 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of one run (5; 2 with --quick)")
    parser.add_argument("--servers", type=int, default=8, help="default_pool_size of the poolers (8)")
    parser.add_argument(
        "--poolers", nargs="+", choices=[THEIRS, "pgpool", OURS], help="all three; with --quick without pgpool"
    )
    parser.add_argument(
        "--pooler", action="append", default=[], type=outsider, metavar="NAME=PORT:PID",
        help="another pooler that runs already, before a PostgreSQL with a database app and a trusted user trusty",
    )  # fmt: skip
    options = parser.parse_args()
    options.poolers = options.poolers or ([THEIRS, OURS] if options.quick else [THEIRS, "pgpool", OURS])
    options.repeat = options.repeat or (3 if options.quick else 5)
    options.seconds = options.seconds or (2.0 if options.quick else 5.0)
    return options


def outsider(text: str) -> Target:
    try:
        name, _, place = text.partition("=")
        port, _, pid = place.partition(":")
        return Target(name, int(port), int(pid))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT:PID") from None


def chosen(cell: Cell, options: argparse.Namespace) -> bool:
    if options.cell:
        return any(fnmatch(cell.name, pattern) for pattern in options.cell)
    return cell.core or not options.quick


def available(wanted: Sequence[str]) -> list[str]:
    found = []
    for name in wanted:
        if name == OURS or stage.install(name, {"pgpool": "pgpool2"}.get(name, name)):
            found.append(name)
        else:
            screen.print(f"[yellow]no {name} here and no way to install it (apt-get, as root): it is left out")
    return found


def allow_many_files() -> None:
    """5,000 clients are 5,000 descriptors, here and in each pooler."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 20_000 if hard == resource.RLIM_INFINITY else min(20_000, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def measure(
    cells: Sequence[Cell], poolers: Sequence[str], options: argparse.Namespace, server: PostgresServer,
    certificates: Any, theirs: str | None,
) -> tuple[list[Run], list[str]]:  # fmt: skip
    program = server.installation.program("pgbench")
    if not server.installation.has_tls and any(cell.setup.startswith("tls") for cell in cells):
        screen.print("[yellow]this PostgreSQL was built without TLS (Debian's has it): the cells with TLS are left out")
        cells = [cell for cell in cells if not cell.setup.startswith("tls")]
    runs: list[Run] = []
    troubles: list[str] = []
    columns = (TextColumn("{task.description:44}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    total = sum(min(options.repeat, cell.most) for cell in cells)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=screen) as progress:
        task = progress.add_task("filling pgbench's tables", total=total)
        stage.fill(server, program)
        for setup, group in groupby(cells, lambda cell: cell.setup):
            with contextlib.ExitStack() as stack:
                targets: list[Target] = []
                for name in poolers:
                    if name == "pgpool" and setup != "plain":
                        continue
                    try:
                        started = stage.pooler(name, setup, options.servers, server, certificates)
                        targets.append(stack.enter_context(started))
                    except (BenchmarkFailed, AssertionError) as trouble:
                        troubles.append(f"{name}, {setup}: {str(trouble)[-300:]}")
                if setup == "plain":
                    targets += options.pooler
                for cell in group:
                    takers = [target for target in targets if takes(target, cell, theirs)]
                    if cell.needs == "latency":
                        takers.append(Target("direct", server.port, 0))
                    for repetition in range(min(options.repeat, cell.most)):
                        # Every second repetition goes the other way round, so that a drift favours nobody.
                        for target in takers if repetition % 2 else reversed(takers):
                            progress.update(task, description=f"{cell.name} {target.name}")
                            try:
                                figures = cell.load.run(target, options.seconds, program)
                            except (BenchmarkFailed, OSError) as trouble:
                                troubles.append(f"{cell.name}, {target.name}: {trouble}")
                                continue
                            runs.append(Run(cell.name, target.name, repetition, figures))
                        progress.advance(task)
    return with_added_latency(runs), troubles


def takes(target: Target, cell: Cell, theirs: str | None) -> bool:
    if target.name == "pgpool":
        return cell.pgpool
    if target.name == THEIRS and cell.needs == "prepared" and theirs is not None:
        # PgBouncer knows prepared statements in transaction mode since 1.21.
        return tuple(int(part) for part in theirs.split(".")[:2]) >= (1, 21)
    return True


def with_added_latency(runs: Sequence[Run]) -> list[Run]:
    """What the way through a pooler adds to that of PostgreSQL alone, in the same repetition."""
    direct = {(run.cell, run.repetition): run.figures["latency_ms"] for run in runs if run.pooler == "direct"}
    found = []
    for run in runs:
        alone = direct.get((run.cell, run.repetition))
        if alone is None or run.pooler == "direct":
            found.append(run)
        else:
            added = {"added_us": (run.figures["latency_ms"] - alone) * 1000}
            found.append(Run(run.cell, run.pooler, run.repetition, {**run.figures, **added}))
    return found


# --- what came out ---------------------------------------------------------------------------------------------------


def values(runs: Sequence[Run], cell: str, pooler: str, figure: str) -> dict[int, float]:
    return {
        run.repetition: run.figures[figure]
        for run in runs
        if (run.cell, run.pooler) == (cell, pooler) and figure in run.figures
    }


def quotients(above: dict[int, float], below: dict[int, float]) -> list[float]:
    """Each pair from the same repetition."""
    return [above[number] / below[number] for number in sorted(above) if below.get(number)]


def against(goal: Goal, cell: Cell, runs: Sequence[Run]) -> list[float]:
    """The values that are held against the goal."""
    ours = values(runs, cell.name, OURS, goal.figure)
    if goal.of == "own":
        return list(ours.values())
    if goal.of == "ratio":
        return quotients(ours, values(runs, cell.name, THEIRS, goal.figure))
    return quotients(ours, values(runs, goal.of, OURS, goal.figure))


def spread(found: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(found), 3), "min": round(min(found), 3), "max": round(max(found), 3)}


def summary(cells: Sequence[Cell], runs: Sequence[Run]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for cell in cells:
        entry: dict[str, Any] = {}
        of_cell = [run for run in runs if run.cell == cell.name]
        for name in dict.fromkeys(run.pooler for run in of_cell):
            mine = [run for run in of_cell if run.pooler == name]
            entry[name] = {
                figure: spread([run.figures[figure] for run in mine if figure in run.figures])
                for figure in dict.fromkeys(figure for run in mine for figure in run.figures)
            }
        if ratio := quotients(values(runs, cell.name, OURS, "cpu_us"), values(runs, cell.name, THEIRS, "cpu_us")):
            entry["ratio"] = spread(ratio)
        entry["goals"] = [
            {
                "figure": goal.figure, "of": goal.of, "first": goal.first, "goal": goal.final, **spread(found),
                "met": verdict(goal, found),
            }
            for goal in cell.goals
            if (found := against(goal, cell, runs))
        ]  # fmt: skip
        result[cell.name] = entry
    return result


def verdict(goal: Goal, found: Sequence[float]) -> str:
    median = statistics.median(found)
    if goal.is_met(median, goal.final):
        return "goal"
    return "first" if goal.is_met(median, goal.first) else "no"


def table(cells: Sequence[Cell], runs: Sequence[Run], report: dict[str, Any]) -> Table:
    load, found = report["load"], report["versions"]
    title = (
        f"{load['servers']} servers, {load['repetitions']} × {load['seconds']:g} s; PostgreSQL {found['postgres']}, "
        f"PgBouncer {found['pgbouncer'] or 'absent'}, {report['machine']['cores']} cores, pgweir {found['form']}"
    )
    result = Table(title=title, caption="medians (least–most); ratio: ours over PgBouncer's, pair by pair")
    result.add_column("cell")
    result.add_column("figure")
    for column in (THEIRS, "pgpool", "others", OURS, "of it user", "against the goal", "first", "goal"):
        result.add_column(column, justify="right")
    result.add_column("met")
    others = [run.pooler for run in runs if run.pooler not in (OURS, THEIRS, "pgpool", "direct")]
    for cell in cells:
        for figure in cell.figures:
            row = [cell.name if figure == "cpu_us" else "", f"{figure.rpartition('_')[0] or figure} {UNITS[figure]}"]
            for name in (THEIRS, "pgpool"):
                row.append(_median(values(runs, cell.name, name, figure)))
            row.append(" ".join(f"{n} {_median(values(runs, cell.name, n, figure))}" for n in dict.fromkeys(others)))
            row.append(_median(values(runs, cell.name, OURS, figure)))
            row.append(_median(values(runs, cell.name, OURS, "user_us")) if figure == "cpu_us" else "")
            goal = next((goal for goal in cell.goals if goal.figure == figure), None)
            shown = goal or Goal(0, 0)
            measured = against(shown, cell, runs)
            row.append(_show(measured) if measured else "")
            if goal is None or not measured:
                row += ["", "", ""]
            else:
                sign = "≥" if goal.more_is_better else "≤"
                met = {"goal": "[green]goal", "first": "[yellow]first", "no": "[red]no"}[verdict(goal, measured)]
                row += [f"{sign} {goal.first:g}", f"{sign} {goal.final:g}", met]
            result.add_row(*row)
    return result


def chart(cells: Sequence[Cell], runs: Sequence[Run], report: dict[str, Any]) -> str:
    bars = []
    for cell in cells:
        ratio = quotients(values(runs, cell.name, OURS, "cpu_us"), values(runs, cell.name, THEIRS, "cpu_us"))
        if ratio:
            bars.append((cell.name, statistics.median(ratio), min(ratio), max(ratio)))
    return svg(f"pgweir beside PgBouncer {report['versions']['pgbouncer']}, {report['date'][:10]}", bars)


def _median(found: dict[int, float]) -> str:
    if not found:
        return ""
    value = statistics.median(found.values())
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _show(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def machine() -> dict[str, Any]:
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "system": platform.system(),
        "load_before": os.getloadavg()[0],
    }


def versions(server: PostgresServer, theirs: str | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "pgbouncer": theirs}
    found["postgres"] = ".".join(str(part) for part in server.installation.version)
    for package in ("pgweir", "uvloop"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    # As the pooler's own process finds it.
    ask = (
        "import uvloop; from pgweir import compiled; from pgweir.net import streams; "
        "loop = uvloop.new_event_loop(); print(compiled.FORM, streams.wanted(loop)); loop.close()"
    )
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    form, _, has_own = asked.stdout.strip().partition(" ")
    found["form"] = form or None
    found["transport"] = {"True": "own", "False": "uvloop"}.get(has_own)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found["commit"] = commit.stdout.strip() or None
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkFailed as failure:
        screen.print(f"[red]{failure}")
        sys.exit(1)
