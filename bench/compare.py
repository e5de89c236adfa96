"""Our pooler and Debian's PgBouncer side by side: same PostgreSQL, same settings, interleaved runs, one table.

`make bench` runs it. It starts everything by itself, on free ports, and writes `bench/results/<date>.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.measure import BenchmarkFailed, Protocol, Run, run_pgbench
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tests.pooler import debian
from tests.pooler.process import Flavour, PoolerProcess
from tests.postgres.server import PostgresServer, find_installation

RESULTS = Path(__file__).parent / "results"
USER, DATABASE = "trusty", "app"
PROTOCOLS = ("simple", "extended", "prepared")
screen = Console(stderr=True)


def main() -> int:
    options = parse_arguments()
    if options.quick:
        options.repeat, options.seconds = 3, 4.0
    flavours = available_poolers(options.poolers)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(PostgresServer(settings={"max_connections": "60", "shared_buffers": "128MB"}))
        poolers = {flavour: stack.enter_context(start_pooler(flavour, server, options)) for flavour in flavours}
        pgbouncer_version = debian.pgbouncer_version() if "pgbouncer" in flavours else None
        runs = measure(poolers, pgbouncer_version, options)
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(server, pgbouncer_version),
        "load": {
            "script": options.script,
            "clients": options.clients,
            "servers": options.servers,
            "seconds": options.seconds,
            "repetitions": options.repeat,
        },
        "summary": summary(runs),
        "runs": [run.as_json() for run in runs],
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}.json"
    target.write_text(json.dumps(report, indent=1) + "\n")
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        Console(width=max(screen.width, 110)).print(table(runs, report))
    screen.print(f"kept in {target}")
    failed = sum(run.failed for run in runs)
    if failed:
        screen.print(f"[red]{failed} transactions failed")
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three short repetitions, under three minutes")
    parser.add_argument("--json", action="store_true", help="the whole report on stdout instead of the table")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of every cell (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one run (10)")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--servers", type=int, default=8, help="default_pool_size of both poolers (8)")
    parser.add_argument("--script", default="SELECT 1;", help="what one transaction is")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--poolers", nargs="+", default=["pgbouncer", "pgweir"], choices=["pgbouncer", "pgweir"])
    return parser.parse_args()


def available_poolers(wanted: list[Flavour]) -> list[Flavour]:
    """Those that can run here; PgBouncer is fetched from Debian where we may."""
    if "pgbouncer" not in wanted or debian.pgbouncer_version() is not None:
        return list(wanted)
    screen.print("installing Debian's pgbouncer (no service is started)")
    if debian.install_pgbouncer():
        return list(wanted)
    screen.print("[yellow]no PgBouncer here and no way to install it (apt-get, as root): measuring ours alone")
    return [item for item in wanted if item != "pgbouncer"]


@contextlib.contextmanager
def start_pooler(flavour: Flavour, server: PostgresServer, options: argparse.Namespace) -> Iterator[PoolerProcess]:
    settings: dict[str, object] = {
        "auth_type": "trust",
        "pool_mode": "transaction",
        "default_pool_size": options.servers,
        "max_client_conn": options.clients + 20,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    with PoolerProcess(server.port, settings=settings, flavour=flavour) as pooler:
        yield pooler


def measure(
    poolers: dict[Flavour, PoolerProcess], pgbouncer_version: str | None, options: argparse.Namespace
) -> list[Run]:
    pgbench = find_installation().program("pgbench")
    protocols: list[Protocol] = options.protocols
    cells = [(name, mode) for mode in protocols for name in poolers if can(name, mode, pgbouncer_version)]
    runs: list[Run] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with (
        tempfile.NamedTemporaryFile("w", suffix=".sql") as script,
        Progress(*columns, TimeElapsedColumn(), console=screen) as progress,
    ):
        script.write(options.script + "\n")
        script.flush()
        task = progress.add_task("warming up", total=len(cells) * options.repeat)
        for repetition in range(-1, options.repeat):
            # Every second repetition goes the other way round, so that a drift of the machine favours nobody.
            for name, mode in cells if repetition % 2 else reversed(cells):
                progress.update(task, description=f"{name} {mode}" if repetition >= 0 else f"warming up {name}")
                pooler = poolers[name]
                run = run_pgbench(
                    pgbench, Path(script.name), pooler=name, pid=pooler.pid, port=pooler.port, user=USER,
                    database=DATABASE, protocol=mode, clients=options.clients,
                    seconds=options.seconds if repetition >= 0 else 1, repetition=repetition,
                )  # fmt: skip
                if repetition >= 0:
                    runs.append(run)
                    progress.advance(task)
    return runs


def can(name: Flavour, mode: Protocol, pgbouncer_version: str | None) -> bool:
    """PgBouncer knows prepared statements in transaction mode since 1.21."""
    if name == "pgweir" or mode != "prepared" or pgbouncer_version is None:
        return True
    return tuple(int(part) for part in pgbouncer_version.split(".")[:2]) >= (1, 21)


def ratios(runs: list[Run], mode: Protocol) -> list[float]:
    """Ours over PgBouncer's CPU time, each pair from the same repetition."""
    by_key = {(run.pooler, run.repetition): run.cpu_us for run in runs if run.protocol == mode}
    pairs = [(by_key.get(("pgweir", n)), by_key.get(("pgbouncer", n))) for n in sorted({key[1] for key in by_key})]
    return [ours / theirs for ours, theirs in pairs if ours and theirs]


