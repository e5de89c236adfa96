"""`kubectl pgweir …` as a person types it: kubectl finds the plugin on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from e2e.kubernetes_access import WRAPPERS
from e2e.scenarios.shop import Shop


def kubectl_pgweir(shop: Shop, *words: str, timeout: float = 60.0) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    at = words.index("--") if "--" in words else len(words)
    options = [f"--namespace={shop.namespace}"]
    program = str(WRAPPERS / "kubectl")
    if context := os.environ.get("E2E_CONTEXT"):
        program, options = (
            "kubectl",
            [*options, f"--context={context}"],
        )  # kubectl's own options must stand behind a plugin
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [program, "pgweir", *words[:at], *options, *words[at:]],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
