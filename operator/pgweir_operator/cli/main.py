"""The command `pgweir`: the table of contents of what a person can type.

Each command imports what it needs when it runs, so that `pgweir --help` answers at once and works where an extra is
not installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pgweir

app = typer.Typer(
    name="pgweir",
    help="PostgreSQL connection pooling for Kubernetes, with a data plane of its own.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def pgweir_command() -> None:
    """PostgreSQL connection pooling for Kubernetes, with a data plane of its own."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"pgweir {pgweir.__version__}")


@app.command()
def demo(
    pooler: Annotated[
        Path | None, typer.Option("--pooler", help="The Pooler to run (default: manifests/samples/pooler.yaml).")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each of the three acts.")] = 5.0,
    clients: Annotated[int, typer.Option(min=1, max=200, help="How many clients send transactions.")] = 24,
    stay: Annotated[bool, typer.Option("--stay", help="Keep everything running until Ctrl-C.")] = False,
) -> None:
    """See the main job on this machine: a Pooler under load, paused and resumed, and nobody loses a transaction."""
    from pgweir_operator.cli.demo import run_demo

    raise typer.Exit(run_demo(pooler, seconds=seconds, clients=clients, stay=stay))


if __name__ == "__main__":
    app()