def summary(runs: list[Run]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mode in sorted({run.protocol for run in runs}, key=PROTOCOLS.index):
        cell: dict[str, Any] = {}
        for name in dict.fromkeys(run.pooler for run in runs):
            of_it = [run for run in runs if (run.pooler, run.protocol) == (name, mode)]
            if of_it:
                cell[name] = {
                    "cpu_us": _spread([run.cpu_us for run in of_it]),
                    "user_us": _spread([run.user_us for run in of_it]),
                    "tps": _spread([run.tps for run in of_it]),
                    "latency_ms": _spread([run.latency_ms for run in of_it]),
                }
        if values := ratios(runs, mode):
            cell["ratio"] = _spread(values)
        found[mode] = cell
    return found


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def table(runs: list[Run], report: dict[str, Any]) -> Table:
    load, found = report["load"], report["versions"]
    title = (
        f"{load['clients']} clients over {load['servers']} servers, {load['script']!r}, "
        f"{load['repetitions']} × {load['seconds']:g} s; PostgreSQL {found['postgres']}, "
        f"PgBouncer {found['pgbouncer'] or 'absent'}, {report['machine']['cores']} cores"
    )
    result = Table(title=title, caption="CPU: of the pooler's process, per transaction; ratio: ours over PgBouncer's")
    for column in ("protocol", "pooler", "CPU µs", "of it user", "transactions/s", "latency ms", "ratio"):
        result.add_column(column, justify="left" if column in {"protocol", "pooler"} else "right")
    for mode, cell in report["summary"].items():
        for name in ("pgbouncer", "pgweir"):
            if name in cell:
                figures = cell[name]
                ratio = cell.get("ratio") if name == "pgweir" else None
                result.add_row(
                    mode,
                    name,
                    _show(figures["cpu_us"], 1),
                    f"{figures['user_us']['median']:.1f}",
                    f"{figures['tps']['median']:,.0f}",
                    f"{figures['latency_ms']['median']:.2f}",
                    _show(ratio, 2) if ratio else "",
                )
            elif name == "pgbouncer" and found["pgbouncer"]:
                result.add_row(mode, name, "cannot", "", "", "", "")
        result.add_section()
    return result


def _show(spread: dict[str, float], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f}–{spread['max']:.{digits}f})"


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


def versions(server: PostgresServer, pgbouncer_version: str | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "pgbouncer": pgbouncer_version}
    found["postgres"] = ".".join(str(part) for part in server.installation.version)
    for package in ("pgweir", "uvloop"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found["commit"] = commit.stdout.strip() or None
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkFailed as failure:
        screen.print(f"[red]{failure}")
        sys.exit(1)
