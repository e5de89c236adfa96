"""Runs the checks that PGWEIR_CHECKS names and prints one JSON line for each."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

MODE = os.environ["PGWEIR_MODE"]
LIMIT = 20.0  # seconds for one check
EVERY_BYTE = bytes(range(256))
BIG = "0123456789" * 500_000
COPY_LINES = [f"{number}\trow {number}" for number in range(10_000)]
BROKEN_COPY = ["1\n" * 100_000, "no number\n", "2\n" * 100_000]

# A type, and a value as text that PostgreSQL prints again unchanged.
VALUES = [
    ("int2", "-32768"),
    ("int4", "2147483647"),
    ("int8", "-9223372036854775808"),
    ("float8", "0.1"),
    ("numeric", "12345678901234567890.123456789"),
    ("bool", "true"),
    ("text", "Grüße 🐘 ' \" \\ $1 \n\t;"),
    ("text", ""),
    ("date", "2026-02-28"),
    ("timestamp", "2026-02-28 23:59:59.999999"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("jsonb", '{"a": [1, 2.50, null], "ü": "\\n"}'),
    ("int4[]", "{1,NULL,-3}"),
    ("text[]", '{plain,"with \\"quotes\\"",NULL,"NULL",""}'),
    ("bytea", "\\x0001ff5c27"),
]


def same(what: str, got: object, want: object) -> None:
    assert got == want, f"{what}: got {str(got)[:200]}, want {str(want)[:200]}"


def run(checks: Mapping[str, Callable[[], object]]) -> None:
    """One after the other, synchronous ones."""
    for name in os.environ["PGWEIR_CHECKS"].split(","):
        began = time.monotonic()
        try:
            checks[name]()
            _say(name, began)
        except Exception as error:
            _say(name, began, error)


async def run_async(checks: Mapping[str, Callable[[], Awaitable[Any]]]) -> None:
    """One after the other, coroutines."""
    for name in os.environ["PGWEIR_CHECKS"].split(","):
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):
                await checks[name]()
            _say(name, began)
        except Exception as error:
            _say(name, began, error)


def _say(name: str, began: float, error: Exception | None = None) -> None:
    answer: dict[str, object] = {"check": name, "ok": error is None, "seconds": round(time.monotonic() - began, 3)}
    if error is not None:
        answer["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exception(error, file=sys.stderr)
    print(json.dumps(answer), flush=True)
