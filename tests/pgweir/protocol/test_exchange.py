"""What a server still owes, and what passes to its client: one server's bytes at a time.

The whole of it, with clients, servers that change and errors, is in session/test_model.py.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol import framing, messages
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.exchange import Exchange
from pgweir.protocol.framing import BIND, CLOSE, COPY_DONE, DESCRIBE, EXECUTE, FUNCTION_CALL, PARSE, QUERY, SYNC
from pgweir.protocol.prepared import Action, Owed, Statement

READY, IN_TRANSACTION, FAILED = (messages.ready_for_query(status) for status in (b"I", b"T", b"E"))
ROWS = messages.row_description([("c", 25)]) + messages.data_row([b"x" * 300]) * 3
DONE = messages.command_complete("SELECT 3")
ERROR = messages.error_response("ERROR", "22012", "division by zero")
BOUND = messages.message(framing.BIND_COMPLETE, b"")
PARSED, CLOSED = messages.PARSE_COMPLETE, messages.CLOSE_COMPLETE
COPY_IN = messages.message(framing.COPY_IN_RESPONSE, b"\0\0\1\0\0")


def exchange(*kinds: int) -> Exchange:
    """After these messages of a client."""
    made = Exchange()
    made.status = framing.STATUS_IDLE
    for kind in kinds:
        made.expect(kind)
    return made


def state(of: Exchange) -> tuple[object, ...]:
    return (of.settled, of.status, of.transactions, of.errors, of.fatal, of.saw_error, of.copy_in, list(of.owed))


def same_any_way(script: bytes, *kinds: int) -> Exchange:
    """The server's bytes reach the client unchanged, however they are cut; the answer is the exchange after them."""

    def read(chunks: list[bytes]) -> tuple[tuple[object, ...], bytes]:
        subject = exchange(*kinds)
        heard = b"".join(subject.scan(chunk) for chunk in chunks)
        assert heard + subject.tail == b"".join(chunks)
        return state(subject), b""

    subject = exchange(*kinds)
    assert subject.scan(script) == script
    for chunks in ([script], [script[at : at + 1] for at in range(len(script))]):
        assert read(chunks)[0] == state(subject)
    notice = messages.notice_response("NOTICE", "00000", "by the way")
    assert read([script + notice])[0] == state(subject)
    return subject


@pytest.mark.parametrize(
    ("kinds", "replies"),
    [
        ((QUERY,), ROWS + DONE + READY),
        ((QUERY,), messages.empty_query_response() + READY),
        ((QUERY,), ERROR + READY),
        ((QUERY,), ROWS + DONE + DONE + ERROR + READY),
        ((FUNCTION_CALL,), messages.message(ord("V"), b"\xff\xff\xff\xff") + READY),
        ((SYNC,), READY),
        ((SYNC,), ERROR + READY),
        ((PARSE, SYNC), PARSED + READY),
        ((PARSE, DESCRIBE, SYNC), PARSED + messages.message(ord("t"), b"\0\0") + ROWS[:30][: 1 + 26] + READY),
        ((BIND, DESCRIBE, EXECUTE, SYNC), BOUND + messages.message(framing.NO_DATA, b"") + DONE + READY),
        ((BIND, EXECUTE, EXECUTE, SYNC), BOUND + messages.message(framing.PORTAL_SUSPENDED, b"") + DONE + READY),
        ((CLOSE, SYNC), CLOSED + READY),
        ((PARSE, BIND, EXECUTE, SYNC), ERROR + READY),
        ((BIND, EXECUTE, SYNC, BIND, EXECUTE, SYNC), ERROR + READY + BOUND + DONE + READY),
        ((QUERY, QUERY), DONE + READY + ROWS + DONE + READY),
        ((PARSE, QUERY, SYNC), ERROR + READY),
    ],
)
def test_a_complete_answer_settles(kinds, replies):
    assert same_any_way(replies, *kinds).settled


@pytest.mark.parametrize(
    ("kinds", "replies"),
    [
        ((QUERY,), ROWS + DONE),
        ((QUERY,), ERROR),
        ((PARSE,), PARSED),
        ((PARSE, SYNC, BIND), PARSED + READY),
        ((BIND, EXECUTE), ERROR),
        ((QUERY,), COPY_IN),
        ((QUERY, QUERY), DONE + READY),
    ],
)
def test_an_incomplete_answer_does_not(kinds, replies):
    assert not same_any_way(replies, *kinds).settled


def test_an_extended_query_ends_with_its_sync_and_not_before():
    subject = exchange(PARSE)
    subject.scan(PARSED)  # for a Flush, say
    assert not subject.settled
    subject.expect(SYNC)
    subject.scan(READY)
    assert subject.settled


def test_the_status_is_that_of_the_last_ready_for_query():
    subject = same_any_way(DONE + IN_TRANSACTION + ERROR + FAILED + DONE + READY, QUERY, QUERY, QUERY)
    assert (subject.status, subject.transactions, subject.errors) == (framing.STATUS_IDLE, 1, 1)


