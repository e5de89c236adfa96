"""Tables as PostgreSQL's messages, in text or in binary, as the client asked for. Pure."""

from __future__ import annotations

import struct
from typing import Final

from pgweir.admin.tables import NUMERIC_OID, Table, Value
from pgweir.protocol import messages
from pgweir.protocol.messages import INT4_OID, INT8_OID

_SIZES: Final = {INT4_OID: 4, INT8_OID: 8}
_PACKERS: Final = {INT4_OID: struct.Struct("!i"), INT8_OID: struct.Struct("!q")}
_BASE: Final = 10_000  # of NUMERIC's digits in binary

Formats = tuple[int, ...]
"""Result format codes of a Bind: none (all text), one for all columns, or one for each."""


def row_description(table: Table, formats: Formats) -> bytes:
    body = struct.pack("!H", len(table.columns))
    for at, (name, oid) in enumerate(table.columns):
        format_code = _format(formats, at)
        body += messages.cstring(name) + struct.pack("!IhIhih", 0, 0, oid, _SIZES.get(oid, -1), -1, format_code)
    return messages.message(messages.B.ROW_DESCRIPTION, body)


def data_rows(table: Table, formats: Formats) -> list[bytes]:
    binary = [oid if _format(formats, at) == 1 else None for at, (_, oid) in enumerate(table.columns)]
    return [
        messages.data_row([_value(value, oid) for value, oid in zip(row, binary, strict=True)]) for row in table.rows
    ]


def _format(formats: Formats, column: int) -> int:
    if len(formats) <= 1:
        return formats[0] if formats else 0
    return formats[column] if column < len(formats) else 0


def _value(value: Value, binary_oid: int | None) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, int) and binary_oid in _PACKERS:
        return _PACKERS[binary_oid].pack(value)
    if isinstance(value, int) and binary_oid == NUMERIC_OID:
        return numeric(value)
    return messages.encode(str(value)).replace(b"\0", b"?")


def numeric(value: int) -> bytes:
    """A whole number in NUMERIC's binary form: count of digits, weight of the first, sign, scale, digits to base 10000."""
    digits: list[int] = []
    rest = abs(value)
    while rest:
        rest, digit = divmod(rest, _BASE)
        digits.insert(0, digit)
    weight = max(len(digits) - 1, 0)
    return struct.pack(f"!hhHh{len(digits)}h", len(digits), weight, 0x4000 if value < 0 else 0, 0, *digits)
