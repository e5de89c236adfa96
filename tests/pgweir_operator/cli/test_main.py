"""The program as a whole: its help, the shell's completion, and the page that is written from it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.pgweir_operator.cli.test_files import pgweir

from pgweir.admin.tables import TABLES
from pgweir_operator.cli.plugin.main import complete
from pgweir_operator.cli.reference import cli_reference, programs

ROOT = Path(__file__).parents[3]
COMMANDS = [(name, word) for name, program in programs().items() for word in program.commands]


def test_the_reference_page_is_what_the_program_says() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == cli_reference(), "write it anew: python -m pgweir_operator.cli.reference > docs/cli.md"


@pytest.mark.parametrize(("program", "word"), COMMANDS)
def test_every_command_has_help_with_an_example_and_every_option_says_what_it_is(program: str, word: str) -> None:
    command = programs()[program].commands[word]
    assert word == "version" or "\b\nExample" in command.help, f"{program} {word}"
    for parameter in command.params:
        assert parameter.help, parameter.name


def test_help_is_there_at_once_because_nothing_else_is_loaded() -> None:
    listed = "import sys; from pgweir_operator.cli.main import app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, timeout=200, check=True)
    assert not {"psycopg", "kubernetes", "kopf", "aiohttp", "pydantic"} & set(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_installs_itself_for_the_shell(shell: str, tmp_path: Path) -> None:
    done = completing(tmp_path, "--install-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "PGWEIR_COMPLETE" in path.read_text().upper()]
    assert written, list(tmp_path.rglob("*"))


def test_completion_knows_the_commands_and_the_tables(tmp_path: Path) -> None:
    asked = {"_PGWEIR_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "pgweir sh"}
    assert completing(tmp_path, **asked).stdout.split() == ["show"]
    asked |= {"COMP_CWORD": "2", "COMP_WORDS": "pgweir show pool_"}
    expected = [name.lower() for name in TABLES if name.startswith("POOL_")]
    assert completing(tmp_path, **asked).stdout.split() == expected


def test_the_plugin_and_its_completion_are_programs_that_kubectl_finds() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in ("kubectl-pgweir", "kubectl_complete-pgweir"):
        module, _, function = scripts[name].partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(("words", "expected"), [(["st"], "status\n:4\n"), (["status", "x"], ":4\n")])
def test_kubectl_is_told_the_plugins_words(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-pgweir", *words])
    complete()
    assert capsys.readouterr().out == expected


def completing(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.argv[0] = 'pgweir'; from pgweir_operator.cli.main import app; app(prog_name='pgweir')"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_wrong_command_line_is_exit_code_2() -> None:
    assert pgweir("show")[0] == 2
    assert pgweir("pause", "--timeout", "soon")[0] == 2
    assert pgweir("run", "-f", "x", "--listen", "6432")[0] == 2
    assert pgweir("run", "-f", "/nowhere/p.yaml")[0] == 2
