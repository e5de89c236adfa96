"""What a load did and what it cost: pgbench through one pooler, and the CPU time and memory of that pooler's processes.

The figure that holds on a noisy machine is the pooler's own CPU time per transaction, read from /proc before and after.
Throughput and latency are kept beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]


class BenchmarkFailed(Exception):
    """A load did not do what it should; the message is its own."""


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU that a process and its living descendants have used, threads included."""

    user: float
    system: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.system - earlier.system)

    def per(self, transactions: int) -> Figures:
        """Microseconds for each of so many."""
        user, system = (1e6 * part / transactions for part in (self.user, self.system))
        return {"cpu_us": user + system, "user_us": user, "system_us": system}


def cpu_time(pid: int) -> CpuTime:
    user = system = 0.0
    for member in (pid, *descendants(pid)):
        # The command's name may hold spaces and brackets: the fields are counted from the last bracket.
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) * TICK
        system += int(fields[12]) * TICK
    return CpuTime(user, system)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def resident_kib(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in (pid, *descendants(pid)))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


@dataclass(frozen=True)
class Target:
    """Something to connect to. `pid` 0: PostgreSQL itself, of which only the latency is of interest."""

    name: str
    port: int
    pid: int
    user: str = "trusty"
    password: str = ""
    sslmode: str = "disable"
    database: str = "app"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PGPASSWORD": self.password, "PGSSLMODE": self.sslmode, "PGGSSENCMODE": "disable"}

    def cpu(self) -> CpuTime:
        return cpu_time(self.pid) if self.pid else CpuTime(0.0, 0.0)


@dataclass(frozen=True)
class Pgbench:
    """A load that pgbench makes. `script`: SQL of our own, or else `builtin`: one of pgbench's."""

    clients: int
    protocol: str = "simple"
    script: str = "SELECT 1;"
    builtin: str = ""
    reconnect: bool = False
    sampling: float = 0.05  # of the transactions whose latency is looked at

    def run(self, target: Target, seconds: float, program: Path) -> Figures:
        with tempfile.TemporaryDirectory() as scratch:
            return self._run(target, seconds, program, Path(scratch))

    def _run(self, target: Target, seconds: float, program: Path, scratch: Path) -> Figures:
        (scratch / "script.sql").write_text(self.script + "\n")
        command: list[str | Path] = [program, "--no-vacuum", "--protocol", self.protocol]
        command += ["--builtin", self.builtin] if self.builtin else ["--file", scratch / "script.sql"]
        command += ["--client", str(self.clients), "--jobs", str(min(self.clients, os.cpu_count() or 1))]
        command += ["--connect"] if self.reconnect else []
        command += ["--log", "--log-prefix", scratch / "log", "--sampling-rate", str(self.sampling)]
        command += ["--time", str(max(1, round(seconds))), "--host", "127.0.0.1", "--port", str(target.port)]
        command += ["--username", target.user, target.database]
        before = target.cpu()
        what = f"pgbench -M {self.protocol} through {target.name}"
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + 60, env=target.environment
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"{what} hangs: no end 60 s after its time") from None
        used = target.cpu() - before
        transactions = int(_number(r"transactions actually processed: (\d+)", done.stdout))
        if done.returncode != 0 or transactions == 0:
            raise BenchmarkFailed(f"{what}: {done.stderr.strip()[-300:] or done.stdout.strip()}")
        return {
            **used.per(transactions),
            "transactions": transactions,
            "failed": _number(r"failed transactions: (\d+)", done.stdout),
            "tps": _number(r"tps = ([\d.]+)", done.stdout),
            "latency_ms": _number(r"latency average = ([\d.]+)", done.stdout),
            **_percentiles([int(line.split()[2]) for log in scratch.glob("log*") for line in log.open()]),
        }


def _percentiles(microseconds: Sequence[int]) -> Figures:
    if not microseconds:
        return {}
    ordered = sorted(microseconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.50, 0.99))
    return {"p50_ms": p50 / 1000, "p99_ms": p99 / 1000, "tail": p99 / max(1, p50)}


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found.group(1)) if found else 0.0
