"""`.ci/run` says no where any of its stages has failed, and shows what that one said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Does nothing, but for the environment that the run is to find, and for the target that fails.
MAKE = """#!/bin/sh
shift
if [ "$1" = venv ]; then mkdir -p "$VENV/bin" && ln -sf /bin/true "$VENV/bin/python"; fi
echo "this is $1"
[ "$1" != "$FAILING" ]
"""


@pytest.fixture
def run(tmp_path):
    for folder in (".ci", "bin"):
        (tmp_path / folder).mkdir()
    for file in (".ci/run", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    make = tmp_path / "bin" / "make"
    make.write_text(MAKE)
    make.chmod(0o755)

    def ended(failing: str) -> subprocess.CompletedProcess[str]:
        mine = {
            "PATH": f"{make.parent}:{os.environ['PATH']}",
            "PGWEIR_CACHE": str(tmp_path / "cache"),
            "PYTHON": sys.executable,
            "E2E_CONTEXT": "nobody's",  # no cluster of this machine is looked for
            "FAILING": failing,
        }
        command = [str(tmp_path / ".ci" / "run")]
        environment = {**os.environ, **mine}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return ended


@pytest.mark.parametrize("stage", ["venv", "check", "differential", "control-plane", "e2e"])
def test_a_stage_that_fails_fails_the_run_and_is_shown_whatever_passes_behind_it(run, stage):
    ended = run(stage)
    assert ended.returncode == 1, ended.stdout
    assert f"{stage} FAILED" in ended.stdout
    assert f"--- {stage}:\nthis is {stage}\n" in ended.stdout


def test_a_run_without_a_failure_shows_times_alone(run):
    ended = run("")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "FAILED" not in ended.stdout
    assert "---" not in ended.stdout
