"""Noise for parsers: random, and (what gets further in) well-formed input with a few things wrong.

How much of it: PGWEIR_FUZZ_EXAMPLES inputs for each parser; a few by default, many thousands when somebody looks for trouble
(`make fuzz`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("PGWEIR_FUZZ_EXAMPLES", "50"))

few_or_many = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    database=None,
)


@st.composite
def damaged(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """One of the samples after a few accidents."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 5)):
            case 0:
                del data[at : at + draw(st.integers(1, 8))]
            case 1:
                data[at:at] = draw(st.binary(min_size=1, max_size=6))
            case 2 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 3:
                data[at:at] = draw(
                    st.sampled_from([b"\0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"'", b'"'])
                )
            case 4:
                data[at:at] = draw(st.sampled_from(samples))
            case _:
                del data[at:]
    return bytes(data)


def noisy_bytes(*samples: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=300) if not samples else st.one_of(st.binary(max_size=300), damaged(samples))


def noisy_text(*samples: str) -> st.SearchStrategy[str]:
    """Text as files and packets give it: UTF-8, and whatever is none."""
    encoded = [sample.encode() for sample in samples]
    return noisy_bytes(*encoded).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def cuts(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in pieces; `places` are any numbers."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


PLACES = st.lists(st.integers(0, 10_000), max_size=8)
