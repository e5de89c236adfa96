"""Options that `pgweir` and `kubectl pgweir` have in common, and mean the same in both. Loads nothing but typer."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", "-j", help="Print JSON.")]
Watch = Annotated[
    float | None,
    typer.Option("--watch", "-w", min=0.1, metavar="SECONDS", help="Again and again, until ^C.", show_default=False),
]
Columns = Annotated[
    str, typer.Option("--columns", "-c", metavar="A,B,…", help="Only these columns.", show_default=False)
]


def picked(columns: str) -> list[str]:
    """The names that `--columns` has."""
    return [name.strip() for name in columns.split(",") if name.strip()]
