"""Headers: a type and a length that counts itself."""

from pgweir.protocol import framing, messages


def test_a_message_is_its_type_its_length_and_its_body():
    assert messages.message(framing.QUERY, b"x\0") == b"Q\0\0\0\x06x\0" == messages.query("x")
    assert framing.unpack_header(b"??Z\0\0\0\5I", 2) == (framing.READY_FOR_QUERY, 5)
