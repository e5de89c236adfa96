"""Programs from Debian's packages, unpacked and not installed: the machine stays as it is.

They lie under ${PGWEIR_CACHE:-~/.cache/pgweir}/debian, fetched by apt-get, once. A program that is on the PATH is used before
them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE = 300.0  # of a download


@dataclass(frozen=True)
class Unpacked:
    """A program, and what it needs to run."""

    program: Path
    root: Path  # what its files lie under

    @property
    def environment(self) -> dict[str, str]:
        if self.root == Path("/"):
            return dict(os.environ)
        libraries = sorted({str(path.parent) for path in self.root.glob("usr/lib/*-linux-gnu/**/*.so*")})
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}


def find(package: str, program: str, *, on_path: str, with_libraries: bool = False) -> Unpacked:
    """`program` is its path in the package. Where it cannot be had the test is skipped; in continuous integration it fails."""
    found = shutil.which(on_path)
    if found is not None:
        return Unpacked(Path(found), Path("/"))
    base = Path(os.environ.get("PGWEIR_CACHE") or Path.home() / ".cache/pgweir") / "debian"
    base.mkdir(parents=True, exist_ok=True)
    unpacked = Unpacked(base / package / program, base / package)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.program.exists():
            trouble = _fetch(package, base / package, with_libraries=with_libraries)
            if trouble:
                missing(f"{on_path} is not on PATH, and Debian's {package} cannot be had: {trouble}")
    return unpacked


def missing(reason: str) -> None:
    """Something that this machine lacks: a failure where everything must be there, a skip elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _fetch(package: str, folder: Path, *, with_libraries: bool) -> str:
    """Into the folder, or what went wrong."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "there is no apt-get"
    aside = folder.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "archives" / "partial").mkdir(parents=True)
    command = ["apt-get", "download", package]
    if with_libraries:  # those that the machine does not have
        command = ["apt-get", "install", "--download-only", "--yes", "--no-install-recommends", package]
        command += ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={aside / 'archives'}"]
    for before in (None, ["apt-get", "update"]):
        if before is not None:
            subprocess.run(before, capture_output=True, check=False, timeout=PATIENCE)
        done = subprocess.run(
            command, cwd=aside / "archives", capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        if not done.returncode:
            break
    else:
        return done.stderr.strip()
    for file in (aside / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", file, aside], check=True)
    shutil.rmtree(aside / "archives")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return ""
