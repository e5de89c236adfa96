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
from typing import Any, Final

from pgweir.settings import PEER_ID_MAX

SHORT_KEY: Final = 8  # protocol 3.0
LONG_KEY: Final = 36  # protocol 3.2 allows up to 260; a secret of 32 bytes, as PostgreSQL's own, cannot be guessed
_HOPS: Final = 0x03


def make_key(noise: bytes, peer_id: int = 0) -> bytes:
    """A key out of `noise`, random bytes of the key's length; `peer_id` 0: this process has no peers."""
    key = bytearray(noise)
    key[0] &= 0x7F
    if peer_id:
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


class KeyRing:
    """The keys that were given out, and to whom. PERF: not generic, so that it can be a C type (`cancel_keys.pxd`)."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        # By "process id", which is no secret. With a peer id in it, 15 of its bits are left, and two clients may share one.
        self._owners: dict[bytes, dict[bytes, Any]] = {}

    def add(self, key: bytes, owner: Any) -> None:
        process = key[:4]
        same = self._owners.get(process)
        if same is None:
            self._owners[process] = {key: owner}
        else:
            same[key] = owner

    def remove(self, key: bytes) -> None:
        process = key[:4]
        same = self._owners.get(process)
        if same is not None:
            same.pop(key, None)
            if not same:
                del self._owners[process]

    def find(self, key: bytes) -> Any:
        """Whose it is. The secret is compared in the same time whatever it is."""
        found = None
        for known, owner in self._owners.get(key[:4], {}).items():
            if hmac.compare_digest(known, key):
                found = owner
        return found

    def __contains__(self, key: bytes) -> bool:
        same = self._owners.get(key[:4])
        return same is not None and key in same

    def __iter__(self) -> Iterator[Any]:
        return iter([owner for same in self._owners.values() for owner in same.values()])

    def __len__(self) -> int:
        return sum(map(len, self._owners.values()))
