"""Every block of the documentation and every command in it: where it stands, and who runs it.

`sh` and `console` blocks hold commands, nothing else does. A command is run where it can be: with files alone, on a machine
with a PostgreSQL and a pooler (tests/docs), against a real API server with fake pods (e2e/control_plane/test_docs.py), on
a real cluster (e2e/scenarios/test_docs.py). What can be run in none of them stands in NOT_RUN, with the reason. What a page
shows behind a command of a `console` block is compared with what the command printed, by its shape (`differs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
)
COMMANDS, FILES = {"sh", "console"}, {"yaml", "ini", "text", "sql"}
"""The languages that a block may name. What is to be typed must be in the first two, or nobody would run it."""


class Where(Enum):
    FILES = "files alone: every runner can"
    HERE = "a machine with a PostgreSQL and a pooler"
    INSTALL = "an API server with nothing installed"
    API = "an API server, an operator and fake pods"
    CLIENT = "a pod with PostgreSQL's client, on a real cluster"
    PODS = "a real cluster"
    NOT = "nowhere: see NOT_RUN"


# Command (from its first word on), and why nobody runs it here. Each is at least read by a shell, and what it names exists.
NOT_RUN: dict[str, str] = {
    r"docker build ": "needs a Docker daemon and a base image from a registry; `make images` builds the same files",
    r"pip install ": "would change the environment that the test runs in; `make venv` and the images install the same extras",
    r"make (test|check|e2e|bench|cluster|differential)\b": "is what runs the tests, or takes its own time in CI",
    r"make demo\b|pgweir demo$": "15 seconds of load; the same with `--seconds 3` is run",
}

RULES: tuple[tuple[str, Where], ...] = (
    (r"helm |kubectl (label|annotate) crd |kubectl apply .*manifests/install\.yaml", Where.INSTALL),
    (r"kubectl (exec|port-forward|logs|run) ", Where.PODS),
    (r"kubectl pgweir (clients|waiters|show|psql|logs|doctor)\b|kubectl pgweir status.* --live", Where.PODS),
    (r".*kubectl ", Where.API),
    (r".*pgweir reload", Where.HERE),
    (r"pgweir (check|import|version)\b|sed |pgweir --help", Where.FILES),
    (r"(PG\w+=\S+ )*(psql|pgbench|pg_isready)\b.*(localhost|127\.0\.0\.1)", Where.HERE),
    (r"(psql|pgbench|pg_isready)\b", Where.CLIENT),
    (r"(PG\w+=\S+ )*(pgweir|pgweir-pooler|pgweir-console|bctl|curl)\b", Where.HERE),
)


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    page: str
    line: int
    text: str
    where: Where
    shown: tuple[str, ...] = ()  # what the page says that it prints

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. A fence that is never closed, or one without a language, is a fault of the page."""
    name = str(page.relative_to(ROOT))
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.fullmatch(r"```(\S*)(?: title=\"([^\"]+)\")?", line)
        if fence is None:
            assert not line.lstrip().startswith("```"), f"{name}:{number}: a fence stands at the start of its line"
            inside.append(line)
        elif opened is None:
            assert fence[1], f"{name}:{number}: the block says no language"
            opened, inside = (number, fence[1], fence[2] or ""), []
        else:
            assert not fence[1], f"{name}:{number}: a block begins inside of one"
            found.append(Block(name, opened[0], opened[1], opened[2], "\n".join(inside) + "\n"))
            opened = None
    assert opened is None, f"{name}: the block of line {opened and opened[0]} does not end"
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a block: lines of `sh`, and what stands behind `$ ` in `console`; a comment at the end is cut.
    Other lines of `console` are what the command above them prints."""
    if block.language not in COMMANDS:
        return []
    found: list[Command] = []
    held = ""
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if block.language == "console" and not held:
            if not line.startswith("$ "):
                if line.strip() and found:
                    found[-1] = replace(found[-1], shown=(*found[-1].shown, line))
                continue
            line = line[2:]
        whole = held + line.strip()
        if whole.endswith("\\"):
            held = whole[:-1]
            continue
        held = ""
        if text := without_comment(whole):
            found.append(Command(block.page, number, text, Where.NOT))
    # What is asked of this machine behind a port-forward is asked of a pod.
    forwarded = next((at for at, each in enumerate(found) if "kubectl port-forward" in each.text), len(found))
    return [
        replace(each, where=Where.PODS if at >= forwarded else where(each.text, each)) for at, each in enumerate(found)
    ]


def without_comment(text: str) -> str:
    return "" if text.startswith("#") else re.sub(r"\s+# .*$", "", text)


def where(text: str, said: object = "") -> Where:
    if any(re.match(pattern, text) for pattern in NOT_RUN):
        return Where.NOT
    for pattern, place in RULES:
        if re.match(pattern, text):
            return place
    raise AssertionError(f"{said or text}: no runner covers this command; give it one, or a line in NOT_RUN")


# What is another one at each run: pods, and numbers with their units.
_SHAPES: tuple[tuple[str, str], ...] = (
    (r"-[0-9a-f]{8,10}-[0-9a-z]{5}\b", "-POD"),
    (r"\d+([.,]\d+)*", "0"),
    (r"\b0 ?(ms|s|m|h|d)\b", "0s"),
    (r"-{2,}|─{2,}", "--"),
    (r"\s+", " "),
)
ANY = "…"
"""A line of a page for any number of lines that are not shown."""


def shape(line: str) -> str:
    for pattern, word in _SHAPES:
        line = re.sub(pattern, word, line)
    return line.strip()


def differs(shown: Iterable[str], said: str) -> str:
    """Which line of a page is not what was printed; "" where all of them are. They stand together, but for `…`."""
    printed = [shape(line) for line in said.splitlines() if line.strip()]
    at, anywhere = 0, True  # what comes before the first line (a warning, say) is not shown
    for line in shown:
        if line.strip() == ANY:
            anywhere = True
            continue
        wanted = shape(line)
        rest = printed[at:] if anywhere else printed[at : at + 1]
        if wanted not in rest:
            return f"the page shows {line!r}, and what is printed has none such there:\n{said}"
        at += rest.index(wanted) + 1
        anywhere = False
    return ""


def files(page: Path) -> dict[str, str]:
    """The files that a page tells to write, by their title."""
    return {block.title: block.text for block in blocks(page) if block.title}


def story(page: Path, *places: Where) -> list[Command]:
    """The commands of a page that one runner takes, in their order."""
    return [command for block in blocks(page) for command in commands(block) if command.where in places]


def pages_with(*places: Where) -> list[Path]:
    return [page for page in PAGES if story(page, *places)]
