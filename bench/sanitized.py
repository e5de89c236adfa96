"""`make sanitize`: both forms of the hot rooms side by side, in a process that has the sanitizers' libraries loaded.

WHY a program of its own: those libraries are preloaded, and what is preloaded is handed on to children. The tests' fixtures ask
PostgreSQL's programs for their version, and these hang under a preloaded address sanitizer: so nothing is handed on, and no
fixture of the whole suite is loaded.
"""

from __future__ import annotations

import os
import sys

import pytest

from pgweir import compiled


def main() -> int:
    os.environ.pop("LD_PRELOAD", None)
    if compiled.FOLDER is None:
        print(f"nothing to look at: {compiled.WHY_PLAIN}")
        return 1
    print(f"sanitized: {compiled.FOLDER}")
    options = ["-q", "-s", "-n", "0", "-p", "no:cacheprovider", "--noconftest"]
    return int(pytest.main([*options, "tests/pgweir/session/test_both_forms.py"]))


if __name__ == "__main__":
    sys.exit(main())
