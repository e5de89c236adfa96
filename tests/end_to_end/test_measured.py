"""The table of measured numbers: rows are written anew in their places, others stay."""

from __future__ import annotations

import datetime

from e2e.measured import RULER, TABLE_BEGINS, with_rows

DAY = datetime.date(2026, 11, 22)
BEFORE = f"""# Numbers

{TABLE_BEGINS}
{RULER}
| a pause | 0.5 s |  | 2026-01-01 |
| a cancel | 20 ms | 100 ms | 2026-01-01 |

What follows, stays.
"""


def test_a_row_that_was_measured_anew_takes_its_old_place_and_a_new_one_the_last() -> None:
    rows = {"a pause": ("0.4 s", "1 s"), "a rollout": ("0 failed", "0 failed")}
    assert with_rows(BEFORE, rows, DAY).splitlines()[4:9] == [
        "| a pause | 0.4 s | 1 s | 2026-11-22 |",
        "| a cancel | 20 ms | 100 ms | 2026-01-01 |",
        "| a rollout | 0 failed | 0 failed | 2026-11-22 |",
        "",
        "What follows, stays.",
    ]


def test_nothing_measured_changes_nothing() -> None:
    assert with_rows(BEFORE, {}, DAY) == BEFORE


def test_a_table_without_rows_takes_the_first() -> None:
    empty = f"{TABLE_BEGINS}\n{RULER}\n"
    assert with_rows(empty, {"x": ("1", "2")}, DAY) == f"{empty}| x | 1 | 2 | 2026-11-22 |\n"
