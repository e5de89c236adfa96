"""Poolers under GCC's address and undefined-behaviour sanitizers: how one is started, and what they say.

`make sanitize` builds the compiled form with them and names its folder in PGWEIR_TEST_SANITIZED; then every pooler that `process`
starts is that one. The libraries are preloaded for it alone: PostgreSQL's programs hang under them.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

VARIABLE: Final = "PGWEIR_TEST_SANITIZED"
FOLDER: Final = os.environ.get(VARIABLE) or None

_ROOT: Final = Path(__file__).parents[2]
# An error of theirs ends the process; what follows the first line says where the memory came from, and who let it go.
_REPORT: Final = re.compile(r"^.*(?:AddressSanitizer|: runtime error: |Fatal Python error)", re.MULTILINE)
_LONGEST: Final = 12_000


def environment() -> dict[str, str] | None:
    """What such a pooler is started with; None: poolers are the usual ones."""
    if FOLDER is None:
        return None
    libraries = [_library(name) for name in ("libasan.so", "libubsan.so")]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        # CPython keeps much to its end, and lets go of it there. Memory that was let go of stays poisoned for a while.
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=64",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # each object is memory of its own, and no part of an arena
        "PYTHONPATH": os.pathsep.join((str(Path(FOLDER).resolve()), str(_ROOT))),
    }


def report(log: str) -> str | None:
    """What a sanitizer has said in a pooler's log."""
    found = _REPORT.search(log)
    return None if found is None else log[found.start() : found.start() + _LONGEST]


def _library(name: str) -> str:
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()
