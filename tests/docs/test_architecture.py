"""What ARCHITECTURE.md, CONTRIBUTING.md and README.md name is there: every path, every room, every word of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")
# Where a new engineer looks for a name, and what is nobody's source.
HOMES = ("operator", "pooler_image", "tests", "e2e", "bench", "docs", "charts", "manifests", "crds", ".ci")
ENDINGS = (".py", ".pxd", ".md", ".mk", ".sh", ".yaml", ".json", ".toml", ".ini", ".html")
_PATH = re.compile(r"\.?[\w-]+(?:/[\w.-]+)+/?")
_WORDS = re.compile(r"[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)+")


@cache
def files() -> dict[str, Path]:
    """Every file and folder, by its path from the root."""
    found = [path for home in HOMES for path in (ROOT / home).rglob("*") if "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)): path for path in [*found, *ROOT.iterdir()]}


@cache
def source() -> str:
    homes = ("operator/", "pooler_image/", "tests/")
    return "\n".join(
        path.read_text()
        for name, path in files().items()
        if name.startswith(homes) and path.suffix == ".py" and "_compiled" not in name
    )


def named(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for word in re.findall(r"`([^`\n]+)`", (ROOT / page).read_text()):
            if pattern.fullmatch(word):
                yield page, word


def is_there(path: str) -> bool:
    bare = path.rstrip("/")
    ends = (bare, f"{bare}.py")
    return any(name in ends or name.endswith(tuple(f"/{end}" for end in ends)) for name in files())


@pytest.mark.parametrize(("page", "path"), sorted(set(named(_PATH))))
def test_every_path_leads_somewhere(page: str, path: str) -> None:
    room, _, thing = path.rpartition(".")
    if path.startswith("build/"):
        return  # what a command makes
    assert is_there(path) or (is_there(room) and re.search(rf"\b{thing}\b", source())), f"{page}: {path}"


@pytest.mark.parametrize(("page", "word"), sorted(set(named(_WORDS))))
def test_every_name_of_the_code_is_one(page: str, word: str) -> None:
    if word.endswith(ENDINGS):
        assert is_there(word), f"{page}: {word}"
        return
    *_, last = word.split(".")
    assert is_there(word.replace(".", "/")) or re.search(rf"\b{last}\b", source()), f"{page}: {word}"
