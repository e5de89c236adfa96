"""Keys: what they look like to drivers and to PgBouncer, and that they lead back to their client and to nobody else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol.cancel_keys import (
    LONG_KEY,
    SHORT_KEY,
    KeyRing,
    as_given,
    comes_from_a_peer,
    derived_peer_id,
    make_key,
    next_hop,
    peer_of,
)
from pgweir.settings import PEER_ID_MAX

NOISE = st.sampled_from((SHORT_KEY, LONG_KEY)).flatmap(lambda size: st.binary(min_size=size, max_size=size))
PEER_IDS = st.integers(1, PEER_ID_MAX)


def test_a_key_has_its_peer_id_and_its_hops_where_pgbouncer_has_them() -> None:
    assert make_key(bytes(8), 0x1234).hex() == "0034120000000003"
    assert make_key(b"\xff" * 8, 1).hex() == "7f0100ffffffffff"
    assert make_key(b"\xf0" * 8).hex() == "70f0f0f0f0f0f0f0"  # and none of that where there are no peers


@given(NOISE, PEER_IDS)
def test_whatever_the_noise_the_pid_is_positive_and_the_peer_is_found(noise: bytes, peer_id: int) -> None:
    key = make_key(noise, peer_id)
    assert len(key) == len(noise)
    assert int.from_bytes(key[:4], "big", signed=True) > 0
    assert peer_of(key) == peer_id
    assert not comes_from_a_peer(key)


@given(NOISE, PEER_IDS)
def test_a_key_is_handed_on_three_times_and_then_no_more(noise: bytes, peer_id: int) -> None:
    ring = KeyRing()
    key: bytes | None = make_key(noise, peer_id)
    assert key is not None
    ring.add(key, "alice")
    for _ in range(3):
        key = next_hop(key)
        assert key is not None
        assert comes_from_a_peer(key)
        assert peer_of(key) == peer_id
        assert ring.find(key) is None
        assert ring.find(as_given(key)) == "alice"
    assert next_hop(key) is None


@given(NOISE, PEER_IDS, st.integers(0, LONG_KEY * 8 - 1))
def test_a_key_that_differs_in_one_bit_is_nobodys(noise: bytes, peer_id: int, bit: int) -> None:
    ring = KeyRing()
    key = make_key(noise, peer_id)
    ring.add(key, "alice")
    place, mask = bit // 8 % len(key), 1 << bit % 8
    wrong = key[:place] + bytes((key[place] ^ mask,)) + key[place + 1 :]
    assert ring.find(wrong) is None


def test_a_short_key_is_not_the_beginning_of_a_long_one() -> None:
    ring = KeyRing()
    key = make_key(os.urandom(LONG_KEY))
    ring.add(key, "alice")
    assert ring.find(key[:SHORT_KEY]) is None
    assert ring.find(key + b"\0") is None


def test_two_clients_with_one_process_id_keep_apart_and_leave_nothing_behind() -> None:
    ring = KeyRing()
    one, two = make_key(b"pid!aaaa"), make_key(b"pid!bbbb")
    ring.add(one, "alice")
    ring.add(two, "bob")
    assert (ring.find(one), ring.find(two), len(ring), set(ring)) == ("alice", "bob", 2, {"alice", "bob"})
    ring.remove(one)
    assert (ring.find(one), ring.find(two)) == (None, "bob")
    assert not ring.has(one)
    assert ring.has(two)
    ring.remove(two)
    ring.remove(two)
    assert len(ring) == 0
    assert not ring._owners


def test_neighbours_have_peer_ids_of_their_own() -> None:
    ids = {derived_peer_id(f"10.244.{part}.{host}") for part in range(60) for host in range(256)}
    assert len(ids) == 60 * 256
    assert min(ids) >= 1
    assert max(ids) <= PEER_ID_MAX


@pytest.mark.parametrize(
    ("one", "other"), [("10.0.0.5", "::ffff:10.0.0.5"), ("fd00::1", "fd00:0:0:0:0:0:0:1"), ("10.0.0.1", "10.0.64.0")]
)
def test_other_spellings_and_distant_addresses_share_an_id(one: str, other: str) -> None:
    assert derived_peer_id(one) == derived_peer_id(other)


@pytest.mark.parametrize("address", ["", "shop-peers", "10.0.0", "10.0.0.1:5432"])
def test_what_is_no_address_has_no_peer_id(address: str) -> None:
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        derived_peer_id(address)
