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


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="A pgbouncer.ini, pgpool.conf or pgbalancer.conf.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name of the Pooler.")] = "pooler",
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Name of the cluster that it pools, instead of the file's server.")
    ] = None,
) -> None:
    """Translate another pooler's configuration into a Pooler, and say what became of each setting.

    The manifest goes to standard output, one line for each setting to standard error.

    Example: pgweir import /etc/pgpool2/pgpool.conf --name shop-pooler --cluster shop > pooler.yaml

    Exit codes: 0 every setting has found its place or is not needed; 1 the manifest is there, but a line says "refused"
    and a person has to decide; 2 the file cannot be read or is none of the three.
    """
    from pgweir_operator.cli.files import run_import

    raise typer.Exit(run_import(file, name=name, cluster=cluster))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A pgbouncer.ini, or the manifest of a Pooler.", show_default=False)],
) -> None:
    """Check a configuration before it is used: every fault at once, with its place and what to write instead.

    Files that a pgbouncer.ini names are read, relative to its own folder. A manifest's file name ends in .yaml, .yml or .json.

    Example: pgweir check pooler.yaml && kubectl apply -f pooler.yaml

    Exit codes: 0 nothing is wrong; 1 something is; 2 the file cannot be read, or has no Pooler in it.
    """
    from pgweir_operator.cli.files import run_check

    raise typer.Exit(run_check(file))


if __name__ == "__main__":
    app()
