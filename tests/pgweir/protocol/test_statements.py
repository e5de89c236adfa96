"""A text of several statements, taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol.statements import split_statements


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("", ()),
        (" ; ;", ()),
        ("DISCARD ALL", ("DISCARD ALL",)),
        ("ABORT; DISCARD ALL;", ("ABORT", "DISCARD ALL")),
        ("SET a = 'x;y'; SET b = ''';'", ("SET a = 'x;y'", "SET b = ''';'")),
        ('SELECT ";"; SELECT 1', ('SELECT ";"', "SELECT 1")),
        ("DO $$ a; b $$; DO $x$ $$; $x$", ("DO $$ a; b $$", "DO $x$ $$; $x$")),
        ("SELECT 1 -- a; b\n; SELECT 2 /* ; */", ("SELECT 1 -- a; b", "SELECT 2 /* ; */")),
        ("SELECT 'open; end", ("SELECT 'open", "end")),
    ],
)
def test_a_semicolon_ends_a_statement_but_not_inside_quotes_and_comments(text: str, statements: tuple[str, ...]):
    assert split_statements(text) == statements


@given(st.text("a;'\"$-/* \n"))
def test_nothing_but_semicolons_and_spaces_is_lost(text: str):
    kept = "".join(split_statements(text))
    assert [c for c in kept if c not in "; \n"] == [c for c in text if c not in "; \n"]
