"""`--version`, which both programs have."""

from __future__ import annotations

from typing import Annotated

import typer

import pgweir


def say() -> None:
    typer.echo(f"pgweir {pgweir.__version__}")


def _asked(wanted: bool) -> None:
    if wanted:
        say()
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_asked, help="Print the version.", show_default=False)
]
