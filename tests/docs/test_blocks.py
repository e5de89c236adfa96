"""No block of the documentation is overlooked: what is typed has somebody who runs it, what is written down is checked."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.docs.blocks import COMMANDS, FILES, NOT_RUN, PAGES, ROOT, Where, blocks, commands, differs, story, where
from typer.testing import CliRunner

from pgweir_operator.cli import screen
from pgweir_operator.cli.diagnosed import report
from pgweir_operator.cli.main import app
from pgweir_operator.cli.reference import programs
from pgweir_operator.doctor.facts import Facts, Tables, Timing

NAMED = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]
ALL = [command for page in PAGES for block in blocks(page) for command in commands(block)]


@pytest.mark.parametrize("page", NAMED)
def test_every_block_has_a_language_and_every_command_somebody_who_runs_it(page: Path) -> None:
    for block in blocks(page):
        assert block.language in COMMANDS | FILES, f"{block.place}: nobody checks a block of {block.language}"
        if block.language in COMMANDS:
            assert commands(block), f"{block.place}: no line of it is a command"


def test_a_command_that_no_runner_knows_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="no runner covers"):
        where("frobnicate --now")


def test_every_runner_has_its_pages() -> None:
    for place in Where:
        assert any(story(page, place) for page in PAGES), place


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command.text) for command in ALL), pattern


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_shell_can_read_it(command: object) -> None:
    text = command.text  # type: ignore[attr-defined]
    done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def test_what_is_not_run_names_what_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in ALL:
        if command.where is not Where.NOT:
            continue
        if docker := re.match(r"docker build -f (\S+) +--build-arg (\w+)=", command.text):
            assert f"ARG {docker[2]}=" in (ROOT / docker[1]).read_text(), command
        elif pip := re.match(r"pip install '\.\[([a-z,]+)\]'", command.text):
            assert set(pip[1].split(",")) <= set(extras), command
        elif command.text.startswith("make "):
            done = subprocess.run(
                ["make", "-n", *command.text.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
        else:
            assert command.text == "pgweir demo", f"{command}: how is it looked at?"


# --- what is written in passing, between backticks ---------------------------------------------------------------------------


def passing() -> list[tuple[Path, str]]:
    """Commands of ours, of `make` and of `python -m` that stand in a sentence."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for words in re.findall(r"`((?:pgweir|kubectl pgweir|make|python -m) [^`]+)`", text):
            found.append((page, words))
    return found


def test_a_command_in_a_sentence_is_one_that_exists() -> None:
    known = programs()
    targets = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    seen = 0
    for page, words in passing():
        name, rest = re.match(r"(pgweir|kubectl pgweir|make|python -m) (.*)", words).groups()  # type: ignore[union-attr]
        seen += 1
        first = rest.split()[0]
        if name == "make":
            assert first in targets, (page, words)
        elif name == "python -m":
            subprocess.run([sys.executable, "-c", f"import {first}"], check=True)
        elif first != "[OPTIONS]" and not first.startswith("--"):
            assert first in known[name].commands, (page, words)
            options = {
                each for param in known[name].commands[first].params for each in (*param.opts, *param.secondary_opts)
            }
            for option in re.findall(r"(?<!\S)(--[a-z-]+)", rest.split(" -- ")[0]):
                assert option in options, (page, words)
    assert seen > 20


# --- files -----------------------------------------------------------------------------------------------------------


def written(language: str) -> list[object]:
    found = [block for page in PAGES for block in blocks(page) if block.language == language]
    return [pytest.param(block.text, id=block.place) for block in found]


@pytest.mark.parametrize("text", written("yaml"))
def test_every_manifest_is_one_that_the_operator_takes(text: str, tmp_path: Path) -> None:
    """A piece of one is put where its indentation says: into the spec."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    if "kind" not in documents[0]:
        assert text.startswith("  "), "a piece of a Pooler is indented as it stands in its spec"
        target = {"cluster": {"name": "cluster-example"}}
        documents = [{"kind": "Pooler", "metadata": {"name": "pooler-example-rw"}, "spec": {**target, **documents[0]}}]
    documents[0]["apiVersion"] = "pgweir.io/v1"  # from-cloudnativepg.md has one as it was before
    file = tmp_path / "pooler.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("text", written("ini"))
def test_every_ini_has_a_form(text: str) -> None:
    """What it means is for the commands that read it."""
    configparser.ConfigParser(interpolation=None).read_string(text if text.startswith("[") else f"[all]\n{text}")


def test_every_alert_of_the_chart_has_its_line_of_what_to_do() -> None:
    files = (ROOT / "charts/pgweir/files").glob("*alerts.yaml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    page = (ROOT / "docs/how-to/monitoring.md").read_text()
    assert set(re.findall(r"^\| `(Pgweir\w+)` \|", page, re.MULTILINE)) == alerts


# --- what a page shows -----------------------------------------------------------------------------------------------


SAID = "warning: slow\nname    pods  age\npooler-example-rw-7d9f8b6c5d-x2x4z   2/2   13 s\n2 rows\n"


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        (["name  pods  age", "pooler-example-rw-67bf6dd5c7-4jbm5 3/3 250 ms", "1 rows"], ""),
        (["name  pods  age", "…", "2 rows"], ""),
        (["name  pods  age", "2 rows"], "'2 rows'"),
        (["name  size"], "'name  size'"),
        (["2 rows", "…", "name  pods  age"], "'name  pods  age'"),
    ],
)
def test_what_is_shown_has_the_shape_of_what_is_printed(shown: list[str], fault: str) -> None:
    found = differs(shown, SAID)
    assert fault in found
    assert bool(fault) == bool(found)


def test_the_finding_that_a_page_shows_is_printed_so(capsys: pytest.CaptureFixture[str]) -> None:
    """No page can have a command that finds it: the doctor's own words for the same facts."""
    (example,) = [block for block in blocks(ROOT / "docs/how-to/troubleshooting.md") if block.language == "text"]
    waiter = {
        "pod": "pooler-example-rw-67bf6dd5c7-9d8s9",
        "limit": "pool_size",
        "reason": "pool_size=2: all 2 servers are taken",
        "holder": "app",
        "holder_addr": "10.244.0.17:40312",
        "holder_application_name": "month_end",
        "holder_state": "active",
        "holder_seconds": 95,
        "holder_client_id": 4,
        "holder_pid": 1311,
        "wait": 5,
        "wait_us": 0,
    }
    facts = Facts(timing=Timing(waiter=waiter), tables=Tables(waiters=(waiter,) * 3))
    screen.fresh()
    assert report(facts, (), as_json=False) == 14
    assert not differs(example.text.splitlines(), capsys.readouterr().out)


def test_pages_show_what_commands_print() -> None:
    assert sum(bool(command.shown) for command in ALL) >= 10
