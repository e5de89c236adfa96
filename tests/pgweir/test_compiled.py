"""The compiled form of the hot rooms: chosen when it was made of these very sources, complete in its declarations, and with no
call that would leave an object to be freed while it works."""

from __future__ import annotations

import ast
import functools
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
        elif names := re.match(r"    cdef (?:public \w+(?:\[\d+\])?|object(?= __weakref__$)) ([\w, ]+)$", line):
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


# --- what keeps an object alive while it works -------------------------------------------------------------------------


def c_methods() -> dict[str, set[str]]:
    """The methods of each C type that are called without Python."""
    found: dict[str, set[str]] = {}
    for module in compiled.MODULES:
        methods: set[str] = set()
        for line in (ROOT / f"{module}.pxd").read_text().splitlines():
            if head := re.match(r"cdef class (\w+)", line):
                methods = found.setdefault(head[1], set())
            elif line and not line.startswith(" "):
                methods = set()
            elif method := re.match(r"    (?:cdef|cpdef) (?:\w+ )?(\w+)\(", line):
                methods.add(method[1])
    return found


def typed_attributes() -> dict[str, dict[str, str]]:
    """By name: the classes that have an attribute of this name and a C type, and that type."""
    types = set(c_methods())
    found: dict[str, dict[str, str]] = {}
    owner = ""
    for module in compiled.MODULES:
        for line in (ROOT / f"{module}.pxd").read_text().splitlines():
            if head := re.match(r"cdef class (\w+)", line):
                owner = head[1]
            elif (attribute := re.match(r"    cdef public (\w+) ([\w, ]+)$", line)) and attribute[1] in types:
                for name in attribute[2].split(", "):
                    found.setdefault(name, {})[owner] = attribute[1]
    return found


MAKING = ("__init__", "_begin_record", "_begin_holder")  # the last two are called by the first, of those who inherit


def replaced_later(source: str, typed: dict[str, dict[str, str]]) -> set[str]:
    """Which of these attributes are given another value by anything but the making of their own object."""
    found = set()
    for room in ast.parse(source).body:
        for function in ast.walk(room):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            numbers = {
                target
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and node.value.value is not None
                for target in node.targets
            }  # `exchange.transactions = 0` replaces no histogram of that name
            for node in ast.walk(function):
                if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Load) or node in numbers:
                    continue
                owners = typed.get(node.attr, {})
                if isinstance(node.value, ast.Name) and node.value.id == "self" and isinstance(room, ast.ClassDef):
                    if room.name in owners and function.name not in MAKING:
                        found.add(node.attr)
                elif owners:
                    found.add(node.attr)
    return found


def calls_that_hold_nothing(source: str, methods_of: dict[str, set[str]]) -> list[str]:
    """`x.attribute.method()`, where that is a call of C and the attribute may be given another value meanwhile."""
    return [
        f"line {node.lineno}: {ast.unparse(node.func)}()"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and node.func.attr in methods_of.get(node.func.value.attr, ())
    ]


@functools.cache
def changing_attributes() -> dict[str, set[str]]:
    """By name: attributes of a C type that are given another value during their object's life, and that type's C methods."""
    typed, methods = typed_attributes(), c_methods()
    sources = [path.read_text() for path in ROOT.rglob("*.py") if "_compiled" not in path.parts]
    replaced = set().union(*(replaced_later(source, typed) for source in sources))
    return {name: set().union(*(methods[kind] for kind in typed[name].values())) for name in replaced}


@pytest.mark.parametrize("module", compiled.MODULES)
def test_an_object_at_work_is_kept_by_a_name_of_its_own(module: str) -> None:
    """Compiled, `self._proof.begin()` holds no reference to what `_proof` was: where `begin` leads to somebody who lets it go,
    the method goes on in memory that is free. (Arguments, Python's own calls and names of a function are held.)"""
    assert not calls_that_hold_nothing((ROOT / f"{module}.py").read_text(), changing_attributes())


def test_that_would_be_seen() -> None:
    """The fault that there was (a password in pieces), in four lines; the names that it is about are those of today."""
    changing = changing_attributes()
    assert {"begin", "data_received"} <= changing["_proof"]
    assert "exchange" not in changing  # a server's is one for life
    once = (
        "class ClientLogin:\n def data_received(self, data):\n  assert self._proof\n  self._proof.data_received(data)"
    )
    assert calls_that_hold_nothing(once, changing) == ["line 4: self._proof.data_received()"]
    assert not calls_that_hold_nothing(
        "def now(self, data):\n proof = self._proof\n proof.data_received(data)", changing
    )


@pytest.mark.parametrize("module", [*compiled.MODULES, *compiled.INLINED])
def test_no_room_does_without_what_python_would_check(module: str) -> None:
    """Bounds, None, references that the collector follows, errors that reach their caller. (libuv takes no exception.)"""
    unsafe = "boundscheck|wraparound|cdivision|nonecheck|initializedcheck|no_gc|nogc|freelist"
    unsafe += "" if module == "net/calls" else "|noexcept"
    for suffix in (".py", ".pxd"):
        assert not re.findall(rf"\b(?:{unsafe})", (ROOT / f"{module}{suffix}").read_text())


def test_what_is_none_has_no_attributes_in_the_compiled_form_either() -> None:
    """Cython would take what stands in memory behind None for the object that was declared, and end the process."""
    timings = importlib.import_module("pgweir.pool.stats").Timings
    with pytest.raises(AttributeError):
        timings.__new__(timings).observe(1.0)


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
        timeout=200,
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
