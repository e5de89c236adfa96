"""Which errors are about a statement of the pooler's own, and which exchanges may be said once more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol import messages
from pgweir.protocol.framing import BIND, DESCRIBE, EXECUTE, PARSE, SYNC
from pgweir.protocol.replay import Trouble, may_replay, statement_trouble

NAMED, UNNAMED = messages.bind("", "s", [b"1", None]), messages.bind("", "", [b"1"])
PER_COLUMN = messages.message(BIND, b"\0s\0" + b"\0\0" + b"\0\0" + b"\0\2\0\0\0\1")
PORTAL, STATEMENT = messages.describe("P", ""), messages.describe("S", "s")
RUN, END = messages.execute(), messages.sync()
KINDS = {b"B": BIND, b"D": DESCRIBE, b"E": EXECUTE, b"S": SYNC, b"P": PARSE}


def owed(*said: bytes) -> list[int]:
    return [KINDS[one[:1]] for one in said if one[:1] != b"H"]


def error(**fields: str) -> bytes:
    return b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        (error(S="FEHLER", C="0A000", M="übersetzt", R="RevalidateCachedQuery"), Trouble.CHANGED),
        (error(S="ERROR", C="0A000", M="not yet implemented", R="transformSomething"), None),
        (error(S="ERROR", C="26000", M='prepared statement "PGBOUNCER_12" does not exist'), Trouble.LOST),
        (error(S="ERROR", C="26000", M='prepared statement "mine" does not exist'), None),
        (error(S="ERROR", C="P0001", M="C26000 PGBOUNCER_1 C0A000 RRevalidateCachedQuery"), None),
    ],
)
def test_an_error_is_judged_by_what_is_never_translated(body, trouble):
    assert statement_trouble(body) is trouble


@pytest.mark.parametrize("said", [(NAMED, PORTAL, RUN, END), (NAMED, PORTAL, RUN, NAMED, PORTAL, RUN, END)])
def test_a_client_that_asks_for_the_shape_each_time_gets_the_new_one(said):
    assert may_replay(b"".join(said), owed(*said), Trouble.CHANGED)


@pytest.mark.parametrize(
    "said",
    [
        (NAMED, RUN, END),  # goes by a Describe of long ago
        (NAMED, STATEMENT, RUN, END),
        (NAMED, PORTAL, RUN, NAMED, RUN, END),
        (PER_COLUMN, PORTAL, RUN, END),  # and for so many columns
    ],
)
def test_a_client_that_remembers_the_old_shape_gets_the_error_but_not_for_a_lost_statement(said):
    assert not may_replay(b"".join(said), owed(*said), Trouble.CHANGED)
    assert may_replay(b"".join(said), owed(*said), Trouble.LOST)


@pytest.mark.parametrize(
    ("said", "still_owed"),
    [
        ((NAMED, RUN, END), (RUN, END)),  # BindComplete is with the client already
        ((NAMED, RUN, END), (NAMED, RUN, END, NAMED, RUN, END)),  # something was sent before or behind it
        ((NAMED, RUN), (NAMED, RUN)),  # no Sync yet
        ((NAMED, END, NAMED, END), (NAMED, END, NAMED, END)),  # two transactions
        ((UNNAMED, RUN, END), (UNNAMED, RUN, END)),  # the client's own statement
        ((PORTAL, RUN, END), (PORTAL, RUN, END)),
        ((messages.parse("", "SELECT 1"), NAMED, RUN, END), (messages.parse("", "x"), NAMED, RUN, END)),
        ((NAMED, RUN, END[:-1]), (NAMED, RUN, END)),
        ((), ()),
    ],
)
def test_anything_else_is_never_said_twice(said, still_owed):
    assert not may_replay(b"".join(said), owed(*still_owed), Trouble.LOST)


@given(noise=st.binary(max_size=60), prefix=st.sampled_from([b"", NAMED, NAMED + PORTAL, NAMED[:9]]))
def test_noise_is_no_exchange(noise, prefix):
    spoken = prefix + noise
    if may_replay(spoken, owed(NAMED, PORTAL, RUN, END), Trouble.CHANGED):
        assert spoken.startswith(b"B")
        assert spoken.endswith(END)
