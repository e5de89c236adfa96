"""The commands of each page that need no cluster are run, in their order, on a machine of the page's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import PAGES, ROOT, Where, blocks, story

PRIVATE = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
if os.geteuid() != 0:
    PRIVATE += ["--user", "--map-current-user", "--keep-caps"]

TOLD = [
    page
    for page in PAGES
    if story(page, Where.HERE, Where.FILES) or any(block.language == "sql" for block in blocks(page))
]


@pytest.fixture(scope="module", autouse=True)
def private() -> None:
    """Linux with namespaces; a container may forbid them."""
    try:
        done = subprocess.run([*PRIVATE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
        trouble = "" if done.returncode == 0 else done.stderr
    except OSError as error:
        trouble = str(error)
    if trouble and "CI" in os.environ:
        pytest.fail(f"no namespaces in CI: {trouble}")
    if trouble:
        pytest.skip(f"no namespaces here: {trouble}")


@pytest.mark.timeout(1800)  # the longest page takes one minute on two idle cores, seven on busy ones
@pytest.mark.parametrize("page", TOLD, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_it_says(page: Path) -> None:
    command = [*PRIVATE, sys.executable, "-m", "tests.docs.machine", str(page)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "operator"), str(ROOT / "pooler_image")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
