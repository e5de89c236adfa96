"""Builders against bytes written by hand from the protocol's chapter, parsers against builders, noise against parsers.

Noise gets a ProtocolError and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol import messages
from pgweir.protocol.errors import ClientError, ProtocolError
from pgweir.protocol.messages import B, F
from pgweir.protocol.reader import MessageReader

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.lists(st.none() | st.binary(max_size=40), max_size=5)

BY_HAND = [
    (messages.authentication_ok(), b"R\0\0\0\x08\0\0\0\0"),
    (messages.authentication_cleartext(), b"R\0\0\0\x08\0\0\0\x03"),
    (messages.authentication_md5(b"salt"), b"R\0\0\0\x0c\0\0\0\x05salt"),
    (messages.authentication_sasl(["SCRAM-SHA-256"]), b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"),
    (messages.authentication_sasl_continue(b"r=x"), b"R\0\0\0\x0b\0\0\0\x0br=x"),
    (messages.authentication_sasl_final(b"v=x"), b"R\0\0\0\x0b\0\0\0\x0cv=x"),
    (messages.parameter_status("TimeZone", "UTC"), b"S\0\0\0\x11TimeZone\0UTC\0"),
    (messages.backend_key_data(0x01020304, b"abcd"), b"K\0\0\0\x0c\x01\x02\x03\x04abcd"),
    (messages.ready_for_query(b"I"), b"Z\0\0\0\x05I"),
    (messages.negotiate_protocol_version(0, ["_pq_.x"]), b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0"),
    (messages.error_response("FATAL", "28P01", "no"), b"E\0\0\0\x1eSFATAL\0VFATAL\0C28P01\0Mno\0\0"),
    (messages.notice_response("NOTICE", "00000", "hi"), b"N\0\0\0\x20SNOTICE\0VNOTICE\0C00000\0Mhi\0\0"),
    (messages.data_row([b"a", None, b""]), b"D\0\0\0\x13\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0"),
    (
        messages.row_description([("n", 23)]),
        b"T\0\0\0\x1a\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
    ),
    (messages.command_complete("SELECT 1"), b"C\0\0\0\x0dSELECT 1\0"),
    (messages.empty_query_response(), b"I\0\0\0\x04"),
    (messages.PARSE_COMPLETE, b"1\0\0\0\x04"),
    (messages.BIND_COMPLETE, b"2\0\0\0\x04"),
    (messages.CLOSE_COMPLETE, b"3\0\0\0\x04"),
    (messages.NO_DATA, b"n\0\0\0\x04"),
    (messages.PORTAL_SUSPENDED, b"s\0\0\0\x04"),
    (messages.startup_message({"user": "u"}), b"\0\0\0\x10\0\x03\0\0user\0u\0\0"),
    (messages.ssl_request(), b"\0\0\0\x08\x04\xd2\x16\x2f"),
    (messages.gssenc_request(), b"\0\0\0\x08\x04\xd2\x16\x30"),
    (messages.cancel_request(b"pid_key_"), b"\0\0\0\x10\x04\xd2\x16\x2epid_key_"),
    (messages.password_message("x"), b"p\0\0\0\x06x\0"),
    (messages.sasl_initial_response("M", b"n,,"), b"p\0\0\0\x0dM\0\0\0\0\x03n,,"),
    (messages.sasl_response(b"c=x"), b"p\0\0\0\x07c=x"),
    (messages.query("select 1"), b"Q\0\0\0\x0dselect 1\0"),
    (messages.parse("s", "q", [23]), b"P\0\0\0\x0es\0q\0\0\x01\0\0\0\x17"),
    (messages.bind("", "s", [b"v", None]), b"B\0\0\0\x16\0s\0\0\0\0\x02\0\0\0\x01v\xff\xff\xff\xff\0\0"),
    (messages.describe("S", "s"), b"D\0\0\0\x07Ss\0"),
    (messages.execute("", 7), b"E\0\0\0\x09\0\0\0\0\x07"),
    (messages.close("P", ""), b"C\0\0\0\x06P\0"),
    (messages.sync(), b"S\0\0\0\x04"),
    (messages.flush(), b"H\0\0\0\x04"),
    (messages.terminate(), b"X\0\0\0\x04"),
]


@pytest.mark.parametrize(("built", "expected"), BY_HAND, ids=lambda value: repr(value)[:16])
def test_a_builder_makes_the_bytes_that_the_protocol_describes(built: bytes, expected: bytes) -> None:
    assert built == expected


@pytest.mark.parametrize(("built", "_"), [pair for pair in BY_HAND if pair[0][0]])
def test_every_message_declares_its_own_length(built: bytes, _: bytes) -> None:
    assert int.from_bytes(built[1:5], "big") == len(built) - 1


def body(packet: bytes) -> bytes:
    return packet[5:]


@given(TEXT, TEXT)
def test_a_parameter_status_is_read_as_it_was_written(name: str, value: str) -> None:
    assert messages.parse_parameter_status(body(messages.parameter_status(name, value))) == (name, value)


@given(VALUES)
def test_a_row_is_read_as_it_was_written(values: list[bytes | None]) -> None:
    assert messages.parse_data_row(body(messages.data_row(values))) == values


@given(st.lists(st.tuples(TEXT, st.integers(0, 2**32 - 1)), max_size=5))
def test_a_row_description_is_read_as_it_was_written(columns: list[tuple[str, int]]) -> None:
    assert messages.parse_row_description(body(messages.row_description(columns))) == columns


@given(st.binary().filter(lambda raw: 0 not in raw))
def test_bytes_that_are_not_utf8_survive_the_round_trip(raw: bytes) -> None:
    assert messages.encode(messages.decode(raw)) == raw


def test_an_error_is_read_with_all_its_fields() -> None:
    packet = messages.error_response("FATAL", "53300", "too many", detail="12 of 12", hint="wait")
    error = messages.parse_error(body(packet))
    assert (error.severity, error.sqlstate, error.message) == ("FATAL", "53300", "too many")
    assert (error.detail, error.hint) == ("12 of 12", "wait")
    assert error.fields["S"] == "FATAL"


def test_an_old_server_sends_no_untranslated_severity() -> None:
    assert messages.parse_error(b"SFEHLER\0C42601\0Mx\0\0").severity == "FEHLER"


def test_a_nul_in_a_quoted_name_does_not_end_an_error_early() -> None:
    packet = messages.fatal(ClientError("28P01", 'no "a\0b"'))
    assert messages.parse_error(body(packet)).message == 'no "a?b"'


def test_a_nul_is_never_sent_inside_a_name() -> None:
    with pytest.raises(ValueError, match="NUL"):
        messages.query("a\0b")


def test_the_key_for_a_cancel_request_is_the_body_of_backend_key_data() -> None:
    key = messages.parse_backend_key_data(body(messages.backend_key_data(77, b"wxyz")))
    assert messages.cancel_request(key).endswith(b"\0\0\0\x4dwxyz")


def test_an_authentication_request_shows_what_it_carries() -> None:
    sasl = messages.parse_authentication(body(messages.authentication_sasl(["A", "B"])))
    assert sasl.mechanisms == ("A", "B")
    assert messages.parse_authentication(body(messages.authentication_md5(b"1234"))).data == b"1234"
    assert messages.parse_authentication(b"\0\0\0\x07").code == 7


def test_a_sasl_initial_response_may_come_without_data() -> None:
    assert messages.parse_sasl_initial_response(b"M\0\xff\xff\xff\xff") == ("M", None)
    assert messages.parse_sasl_initial_response(b"M\0\0\0\0\0") == ("M", b"")


PARSERS: list[Callable[[bytes], object]] = [
    messages.parse_error,
    messages.parse_parameter_status,
    messages.parse_backend_key_data,
    messages.parse_ready_for_query,
    messages.parse_authentication,
    messages.parse_row_description,
    messages.parse_data_row,
    messages.parse_command_complete,
    messages.parse_password,
    messages.parse_sasl_initial_response,
    messages.parse_query,
]
GOOD = [packet[5:] for packet, _ in BY_HAND if packet[0]]
BEGINNINGS = st.builds(lambda good, end: good[:end], st.sampled_from(GOOD), st.integers(0, 40))


@pytest.mark.parametrize("parser", PARSERS)
@given(noise=st.binary(max_size=80) | BEGINNINGS)
def test_noise_gets_a_protocol_error_and_nothing_else(parser: Callable[[bytes], object], noise: bytes) -> None:
    try:
        parser(noise)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("parser", "packet"),
    [
        (messages.parse_error, messages.error_response("ERROR", "XX000", "x")),
        (messages.parse_parameter_status, messages.parameter_status("a", "b")),
        (messages.parse_data_row, messages.data_row([b"a", None])),
        (messages.parse_row_description, messages.row_description([("a", 25)])),
        (messages.parse_authentication, messages.authentication_sasl(["A"])),
        (messages.parse_command_complete, messages.command_complete("X")),
    ],
)
def test_a_body_cut_short_or_with_something_behind_it_is_broken(
    parser: Callable[[bytes], object], packet: bytes
) -> None:
    for end in range(len(body(packet))):
        with pytest.raises(ProtocolError):
            parser(body(packet)[:end])
    with pytest.raises(ProtocolError):
        parser(body(packet) + b"\0")


def test_the_classes_of_type_bytes_hold_the_letters_of_the_protocol() -> None:
    assert (chr(F.QUERY), chr(F.PASSWORD), chr(F.COPY_FAIL)) == ("Q", "p", "f")
    assert (chr(B.READY_FOR_QUERY), chr(B.NEGOTIATE_PROTOCOL_VERSION), chr(B.PARAMETER_DESCRIPTION)) == ("Z", "v", "t")
    for side in (F, B):
        letters = [value for name, value in vars(side).items() if name.isupper()]
        assert len(letters) == len(set(letters))


def test_the_reader_module_is_what_a_login_uses() -> None:
    stream = messages.parameter_status("a", "b") + messages.ready_for_query(b"I")
    assert [type_ for type_, _ in MessageReader().feed(stream)] == [B.PARAMETER_STATUS, B.READY_FOR_QUERY]