def test_what_follows_an_error_counts_from_the_next_sync():
    subject = exchange(PARSE)
    subject.scan(ERROR)
    for kind in (BIND, EXECUTE, QUERY, FUNCTION_CALL):  # the server throws all these away
        subject.expect(kind)
    assert not subject.owed
    subject.expect(SYNC)
    subject.expect(QUERY)
    assert list(subject.owed) == [SYNC, QUERY]


# --- COPY FROM STDIN --------------------------------------------------------------------------------------------------------


def test_a_simple_copy_owes_its_query_until_ready_for_query():
    for end in (messages.command_complete("COPY 1"), ERROR):
        subject = exchange(QUERY)
        subject.scan(COPY_IN)
        subject.expect(COPY_DONE)
        subject.scan(end)
        assert list(subject.owed) == [QUERY]
        subject.scan(READY)
        assert subject.settled


def test_syncs_sent_while_the_server_copies_are_not_answered():
    for end in (messages.command_complete("COPY 1"), ERROR):
        subject = exchange(PARSE, BIND, EXECUTE, SYNC)
        subject.scan(PARSED + BOUND + COPY_IN)
        subject.expect(SYNC)
        subject.expect(COPY_DONE)
        subject.scan(end)
        assert not subject.settled
        subject.expect(SYNC)
        subject.scan(READY)
        assert subject.settled


def test_a_copy_that_fails_before_its_end_discards_up_to_a_new_sync():
    subject = exchange(EXECUTE, SYNC)
    subject.scan(COPY_IN + ERROR)
    subject.expect(COPY_DONE)
    assert not subject.owed
    assert not subject.settled
    subject.expect(SYNC)
    assert subject.scan(READY) == READY
    assert subject.settled


# --- replies of our own -----------------------------------------------------------------------------------------------------


def fake(kind: int) -> Owed:
    return Owed(kind, Action.FAKE, Statement(b"s", b""))


def test_a_fake_reply_is_due_at_once_when_nothing_else_is():
    subject = exchange()
    assert subject.expect_special(fake(PARSE)) == PARSED
    assert subject.expect_special(fake(CLOSE)) == CLOSED
    assert not subject.settled  # as with the real ones, before Sync


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_fake_reply_stands_behind_the_real_one_however_that_is_cut(cut):
    subject = exchange(DESCRIBE)
    assert subject.expect_special(fake(PARSE)) == b""
    for kind in (EXECUTE, SYNC):
        subject.expect(kind)
    said = ROWS[: len(messages.row_description([("c", 25)]))] + DONE + READY
    heard = subject.scan(said[:cut]) + subject.scan(said[cut:])
    assert heard == said.replace(DONE, PARSED + DONE)
    assert subject.settled


def test_a_skipped_reply_is_cut_out():
    subject = exchange()
    subject.expect_special(Owed(PARSE, Action.SKIP, Statement(b"s", b"")))
    subject.expect_special(Owed(CLOSE, Action.SKIP, Statement(b"t", b"")))
    for kind in (BIND, EXECUTE, SYNC):
        subject.expect(kind)
    assert subject.scan(PARSED + CLOSED + BOUND + DONE + READY) == BOUND + DONE + READY
    assert subject.special == 0


def test_a_fake_behind_a_copy_is_not_lost():
    subject = exchange(EXECUTE)
    subject.scan(COPY_IN)
    subject.expect(COPY_DONE)
    subject.expect_special(fake(PARSE))
    subject.expect(SYNC)
    done = messages.command_complete("COPY 0")
    assert subject.scan(done + READY) == done + PARSED + READY


def test_an_error_puts_names_and_statements_back_as_they_were():
    old, new = Statement(b"old", b"1"), Statement(b"new", b"2")
    subject = exchange(BIND)
    subject.statements.add(old, 9)
    names: dict[bytes, Statement] = {}  # the client had a -> old, closed that, and parsed a anew
    subject.expect_special(Owed(CLOSE, Action.FAKE, old, names, b"a"))
    names[b"a"] = new
    subject.statements.add(new, 9)
    subject.expect_special(Owed(PARSE, Action.FORWARD, new, names, b"a"))
    subject.statements.discard(old)
    subject.expect_special(Owed(CLOSE, Action.SKIP, old))
    subject.expect(SYNC)
    subject.scan(ERROR + READY)
    assert names == {b"a": old}
    assert list(subject.statements) == [old]
    assert subject.settled


@pytest.mark.parametrize("tag", ["DEALLOCATE ALL", "DISCARD ALL"])
@pytest.mark.parametrize("how", [QUERY, EXECUTE])
def test_deallocate_all_forgets_what_was_there_and_keeps_what_comes(tag, how):
    gone, coming = Statement(b"gone", b"1"), Statement(b"coming", b"2")
    subject = exchange(how)
    subject.statements.add(gone, 9)
    subject.statements.add(coming, 9)
    subject.expect_special(Owed(PARSE, Action.FORWARD, coming))
    subject.scan(messages.command_complete(tag))
    assert subject.deallocated_all
    assert list(subject.statements) == [coming]


