"""The keys by which clients cancel their queries: how one is made, which process gave it out, and to which client.

A key is the body of BackendKeyData: four bytes that drivers take for a process id, and the secret behind them. Its
first eight bytes are laid out as PgBouncer's are, so that both can be peers of one group:

    byte 0      the top bit is clear: the "process id" is positive
    bytes 1-2   the peer id of the process that gave it out, little endian
    byte 7      the low two bits say how many times it may still be handed on to a peer

PERF: compiled where that is possible (`pgweir.compiled`): every login is given a key.

Knows nothing of connections. Called by session/cancels (whose client?) and session/peers (whose process?).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from pgweir.protocol import framing
from pgweir.settings import PEER_ID_MAX

SHORT_KEY: Final = 8  # protocol 3.0
LONG_KEY: Final = 36  # protocol 3.2 allows up to 260; a secret of 32 bytes, as PostgreSQL's own, cannot be guessed
_HOPS: Final = 0x03
_SEVEN_BITS: Final = tuple(bytes((byte,)) for byte in range(0x80))


def make_key(noise: bytes, peer_id: int = 0) -> bytes:
    """A key out of `noise`, random bytes of the key's length; `peer_id` 0: this process has no peers."""
    if not peer_id:
        return noise if noise[0] <= 0x7F else _SEVEN_BITS[noise[0] & 0x7F] + noise[1:]
    key = bytearray(noise)
    key[0] &= 0x7F
    key[1:3] = peer_id.to_bytes(2, "little")
    key[7] |= _HOPS
    return bytes(key)


def peer_of(key: bytes) -> int:
    """The peer id of the process that gave it out (noise, where that process has no peers)."""
    return int.from_bytes(key[1:3], "little")


def next_hop(key: bytes) -> bytes | None:
    """What a peer is told; None: it was handed on often enough."""
    if not key[7] & _HOPS:
        return None
    return key[:7] + bytes((key[7] - 1,)) + key[8:]


def as_given(key: bytes) -> bytes:
    """The key as its client was given it, before it was handed on."""
    return key[:7] + bytes((key[7] | _HOPS,)) + key[8:]


def comes_from_a_peer(key: bytes) -> bool:
    """Somebody handed it on already: clients have keys with all hops left."""
    return key[7] & _HOPS != _HOPS


def derived_peer_id(address: str) -> int:
    """The peer id of a pod with this IP address, when nobody gave it one. Raises ValueError when it is none.

    WHY no hash: pods of one network are near each other, and neighbours never collide this way.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return int(parsed) % PEER_ID_MAX + 1


# A key, its owner, and those that share its "process id". PERF: one tuple for nearly every client.
_Entry: TypeAlias = "tuple[bytes, Any, _Entry | None]"


class KeyRing:
    """The keys that were given out, and to whom. PERF: not generic, so that it can be a C type (`cancel_keys.pxd`)."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        # By "process id", which is no secret. With a peer id in it, 15 of its bits are left, and two clients may share one.
        self._owners: dict[bytes, _Entry] = {}

    def add(self, key: bytes, owner: Any) -> None:
        """A key that is not in it yet."""
        process = framing.cut(key, 0, 4)
        self._owners[process] = (key, owner, self._owners.get(process))

    def remove(self, key: bytes) -> None:
        process = framing.cut(key, 0, 4)
        left = _without(self._owners.pop(process, None), key)
        if left is not None:
            self._owners[process] = left

    def find(self, key: bytes) -> Any:
        """Whose it is. The secret is compared in the same time whatever it is."""
        found = None
        for known, owner in _all(self._owners.get(key[:4])):
            if hmac.compare_digest(known, key):
                found = owner
        return found

    def has(self, key: bytes) -> bool:
        """PERF: of a key that is being made; the secret of one that was claimed is for `find`."""
        entry = self._owners.get(framing.cut(key, 0, 4))
        while entry is not None:
            if entry[0] == key:
                return True
            entry = entry[2]
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter([owner for entry in self._owners.values() for _, owner in _all(entry)])

    def __len__(self) -> int:
        return len(list(iter(self)))


def _all(entry: _Entry | None) -> Iterator[tuple[bytes, Any]]:
    while entry is not None:
        key, owner, entry = entry
        yield key, owner


def _without(entry: _Entry | None, key: bytes) -> _Entry | None:
    if entry is None:
        return None
    known, owner, others = entry
    return others if known == key else (known, owner, _without(others, key))
