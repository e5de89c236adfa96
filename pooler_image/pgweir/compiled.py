"""Which form of the hot rooms runs: the plain Python files, or the same files compiled by Cython.

`setup.py` compiles MODULES where a C compiler is, and puts the results into a folder whose name is the digest of what they
were made of. A package that has such rooms says `prefer(__path__)`, and Python's own import finds the compiled ones first. A
file that was changed since has another digest: then nothing is found, and everything runs plain. Both forms never mix.

PGWEIR_PLAIN=1 forces the plain form, at installation (nothing is built) and at run time (nothing is looked for).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import MutableSequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

# Paths in the package, without suffix. Each has a `.pxd` beside it, which gives its classes and locals C types.
MODULES: Final = (
    "pool/records",
    "pool/stats",
    "pool/turns",
    "protocol/prepared",
    "protocol/exchange",
    "session/wire",
    "session/essentials",
    "session/holder",
    "session/server",
    "session/rewriting",
    "session/client",
    # A login, and its end.
    "session/roster",
    "session/overflow",
    "protocol/cancel_keys",
    "session/cancels",
    "protocol/reader",
    "protocol/auth/scram",
    "protocol/auth/client_auth",
    "session/turns",
    "session/lookup",
    "session/credentials",
    "session/parts",
    "session/client_proof",
    "session/startups",
    "session/client_login",
    # Under them.
    "net/libuv",
    "net/channel",
    "net/streams",
    "net/stream",
    "net/door",
    "net/listener",
)
# What is put in line from a room that is not compiled itself.
INLINED: Final = ("protocol/framing", "net/calls", "net/delivery")
# How they are translated. Annotations are mypy's; C types are given by the .pxd files alone. What is None where an object was
# declared is an AttributeError, as in the plain form; else Cython would take whatever stands behind None for its fields.
DIRECTIVES: Final = {"language_level": 3, "annotation_typing": False, "nonecheck": True}
PLAIN_VARIABLE: Final = "PGWEIR_PLAIN"

_ROOT: Final = Path(__file__).parent


def wants_plain() -> bool:
    return os.environ.get(PLAIN_VARIABLE, "") not in ("", "0")


def digest(root: Path) -> str:
    """Of the sources under this folder (the package's), and of how they are translated."""
    found = hashlib.sha256(repr(DIRECTIVES).encode())
    for module in (*MODULES, *INLINED):
        for suffix in (".py", ".pxd"):
            text = (root / f"{module}{suffix}").read_bytes()
            found.update(f"{module}{suffix} {len(text)}\n".encode() + text)
    return found.hexdigest()[:16]


def folder_name(sources: str) -> str:
    """Of what is made of the sources with this digest; a Python name, since the build takes it for a package's."""
    return f"of_{sources}"


def _find() -> tuple[Path | None, str]:
    """The folder with the compiled rooms, and, where there is none, why."""
    if wants_plain():
        return None, f"{PLAIN_VARIABLE} is set"
    made = _ROOT / "_compiled"
    try:
        folder = made / folder_name(digest(_ROOT))
    except OSError as error:
        return None, f"{error.filename} cannot be read"
    if all(any((folder / f"{module}{suffix}").exists() for suffix in EXTENSION_SUFFIXES) for module in MODULES):
        return folder, ""
    if made.is_dir() and any(made.iterdir()):
        return None, "the sources, or Python, are others than those it was built of; install again"
    return None, "it was not built: there was no C compiler, or no Python headers"


_found: Final = _find()
FOLDER: Final = _found[0]
WHY_PLAIN: Final = _found[1]  # "" in the compiled form
FORM: Final = "plain" if FOLDER is None else "compiled"


def prefer(path: MutableSequence[str]) -> None:
    """Have a package's compiled rooms found before its plain ones. `path` is its `__path__`."""
    if FOLDER is not None:
        path.insert(0, str(FOLDER / Path(path[0]).relative_to(_ROOT)))


if __name__ == "__main__":  # for `make` and people: is it built, and of these sources?
    print(f"{FORM}: {FOLDER or WHY_PLAIN}")
    raise SystemExit(0 if FOLDER is not None or wants_plain() else 1)
