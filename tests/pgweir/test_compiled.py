"""The compiled form of the hot rooms: chosen when it was made of these very sources, and complete in its declarations."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pgweir
from pgweir import compiled

ROOT = Path(pgweir.__file__).parent


def classes(module: str) -> dict[str, set[str]]:
    """The classes of a room with their `__slots__`."""
    found: dict[str, set[str]] = {}
    for node in ast.parse((ROOT / f"{module}.py").read_text()).body:
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__slots__":
                    named = line.value.id if isinstance(line.value, ast.Name) else None
                    room = importlib.import_module(f"pgweir.{module.replace('/', '.')}")
                    found[node.name] = set(getattr(room, named) if named else ast.literal_eval(line.value))
    return found


def declared(module: str) -> dict[str, set[str]]:
    """The classes that the room's .pxd declares, with their attributes."""
    found: dict[str, set[str]] = {}
    attributes: set[str] = set()
    for line in (ROOT / f"{module}.pxd").read_text().splitlines():
        if head := re.match(r"cdef class (\w+)", line):
            attributes = found[head[1]] = set()
        elif names := re.match(r"    cdef public \w+(?:\[\d+\])? ([\w, ]+)$", line):
            attributes.update(names[1].split(", "))
    return found


@pytest.mark.parametrize("module", compiled.MODULES)
def test_every_attribute_of_a_hot_class_is_declared_for_the_compiler(module: str) -> None:
    slots = classes(module)
    for name, attributes in declared(module).items():
        assert attributes == slots[name], f"{module}.py and {module}.pxd do not name the same attributes of {name}"


@pytest.mark.parametrize("module", compiled.MODULES)
def test_the_form_that_was_asked_for_is_the_one_that_runs(module: str) -> None:
    file = importlib.import_module(f"pgweir.{module.replace('/', '.')}").__file__
    assert file is not None
    assert (Path(file).suffix == ".py") == (compiled.FORM == "plain")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    shutil.copytree(ROOT, tmp_path / "pgweir", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def form_of(tree: Path, **environment: str) -> str:
    program = "from pgweir import compiled; import pgweir.session.client; print(compiled.FORM, '|', compiled.WHY_PLAIN)"
    kept = {name: value for name, value in os.environ.items() if name != compiled.PLAIN_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "PYTHONPATH": str(tree), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


built = pytest.mark.skipif(compiled.FOLDER is None, reason=f"plain: {compiled.WHY_PLAIN}")


@built
def test_what_was_built_of_these_sources_is_used(tree: Path) -> None:
    assert form_of(tree) == "compiled |"


@built
def test_the_variable_forces_the_plain_form(tree: Path) -> None:
    assert form_of(tree, PGWEIR_PLAIN="1") == "plain | PGWEIR_PLAIN is set"


@built
@pytest.mark.parametrize("changed", ["protocol/exchange.py", "session/client.pxd", "protocol/framing.pxd"])
def test_what_was_built_of_other_sources_is_never_used(tree: Path, changed: str) -> None:
    with (tree / "pgweir" / changed).open("a") as file:
        file.write("\n# a change\n")
    assert form_of(tree).startswith("plain | the sources")


@built
def test_a_part_of_what_was_built_is_not_used(tree: Path) -> None:
    for file in (tree / "pgweir" / "_compiled").rglob("client.*"):
        file.unlink()
    assert form_of(tree).startswith("plain |")


def test_without_a_compiler_the_plain_form_runs_and_says_why(tree: Path) -> None:
    shutil.rmtree(tree / "pgweir" / "_compiled", ignore_errors=True)
    assert form_of(tree) == "plain | it was not built: there was no C compiler, or no Python headers"
