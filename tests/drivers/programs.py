"""The drivers' programs: how each is built, where the result is kept, how it is run.

Builds are kept under ${PGWEIR_CACHE:-~/.cache/pgweir}/drivers, each under a hash of its sources and its tools' versions,
so that only the first run on a machine pays for them. A toolchain that is missing skips the driver, with the reason;
in continuous integration (CI=true) it fails.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CHECK_TIMEOUT = 60.0  # of one whole program; each check has a limit of its own inside
BUILD_TIMEOUT = 900.0
# Builds of other days are of no use to anybody once nobody has asked for them for this long.
KEEP_DAYS = 14


@dataclass(frozen=True, eq=False)  # two programs are never the same one
class Program:
    """One driver's program. `build` makes it in a folder, `command` runs it from there."""

    driver: str
    sources: str
    tools: Mapping[str, Sequence[str]]  # program on PATH, and how it says its version
    build: Callable[[Path], None]
    command: Callable[[Path], list[str]]

    def ready(self) -> Path:
        """The folder with the built program; built now if need be."""
        for tool in self.tools:
            if shutil.which(tool) is None:
                missing(f"{self.driver} needs {tool}, which is not on PATH")
        return _built(self)


def missing(reason: str) -> None:
    """Something that this machine lacks: a failure where everything must be there, a skip elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run(program: Program, environment: Mapping[str, str], checks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run the program once; what it said about each check."""
    folder = program.ready()
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    surroundings |= {**environment, "PGWEIR_CHECKS": ",".join(checks)}
    try:
        done = subprocess.run(
            program.command(folder), env=surroundings, cwd=folder, capture_output=True, text=True, timeout=CHECK_TIMEOUT
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(), (late.stderr or b"").decode()
        raise AssertionError(f"{program.driver} did not end; it said:\n{said[0]}\n{said[1]}") from None
    assert done.returncode == 0, f"{program.driver} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["check"]: line for line in lines}


def cache_folder() -> Path:
    base = os.environ.get("PGWEIR_CACHE") or Path.home() / ".cache" / "pgweir"
    return Path(base) / "drivers"


@functools.cache
def _built(program: Program) -> Path:
    folder = cache_folder() / f"{program.sources}-{_key(program)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time():
        if not (folder / ".built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(HERE / program.sources, folder)
            program.build(folder)
            (folder / ".built").touch()
            _forget_old_builds(folder)
        os.utime(folder)
    return folder


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Among all processes here: two compilers at once are too many for two cores."""
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key(program: Program) -> str:
    found = hashlib.sha256()
    for path in sorted((HERE / program.sources).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
    for tool, version in program.tools.items():
        answer = subprocess.run([tool, *version], capture_output=True, check=False)
        found.update(answer.stdout + answer.stderr)
    return found.hexdigest()[:16]


def _forget_old_builds(keep: Path) -> None:
    horizon = time.time() - KEEP_DAYS * 86400
    for folder in keep.parent.iterdir():
        if folder.is_dir() and folder != keep and folder.stat().st_mtime < horizon:
            shutil.rmtree(folder, ignore_errors=True)


def _do(folder: Path, *command: str, **environment: str) -> None:
    done = subprocess.run(
        ["nice", *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"


# -- the programs -------------------------------------------------------------------------------------------------


def _build_go(folder: Path) -> None:
    _do(folder, "go", "build", "-o", "bin/", "./pgx", "./libpq")


def _build_node(folder: Path) -> None:
    # No lock file: it would name the registry. package.json names exact versions.
    _do(folder, "npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev")


def _build_java(folder: Path) -> None:
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    _do(folder, "mvn", "-q", "-B", "-ntp", plugin, "-DoutputDirectory=lib")
    _do(folder, "javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Suite.java")


def _java(folder: Path) -> list[str]:
    # Two cores: the quick compiler is enough, and one collector thread.
    tuning = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    return ["java", *tuning, "-Dfile.encoding=UTF-8", "-cp", f"{folder}/classes:{folder}/lib/*", "Suite"]


def _build_rust(folder: Path) -> None:
    # No lock file: it would name the registry. Cargo.toml names exact versions of what matters.
    _do(folder, "cargo", "build", "--quiet", CARGO_TARGET_DIR=str(folder / "target"))
    shutil.copy(folder / "target" / "debug" / "driver-checks", folder / "driver-checks")
    shutil.rmtree(folder / "target")


def _build_nothing(folder: Path) -> None:
    """The drivers are in the tests' own virtual environment."""


def _python(script: str) -> Callable[[Path], list[str]]:
    return lambda folder: [sys.executable, str(folder / script)]


_GO = {"go": ["version"]}
_JAVA = {"java": ["-version"], "javac": ["-version"], "mvn": ["--version"]}
_RUST = {"cargo": ["--version"], "rustc": ["--version"], "cc": ["--version"]}
_NODE = {"node": ["--version"], "npm": ["--version"]}
_PYTHON = {sys.executable: ["--version"]}

PROGRAMS: Mapping[str, Program] = {
    program.driver: program
    for program in (
        Program("pgx", "go", _GO, _build_go, lambda folder: [str(folder / "bin" / "pgx")]),
        Program("pgjdbc", "java", _JAVA, _build_java, _java),
        Program("tokio-postgres", "rust", _RUST, _build_rust, lambda folder: [str(folder / "driver-checks")]),
        Program("node-postgres", "node", _NODE, _build_node, lambda folder: ["node", str(folder / "pg.mjs")]),
        Program("postgres-js", "node", _NODE, _build_node, lambda folder: ["node", str(folder / "postgres.mjs")]),
        Program("psycopg", "python", _PYTHON, _build_nothing, _python("psycopg_sync.py")),
        Program("psycopg-async", "python", _PYTHON, _build_nothing, _python("psycopg_async.py")),
        Program("asyncpg", "python", _PYTHON, _build_nothing, _python("asyncpg_suite.py")),
        Program("libpq-go", "go", _GO, _build_go, lambda folder: [str(folder / "bin" / "libpq")]),
    )
}
