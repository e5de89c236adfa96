"""What a person reads who has no cluster, or a kubeconfig that is none: why, and what to do; never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgweir_operator.cli.plugin.main import app


@pytest.fixture(autouse=True)
def nobodys_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no kubeconfig"),
        ("a: [", "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
        ("contexts: []", "current-context"),
    ],
)
def test_a_kubeconfig_that_is_none_is_said_with_what_names_another(
    content: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    found = CliRunner().invoke(app, ["status", "--kubeconfig", str(file)])
    assert found.exit_code == 3
    (line,) = found.stderr.splitlines()
    assert line.startswith("no cluster to speak to: ")
    assert words in line
    assert "--kubeconfig" in line


def test_the_version_is_asked_for_as_anywhere() -> None:
    found = CliRunner().invoke(app, ["--version"])
    assert (found.exit_code, found.stdout.split()[0]) == (0, "pgweir")


@pytest.mark.parametrize("words", [("status",), ("pause", "shop-rw"), ("doctor", "shop-rw"), ("support-bundle",)])
def test_a_cluster_without_our_crd_says_so(words: tuple[str, ...], plugin: Callable[..., tuple[int, str, str]]) -> None:
    """The API server of the test knows one namespace, and answers 404 for others, as one without the CRD does for all."""
    code, printed, told = plugin(*words, "--namespace=elsewhere")
    assert (code, printed) == (1, "")
    assert "no CRD poolers.pgweir.io" in told
    assert "--context" in told
