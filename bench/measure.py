"""One run: pgbench through one pooler, and what that cost the pooler's process.

The figure that holds on a noisy machine is the pooler's own CPU time per transaction, read from /proc before and
after. Throughput and latency are kept beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Protocol = Literal["simple", "extended", "prepared"]
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU that a process and its living descendants have used, threads included."""

    user: float
    system: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.system - earlier.system)


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


@dataclass(frozen=True)
class Run:
    """What one run of pgbench gave."""

    pooler: str
    protocol: Protocol
    repetition: int
    seconds: float
    transactions: int
    failed: int
    tps: float
    latency_ms: float
    user_us: float
    system_us: float

    @property
    def cpu_us(self) -> float:
        """Microseconds of the pooler's CPU for one transaction."""
        return self.user_us + self.system_us

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "cpu_us": self.cpu_us}


class BenchmarkFailed(Exception):
    """pgbench did not do what it should; the message is its own."""


def run_pgbench(
    pgbench: Path,
    script: Path,
    *,
    pooler: str,
    pid: int,
    port: int,
    user: str,
    database: str,
    protocol: Protocol,
    clients: int,
    seconds: float,
    repetition: int,
) -> Run:
    command: list[str | Path] = [pgbench, "--no-vacuum", "--file", script, "--protocol", protocol]
    command += ["--client", str(clients), "--jobs", str(min(clients, os.cpu_count() or 1)), "--time", str(int(seconds))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--username", user, database]
    before = cpu_time(pid)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"pgbench -M {protocol} through {pooler} hangs: no end 60 s after its time") from None
    used = cpu_time(pid) - before
    transactions = int(_number(r"transactions actually processed: (\d+)", done.stdout))
    if done.returncode != 0 or transactions == 0:
        raise BenchmarkFailed(f"pgbench -M {protocol} through {pooler}: {done.stderr.strip() or done.stdout.strip()}")
    return Run(
        pooler=pooler,
        protocol=protocol,
        repetition=repetition,
        seconds=seconds,
        transactions=transactions,
        failed=int(_number(r"failed transactions: (\d+)", done.stdout)),
        tps=_number(r"tps = ([\d.]+)", done.stdout),
        latency_ms=_number(r"latency average = ([\d.]+)", done.stdout),
        user_us=used.user / transactions * 1e6,
        system_us=used.system / transactions * 1e6,
    )


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found.group(1)) if found else 0.0
