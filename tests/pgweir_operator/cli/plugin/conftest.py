"""An API server to ask, and the plugin as a person types it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.pgweir_operator.cli.plugin.api_server import ApiServer
from typer.testing import CliRunner

from pgweir_operator.cli.plugin.main import app

Plugin = Callable[..., tuple[int, str, str]]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as made:
        yield made


@pytest.fixture
def plugin(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Exit code, standard output and standard error of `kubectl pgweir …`."""

    def run(*words: object) -> tuple[int, str, str]:
        arguments = [str(word) for word in words]
        at = arguments.index("--") if "--" in arguments else len(arguments)
        arguments[at:at] = [f"--kubeconfig={api.kubeconfig}"]
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run
