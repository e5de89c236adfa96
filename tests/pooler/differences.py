"""The table of docs/differences-by-scene.md: in which scenes of tests/data_plane PgBouncer 1.18 does something else.

`tests/data_plane/conftest.py` holds Debian's PgBouncer to it; how that is run is in `tests/pooler/differential.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = ROOT / "docs" / "differences-by-scene.md"
VERSION: Final = "1.18"  # of PgBouncer, that the table is about

_ROW: Final = re.compile(r"\| (?P<scene>[^|]+) \| (?P<words>[^|]*)\|")
_FILE: Final = re.compile(r"\*\*(test_\w+)\*\*")
_AT_TIMES: Final = "At times: "
_NOT_ASKED: Final = "Not asked: "


@dataclass(frozen=True)
class Difference:
    """`test` is a function's name, or one of its cases (`test_direct_tls[1.3]`), in `file`; empty: all that is there."""

    file: str
    test: str
    words: str

    @property
    def is_race(self) -> bool:
        return self.words.startswith(_AT_TIMES)

    @property
    def is_asked(self) -> bool:
        return not self.words.startswith(_NOT_ASKED)


def read_table(text: str) -> Mapping[tuple[str, str], Difference]:
    """By file and test. A row says a test's name in words; a row in bold begins a file, and with words is all of it."""
    found: dict[tuple[str, str], Difference] = {}
    file = ""
    for line in text.splitlines():
        row = _ROW.fullmatch(line.strip())
        if row is None or row["scene"] in ("scene", "---"):
            continue
        scene, words = row["scene"].strip(), row["words"].strip()
        heading = _FILE.fullmatch(scene)
        if heading is not None:
            file = heading[1] + ".py"
            if words:
                found[file, ""] = Difference(file, "", words)
            continue
        name, bracket, case = scene.partition("[")
        test = "test_" + name.replace(" ", "_") + bracket + case
        if not file or not words or (file, test) in found:
            raise ValueError(f"{TABLE.name}: {line!r} has no file above it, no words, or stands there twice")
        found[file, test] = Difference(file, test, words)
    return found
