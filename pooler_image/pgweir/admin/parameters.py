"""Parameters of console commands: `KILL_CLIENT $1`, for drivers and libraries that never write a value into the text. Pure.

A parameter stands for one word. `console` asks for its type when a statement is described, and for its text when it is bound.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pgweir.admin.parse import Command, ConsoleError
from pgweir.protocol.messages import INT4_OID, INT8_OID, TEXT_OID

INT2_OID: Final = 21
_INTEGERS: Final = {INT2_OID: struct.Struct("!h"), INT4_OID: struct.Struct("!i"), INT8_OID: struct.Struct("!q")}
_TEXTS: Final = (TEXT_OID, 1043, 19, 705)  # text, varchar, name, unknown

UNDEFINED_PARAMETER: Final = "42P02"


def parameter_types(command: Command | None, declared: Sequence[int]) -> tuple[int, ...]:
    """The type of each parameter, as the client declared it; text where it did not."""
    used = max(command.holes, default=0) if command is not None else 0
    count = max(used, len(declared))
    if count > used:
        raise ConsoleError(f"the command has {used} parameters, {count} are declared", UNDEFINED_PARAMETER)
    return tuple(declared[at] if at < len(declared) and declared[at] else TEXT_OID for at in range(count))


def bound(
    command: Command | None, types: Sequence[int], formats: Sequence[int], values: Sequence[bytes | None]
) -> Command | None:
    """The command with its parameters filled in. `formats`: none (all text), one for all, or one for each."""
    if len(values) != len(types):
        text = f"bind message supplies {len(values)} parameters, but the command requires {len(types)}"
        raise ConsoleError(text, "08P01")
    if command is None or not types:
        return command
    words = []
    for at, (oid, value) in enumerate(zip(types, values, strict=True)):
        form = 0 if not formats else formats[0] if len(formats) == 1 else formats[at] if at < len(formats) else 0
        words.append(_text(at + 1, oid, form, value))
    arguments = tuple(
        words[hole - 1] if hole else written for written, hole in zip(command.arguments, command.holes, strict=True)
    )
    return replace(command, arguments=arguments, holes=(0,) * len(arguments))


def _text(number: int, oid: int, form: int, value: bytes | None) -> str:
    if value is None:
        raise ConsoleError(f"parameter ${number} is null: a command's word cannot be", "22004")
    if form == 0 or oid in _TEXTS:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ConsoleError(f"parameter ${number} is no UTF-8", "22021") from None
    packer = _INTEGERS.get(oid)
    if packer is None:
        hint = "Send it as text."
        raise ConsoleError(f"parameter ${number}: no binary form of type {oid} is known here", "0A000", hint=hint)
    if len(value) != packer.size:
        raise ConsoleError(f"parameter ${number}: {len(value)} bytes are no value of type {oid}", "22P03")
    return str(packer.unpack(value)[0])
