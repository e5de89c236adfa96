"""Headers: a type and a length that counts itself."""

from pgweir.protocol import framing, messages


def test_a_message_is_its_type_its_length_and_its_body():
    assert messages.message(framing.QUERY, b"x\0") == b"Q\0\0\0\x06x\0" == messages.query("x")
    assert framing.unpack_header(b"??Z\0\0\0\5I", 2) == (framing.READY_FOR_QUERY, 5)


def test_a_header_is_packed_as_it_is_read() -> None:
    assert framing.pack_header(framing.BIND, 0x01020304) == b"B\1\2\3\4"


def test_a_string_ends_with_its_first_zero() -> None:
    assert framing.find_zero(b"a\0bc\0", 2, 6) == 4
    assert framing.find_zero(b"a\0bc\0", 2, 4) == -1
    assert framing.cut(b"a\0bc\0", 2, 4) == b"bc"