@pytest.mark.parametrize("kinds", [(QUERY,), (PARSE, BIND, EXECUTE, SYNC)])
def test_a_copy_that_is_ended_twice_is_over_once(kinds):
    """postgres.js says CopyFail behind each CopyDone; PostgreSQL does not mind."""
    subject = exchange(*kinds)
    subject.scan((PARSED + BOUND if PARSE in kinds else b"") + COPY_IN)
    subject.expect(COPY_DONE)
    subject.expect(COPY_DONE)
    if PARSE in kinds:
        subject.expect(SYNC)
    subject.scan(DONE + READY)
    assert subject.settled


def test_a_long_batch_is_not_looked_through_for_each_of_its_messages():
    looks = []

    class Reply(int):
        def __eq__(self, other: object) -> bool:
            looks.append(other)
            return int.__eq__(self, other)

        __hash__ = int.__hash__

    subject = exchange()
    subject.expect_special(Owed(PARSE, Action.FORWARD, Statement(b"s", b"SELECT 1\0")))
    subject.owed.extend(Reply(kind) for kind in (BIND, EXECUTE) * 1000)
    assert not subject.in_doubt
    assert len(looks) < 10


def test_what_stands_behind_a_sync_is_in_doubt_until_the_parse_before_it_is_answered():
    subject = exchange()
    subject.expect_special(Owed(PARSE, Action.SKIP, Statement(b"s", b"")))
    assert not subject.in_doubt
    subject.expect(SYNC)
    assert subject.in_doubt
    subject.scan(PARSED)
    assert not subject.in_doubt


def test_where_an_error_names_a_statement_is_told_by_its_place_in_what_the_client_gets():
    naming = messages.error_response("ERROR", "08P01", 'prepared statement "PGBOUNCER_1" requires 0')
    statement = Statement(b"PGBOUNCER_1", b"SELECT 1\0\0\0")
    for script in ([PARSED + naming + READY], [PARSED, naming + READY], [PARSED + naming[:30], naming[30:] + READY]):
        subject = exchange()
        subject.statements.add(statement, 9)
        subject.expect_special(Owed(PARSE, Action.SKIP, statement))
        for kind in (BIND, SYNC):
            subject.expect(kind)
        heard = b""
        for chunk in script:
            answer = subject.scan(chunk)
            spans, subject.naming = subject.naming, []
            assert [answer[at:end] for at, end in spans] == [naming] * (naming in answer)
            assert subject.noted or not spans
            heard += answer
        assert heard == naming + READY
        assert subject.settled


# --- what is unasked for, and noise --------------------------------------------------------------------------------------------


def test_parameters_are_noted_and_passed_on():
    said = messages.parameter_status("TimeZone", "Europe/Berlin")
    subject = same_any_way(said)
    assert subject.changed_parameters == [("TimeZone", "Europe/Berlin")]


def test_a_goodbye_is_told_from_an_error():
    fatal = same_any_way(messages.error_response("FATAL", "57P01", "terminating connection"))
    assert (fatal.fatal, fatal.unsolicited_error) == (True, True)
    error = same_any_way(messages.error_response("ERROR", "22000", "this is not FATAL"), QUERY)
    assert (error.fatal, error.unsolicited_error) == (False, False)


@pytest.mark.parametrize(
    "noise",
    [
        b"\0\0\0\0\0",
        b"q\0\0\0\4",
        b"Z\0\0\0\4",
        b"Z\0\0\0\6II",
        b"S\0\0\0\4",
        b"S\0\0\0\7a\0b",
        b"C\0\0\0\4y\0\0\0\4",
    ],
)
def test_nonsense_is_a_protocol_error(noise):
    with pytest.raises(ProtocolError):
        exchange(QUERY).scan(noise)


@given(
    chunks=st.lists(st.binary(max_size=40), max_size=5),
    kinds=st.lists(st.sampled_from([QUERY, PARSE, EXECUTE, SYNC, COPY_DONE])),
)
def test_noise_gets_a_protocol_error_and_nothing_else(chunks, kinds):
    subject = exchange(*kinds)
    try:
        for chunk in chunks:
            subject.scan(chunk)
    except ProtocolError:
        pass


SCRIPT = ROWS + DONE + READY + PARSED + BOUND + ROWS + DONE + READY + COPY_IN + ERROR + READY + ERROR + READY
ASKED = (QUERY, PARSE, BIND, DESCRIBE, EXECUTE, SYNC, QUERY, BIND, SYNC)


@given(cuts=st.lists(st.integers(0, len(SCRIPT)), max_size=12))
def test_any_cut_of_a_recorded_conversation_gives_the_same_bytes_and_the_same_state(cuts):
    whole = exchange(*ASKED)
    expected = whole.scan(SCRIPT)
    subject = exchange(*ASKED)
    edges = [0, *sorted(cuts), len(SCRIPT)]
    heard = b"".join(subject.scan(SCRIPT[a:b]) for a, b in pairwise(edges) if a < b)
    assert heard == expected == SCRIPT
    assert state(subject) == state(whole)
    assert subject.settled
