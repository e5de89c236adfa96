"""The doctor's options, which `pgweir doctor` and `kubectl pgweir doctor` share. Loads nothing but typer until it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pgweir_operator.cli.diagnosed import Options

Tries = Annotated[int, typer.Option("--tries", min=1, max=1000, metavar="N", help="How often SELECT 1 is tried.")]
Threshold = Annotated[
    float, typer.Option("--threshold", min=0, metavar="MS", help="A stage of SELECT 1 that takes longer is slow.")
]
Stuck = Annotated[
    float,
    typer.Option("--stuck", min=0, metavar="SECONDS", help="A transaction that is idle for so long is left open."),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", "-t", min=0.1, metavar="SECONDS", help="For a look-up and for a connection over TCP."),
]
Patience = Annotated[
    float, typer.Option("--patience", min=0.1, metavar="SECONDS", help="For a login and for an answer.")
]
Burst = Annotated[float, typer.Option("--burst", min=0, metavar="SECONDS", help="Also send a short load, for so long.")]
Clients = Annotated[int, typer.Option("--clients", min=1, max=500, metavar="N", help="With --burst: clients at once.")]


def options(
    tries: int,
    threshold: float,
    stuck: float,
    timeout: float,
    patience: float,
    burst: float,
    clients: int,
    as_json: bool,
) -> Options:
    from pgweir_operator.cli.diagnosed import Options
    from pgweir_operator.doctor.facts import Limits

    return Options(
        tries=tries,
        timeout=timeout,
        patience=patience,
        limits=Limits(threshold=threshold / 1000, stuck=stuck),
        burst=burst,
        burst_clients=clients,
        as_json=as_json,
    )
