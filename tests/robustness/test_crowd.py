"""A thousand idle clients cost the busy ones nothing: see crowd.py, which measures it for five thousand."""

from __future__ import annotations

import pytest
from tests.robustness.crowd import crowd, raise_descriptor_limit

CLIENTS = 1000


def test_a_crowd_of_idle_clients_costs_little_memory_and_next_to_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    if not raise_descriptor_limit(CLIENTS + 200):
        pytest.skip(f"the hard limit of file descriptors is below {CLIENTS + 200}")
    numbers = crowd(CLIENTS, seconds=1.0)
    with capsys.disabled():
        print(f"\n{numbers}")
    assert numbers.per_client < 30  # KiB; 3 when measured
    assert numbers.left == {}
    for times in (numbers.during, numbers.after):  # milliseconds of CPU
        assert times["tick"]["mean_ms"] < 1
        assert max(generation["max_ms"] for generation in times["gc"].values()) < 20
    # Not by the clock: others may have had the machine in one of these two seconds.
    assert numbers.busy_after["queries/cpu_s"] > numbers.busy_before["queries/cpu_s"] / 5
