"""The table of differences names scenes that there are, and is read as it is written."""

from __future__ import annotations

import ast

import pytest
from tests.pooler.differences import ROOT, TABLE, Difference, read_table


def test_every_row_names_a_scene() -> None:
    scenes = {
        (path.name, node.name)
        for path in (ROOT / "tests" / "data_plane").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    rows = read_table(TABLE.read_text()).values()
    assert rows
    assert {(row.file, row.test.partition("[")[0]) for row in rows if row.test} - scenes == set()
    assert {row.file for row in rows if not row.test} <= {file for file, _ in scenes}
    assert not any(row.is_asked for row in rows if not row.test), "what is asked is explained scene by scene"


def test_a_row_is_a_test_in_words_under_its_file() -> None:
    text = """| scene | PgBouncer |\n| --- | --- |\n| **test_x** | |\n| it rains[at night] | At times: it is dry |
| it is dry | Not asked: it is |\n| it snows | melts |\n| **test_y** | Not asked: ours |"""
    race, unasked, plain, whole = read_table(text).values()
    assert (whole.file, whole.test, whole.is_asked) == ("test_y.py", "", False)
    assert (race.file, race.test, race.is_race, race.is_asked) == ("test_x.py", "test_it_rains[at night]", True, True)
    assert (unasked.test, unasked.is_race, unasked.is_asked) == ("test_it_is_dry", False, False)
    assert plain == Difference("test_x.py", "test_it_snows", "melts")


@pytest.mark.parametrize(
    "rows", ["| it rains | wet |", "| **test_x** | |\n| it rains | |", "| **test_x** | |\n| a | b |\n| a | c |"]
)
def test_a_row_that_explains_nothing_is_an_error(rows: str) -> None:
    with pytest.raises(ValueError, match="differences-by-scene"):
        read_table(rows)
