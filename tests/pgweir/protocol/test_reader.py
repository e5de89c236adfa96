"""Messages come whole out of a stream that comes in any pieces; what is too large or no header at all is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pgweir.protocol.three_ways import three_ways

from pgweir.protocol import messages
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.reader import MessageReader


@pytest.mark.parametrize("packet", [messages.sync(), messages.query("select 1"), messages.sasl_response(b"x" * 300)])
def test_a_message_is_read_three_ways(packet: bytes) -> None:
    def read(chunks: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes]:
        reader = MessageReader()
        found = []
        for chunk in chunks:
            for message in reader.feed(chunk):
                found.append(message)
                break  # a login stops at the message that ends it
        return found, reader.rest

    assert three_ways(read, packet) == [(packet[0], packet[5:])]


def test_messages_that_came_together_are_given_one_by_one() -> None:
    reader = MessageReader()
    assert list(reader.feed(messages.flush() + messages.sync() + b"Q\0")) == [(0x48, b""), (0x53, b"")]
    assert reader.rest == b"Q\0"


def test_bytes_are_kept_even_if_nobody_asks_for_messages() -> None:
    reader = MessageReader()
    reader.feed(b"S\0\0")
    assert list(reader.feed(b"\0\x04")) == [(0x53, b"")]


def test_a_length_beyond_the_bound_is_refused_before_its_body_comes() -> None:
    with pytest.raises(ProtocolError, match="message of 101 bytes is too large here: at most 100"):
        list(MessageReader(max_size=100).feed(b"p\0\0\0\x64"))
    assert list(MessageReader(max_size=101).feed(b"p\0\0\0\x64" + b"x" * 96)) == [(0x70, b"x" * 96)]


@pytest.mark.parametrize("header", [b"p\0\0\0\x03", b"p\0\0\0\0", b"\0\0\0\0\x08"])
def test_a_header_that_cannot_be_is_shown_in_hex(header: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"bad packet header: '{header.hex()}'"):
        list(MessageReader().feed(header))


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_noise_gets_a_protocol_error_and_nothing_else(chunks: list[bytes]) -> None:
    reader = MessageReader(max_size=40)
    try:
        for chunk in chunks:
            list(reader.feed(chunk))
    except ProtocolError:
        return
    assert len(reader.rest) <= 70


@given(
    st.one_of(
        st.binary(max_size=12),
        st.binary(max_size=12).map(lambda body: b"p" + (len(body) + 4).to_bytes(4, "big") + body),
    )
)
def test_a_read_that_is_one_message_is_what_feeding_it_gives_and_nothing_else_is(data: bytes) -> None:
    reader = MessageReader(max_size=15)
    only = reader.only(data, ord("p"))
    assert reader.is_empty
    try:
        fed = list(reader.feed(data))
    except ProtocolError:
        fed = []
    if only is not None:
        assert fed == [(ord("p"), only)]
    else:
        assert len(fed) != 1 or not reader.is_empty or fed[0][0] != ord("p")


def test_behind_half_a_message_no_read_is_one_message() -> None:
    reader = MessageReader()
    reader.feed(b"p\0\0")
    assert reader.only(b"S\0\0\0\x04", ord("S")) is None
