"""The exit codes of `pgweir` and `kubectl pgweir`, which mean the same everywhere. docs/cli.md has them from here."""

from __future__ import annotations

from typing import Final

from pgweir_operator.doctor.findings import Class

DONE: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2
UNREACHABLE: Final = 3
DEADLINE: Final = 4

MEANINGS: Final = {
    DONE: "done",
    FAILED: "it was refused or failed, or (`check`, `import`) something has to be decided or mended",
    UNUSABLE: "the command line, or a file that it names, cannot be used",
    UNREACHABLE: "no connection, no login or no rights: nothing was done",
    DEADLINE: "it was not reached in the time given; the message says how things stand",
    **{kind.exit_code: f"`doctor`: {kind.meaning}" for kind in Class},
}
