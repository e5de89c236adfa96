"""Statements under one name for the whole process, and what each server has of them."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol import messages, prepared
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.prepared import ServerStatements, Statement, StatementRegistry


def body(packet: bytes) -> bytes:
    return packet[5:]


def test_the_same_statement_is_one_whatever_clients_call_it():
    registry = StatementRegistry()
    one = registry.intern(prepared.split_parse(body(messages.parse("a", "SELECT 1", [23])))[1])
    other = registry.intern(prepared.split_parse(body(messages.parse("b", "SELECT 1", [23])))[1])
    assert one is other
    assert one.name == b"PGBOUNCER_1"
    assert registry.intern(prepared.split_parse(body(messages.parse("a", "SELECT 1", [20])))[1]) is not one
    assert one.parse_message() == messages.parse("PGBOUNCER_1", "SELECT 1", [23])
    assert one.close_message() == messages.close("S", "PGBOUNCER_1")
    assert one.describe_message() == messages.describe("S", "PGBOUNCER_1")


def test_a_statement_that_nobody_holds_is_forgotten():
    registry = StatementRegistry()
    kept = registry.intern(b"kept")
    registry.intern(b"dropped")
    gc.collect()
    assert len(registry) == 1
    assert registry.intern(b"kept") is kept


def test_a_server_gives_up_what_was_used_longest_ago():
    a, b, c = (Statement(name, b"") for name in (b"a", b"b", b"c"))
    server = ServerStatements()
    assert server.add(a, 2) == server.add(b, 2) == []
    assert server.touch(a)
    assert server.add(c, 2) == [b]
    assert not server.touch(b)
    assert list(server) == [a, c]
    server.discard(b)
    server.clear()
    assert len(server) == 0


@given(
    portal=st.binary(max_size=9).filter(lambda b: 0 not in b),
    name=st.binary(max_size=9).filter(lambda b: 0 not in b),
    rest=st.binary(max_size=9),
    before=st.binary(max_size=5),
)
def test_the_names_of_a_bind_are_found_when_they_are_there_and_only_inside_it(portal, name, rest, before):
    bind = portal + b"\0" + name + b"\0"
    data, start = before + bind + rest, len(before)
    ends = (start + len(portal), start + len(bind) - 1)
    assert prepared.bind_names_end(data, start, len(data)) == ends
    for cut in range(len(bind)):
        assert prepared.bind_names_end(data[: start + cut], start, len(data))[1] == -1
        assert prepared.bind_names_end(data, start, start + cut)[1] == -1


def test_broken_packets_are_protocol_errors():
    with pytest.raises(ProtocolError, match="broken Parse packet"):
        prepared.split_parse(b"no end")
    for wrong in (b"", b"S", b"Sx"):
        with pytest.raises(ProtocolError, match="broken Close packet"):
            prepared.split_target(wrong, "broken Close packet")
    assert prepared.split_target(b"Sx\0", "") == (b"S", b"x")


def error(code: str, text: str) -> bytes:
    return messages.error_response("ERROR", code, text)


def test_an_error_gets_the_clients_own_name_back_and_nothing_else_changes():
    one, other = Statement(b"PGBOUNCER_1", b""), Statement(b"PGBOUNCER_12", b"")
    names = {b"mine": one, b"also mine": one, "gr\u00fc\u00dfe".encode(): other}
    before, after = messages.command_complete("PGBOUNCER_1"), messages.ready_for_query(b"I")
    for sent, wanted in (
        ("PGBOUNCER_1", "mine"),
        ("PGBOUNCER_12", "gr\u00fc\u00dfe"),
        ("PGBOUNCER_123", "PGBOUNCER_123"),
    ):
        said = error("26000", f'prepared statement "{sent}" does not exist')
        spans = [(len(before), len(before) + len(said))]
        heard = prepared.with_own_names(before + said + after, spans, names)
        assert heard == before + error("26000", f'prepared statement "{wanted}" does not exist') + after


def test_only_an_error_that_is_about_a_statement_is_taken_for_one():
    text = 'prepared statement "PGBOUNCER_7" does not exist'
    told = {
        code: prepared.names_statement(error(code, text)[5:]) for code in ("26000", "42P05", "08P01", "22012", "23505")
    }
    assert told == {"26000": True, "42P05": True, "08P01": True, "22012": False, "23505": False}
    assert not prepared.names_statement(error("26000", 'prepared statement "theirs" does not exist')[5:])
