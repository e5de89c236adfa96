"""What a pod answers is read field by field; facts never print secrets."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir_operator.worlds import provisioned, secret

from pgweir_operator.api.observed import Holder, PodReport, Provisioned

ANSWER: dict[str, Any] = {
    "pod": "host",
    "version": "0.1.0",
    "catalogueVersion": 1,
    "revision": 7,
    "digest": "abc",
    "rejected": {"revision": 8, "error": "no"},
    "state": "pausing",
    "paused": True,
    "heldServers": 1,
    "holders": [
        {
            "clientId": 3,
            "serverPid": 99,
            "database": "shop",
            "user": "app",
            "applicationName": "psql",
            "address": "10.0.0.9:1",
            "inTransactionSeconds": 12.5,
        }
    ],
    "clients": 5,
    "waitingClients": 2,
    "servers": 1,
    "target": {"reachable": True, "lastError": None},
    "lookup": {"ok": False, "lastError": "denied"},
    "restartNeeded": ["listen_backlog"],
    "descriptors": {"limit": 64, "needed": 112},
}


def test_an_answer_is_read_whole() -> None:
    report = PodReport.from_json("p-1", ANSWER)
    assert report == PodReport(
        pod="p-1",
        revision=7,
        digest="abc",
        state="pausing",
        paused=True,
        version="0.1.0",
        rejected_revision=8,
        rejected_error="no",
        held_servers=1,
        holders=(Holder(3, 99, "shop", "app", "psql", "10.0.0.9:1", 12.5),),
        clients=5,
        waiting_clients=2,
        servers=1,
        target_reachable=True,
        lookup_ok=False,
        lookup_error="denied",
        descriptor_limit=64,
        descriptors_needed=112,
        restart_needed=("listen_backlog",),
    )


def test_nothing_rejected_is_read_as_nothing() -> None:
    report = PodReport.from_json("p", {**ANSWER, "rejected": None, "target": {"reachable": None, "lastError": None}})
    assert (report.rejected_revision, report.rejected_error, report.target_reachable) == (None, "", None)


def test_words_and_fields_of_a_newer_pod_survive() -> None:
    newer = {**ANSWER, "state": "meditating", "mood": {"calm": [1, 2]}, "catalogueVersion": 99}
    report = PodReport.from_json("p", newer)
    assert (report.state, report.catalogue_version, report.clients) == ("meditating", 99, 5)


@pytest.mark.parametrize("missing", ["revision", "digest", "state", "paused", "heldServers"])
def test_an_answer_without_a_field_names_it(missing: str) -> None:
    document = {key: value for key, value in ANSWER.items() if key != missing}
    with pytest.raises(ValueError, match=f"p .*'{missing}'"):
        PodReport.from_json("p", document)


@pytest.mark.parametrize("change", [{"revision": "x"}, {"revision": None}, {"holders": [1]}])
def test_noise_is_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PodReport.from_json("p", {**ANSWER, **change})


def test_no_repr_shows_a_secret() -> None:
    assert "hunter2" not in repr(secret("s", password="hunter2"))
    assert "password" in repr(secret("s", password="hunter2"))
    assert "hunter2" not in repr(Provisioned("u", "q", password="hunter2"))
    assert "AUTH KEY" not in repr(provisioned())
