"""How a table appears: on a terminal with colours and without its empty columns, elsewhere as aligned text, or as JSON.

Errors go to standard error. Called by `look` and by the plugin; never talks to anything.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pgweir_operator.cli.shown import Refused, Shown, Unreachable, Value

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    out.print(text, markup=False)


def complain(text: str) -> None:
    err.print(text, markup=False)


def fresh() -> tuple[Console, Console]:
    """Consoles of the streams that there are now: tests put others in their place."""
    global out, err
    out = Console(highlight=False, soft_wrap=True)
    err = Console(stderr=True, highlight=False, soft_wrap=True)
    return out, err


def picked(shown: Shown, columns: Sequence[str]) -> Shown:
    """Only these columns, in this order. Raises ValueError, which names those that there are."""
    if not columns:
        return shown
    there = [name for name, _ in shown.columns]
    unknown = [name for name in columns if name not in there]
    if unknown:
        raise ValueError(f"--columns: there is no {', '.join(unknown)}; there are {', '.join(there)}")
    places = [there.index(name) for name in columns]
    rows = tuple(tuple(row[at] for at in places) for row in shown.rows)
    return Shown(tuple(shown.columns[at] for at in places), rows, shown.notices, shown.tag)


def print_shown(shown: Shown, *, as_json: bool) -> None:
    for notice in shown.notices:
        complain(notice)
    if as_json:
        value: object = shown.dictionaries() if shown.columns else {"result": shown.tag}
        say(json.dumps(value, indent=1, ensure_ascii=False))
    elif not shown.columns:
        say(shown.tag)
    elif out.is_terminal:
        out.print(rich_table(shown), soft_wrap=False)
    else:
        say(plain_table(shown))


def rich_table(shown: Shown) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    full = [
        at for at in range(len(shown.columns)) if not shown.rows or any(row[at] not in (None, "") for row in shown.rows)
    ]
    for at in full:
        name, is_number = shown.columns[at]
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in shown.rows:
        table.add_row(*(Text(_text(row[at])) for at in full))
    return table


def plain_table(shown: Shown) -> str:
    rows = [[name for name, _ in shown.columns], *([_text(value) for value in row] for row in shown.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(shown.columns))]
    lines = []
    for row in rows:
        cells = zip(row, shown.columns, widths, strict=True)
        lines.append("  ".join(text.rjust(w) if number else text.ljust(w) for text, (_, number), w in cells).rstrip())
    return "\n".join(lines)


def _text(value: Value) -> str:
    return "" if value is None else str(value)


def watch(ask: Callable[[], Shown], every: float, *, as_json: bool, rounds: int | None = None) -> None:
    """The table again and again until ^C (or for so many rounds). A pooler that does not answer is asked again."""
    counts = range(rounds) if rounds is not None else iter(int, 1)
    if as_json or not out.is_terminal:
        for at, _ in enumerate(counts):
            if at:
                time.sleep(every)
            try:
                shown = ask()
            except (Refused, Unreachable) as error:
                complain(str(error))
                continue
            if as_json:
                say(json.dumps(shown.dictionaries(), ensure_ascii=False))
            else:
                say(f"{time.strftime('%H:%M:%S')}\n{plain_table(shown)}\n")
            sys.stdout.flush()
        return
    with Live(console=out, screen=True, auto_refresh=False) as live:
        for _ in counts:
            head = Text(f"{time.strftime('%H:%M:%S')}, every {every:g} s; ^C ends", style="dim")
            body: RenderableType
            try:
                body = rich_table(ask())
            except (Refused, Unreachable) as error:
                body = Text(str(error), style="red")
            live.update(Group(head, body), refresh=True)
            time.sleep(every)
