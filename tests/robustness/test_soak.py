"""The soak, for a few seconds: see soak.py. `make soak` runs it for longer."""

from __future__ import annotations

from tests.robustness.soak import soak


def test_checking_clients_survive_random_kills_of_either_side() -> None:
    report = soak(10, clients=24, seed=7)
    assert not report.problems, str(report)
    assert sum(report.ledger.scenes.values()) > 100
    assert len(report.chaos) > 3
