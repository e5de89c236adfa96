"""The soak, for a few seconds: see soak.py. `make soak` runs it for longer."""

from __future__ import annotations

from tests.robustness.soak import soak


def test_checking_clients_survive_random_kills_of_either_side() -> None:
    report = soak(10, clients=24, seed=7)
    assert not report.problems, str(report)
    # How much of it ten seconds have room for is the machine's: 1500 scenes and a dozen kills, 300 and five on a busy one.
    assert sum(report.ledger.scenes.values()) > 24
    assert report.chaos
