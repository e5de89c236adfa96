"""A thousand idle clients cost the busy ones nothing: see crowd.py, which measures it for five thousand."""

from __future__ import annotations

import pytest
from tests.robustness.crowd import crowd, raise_descriptor_limit

CLIENTS = 1000


@pytest.mark.timeout(90)
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
    assert numbers.busy_after["queries/s"] > numbers.busy_before["queries/s"] / 10
