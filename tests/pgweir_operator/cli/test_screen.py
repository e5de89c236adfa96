"""How tables appear on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pgweir_operator.cli import screen
from pgweir_operator.cli.shown import Shown

SHOWN = Shown((("user", False), ("id", True), ("tls", False)), (("alice", 7, ""), ("bob", 12, None)))


def on_a_terminal(shown: Shown, width: int = 80) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    console.print(screen.rich_table(shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_elsewhere_every_column_is_there_and_aligned() -> None:
    assert screen.plain_table(SHOWN) == "user   id  tls\nalice   7\nbob    12"


def test_a_terminal_leaves_out_columns_that_are_empty_in_every_row() -> None:
    assert on_a_terminal(SHOWN).split() == ["user", "id", "alice", "7", "bob", "12"]


def test_an_empty_table_still_has_its_columns() -> None:
    assert on_a_terminal(Shown(SHOWN.columns)).split() == ["user", "id", "tls"]
    assert screen.plain_table(Shown(SHOWN.columns)) == "user  id  tls"


def test_what_clients_call_themselves_is_no_markup() -> None:
    assert "[red]x[/]" in on_a_terminal(Shown((("application_name", False),), (("[red]x[/]",),)))


def test_columns_are_picked_in_the_order_in_which_they_are_named() -> None:
    assert screen.picked(SHOWN, ["id", "user"]).rows == ((7, "alice"), (12, "bob"))
    with pytest.raises(ValueError, match="there is no pid; there are user, id, tls"):
        screen.picked(SHOWN, ["pid"])
