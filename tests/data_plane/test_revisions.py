"""A pod goes from revision to revision and never back, whoever tries: a late mount, the console, a leader of yesterday.

A pod's own process. Its mounted bundle stays at revision 1 all the while, as where the kubelet is late.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pooler.pod import Pod
from tests.postgres.server import PostgresServer


@pytest.fixture
def pod(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pod]:
    made = Pod(tmp_path, f"* = host=127.0.0.1 port={postgres.port}", default_pool_size="1")
    yield made
    made.stop()


def pool_size(pod: Pod) -> str:
    return next(row["value"] for row in pod.console("SHOW CONFIG") if row["key"] == "default_pool_size")


def test_neither_a_late_mount_nor_the_console_nor_a_stale_leader_takes_a_revision_back(pod: Pod) -> None:
    assert pool_size(pod) == "1"
    third = pod.push(3, paused=False, default_pool_size="3")
    assert (third.revision, pool_size(pod)) == (3, "3")

    pod.console("RELOAD")
    assert (pod.report().revision, pool_size(pod)) == (3, "3"), "what is mounted is late"

    pod.console("SET default_pool_size = 9")
    pod.console("RELOAD")
    assert pool_size(pod) == "3", "what somebody set there is gone with the next look"

    for stale in (2, 3):
        answer = pod.push(stale, paused=True, default_pool_size="2")
        assert (answer.revision, answer.digest, answer.state) == (3, third.digest, "active"), stale
    assert pool_size(pod) == "3"
