"""`kubectl pgweir pause` and `resume`: what is written, and what is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.pgweir_operator.cli.plugin.api_server import ApiServer

Plugin = Callable[..., tuple[int, str, str]]


def paused(status: str, generation: int, message: str = "", reason: str = "x") -> list[dict[str, Any]]:
    return [
        {"type": "Paused", "status": status, "reason": reason, "message": message, "observedGeneration": generation}
    ]


def test_without_wait_the_spec_says_it_and_that_is_all(api: ApiServer, plugin: Plugin) -> None:
    made = api.pooler("shop-rw")
    assert plugin("pause", "shop-rw")[0] == 0
    assert made["spec"]["paused"] is True
    assert plugin("resume", "shop-rw")[0] == 0
    assert made["spec"]["paused"] is False
    assert "pgbouncer" not in made["spec"]


def test_a_resume_ends_a_pause_in_either_spelling(api: ApiServer, plugin: Plugin) -> None:
    made = api.pooler("shop-rw")
    made["spec"]["pgbouncer"] = {"paused": True, "poolMode": "session"}
    plugin("resume", "shop-rw")
    assert made["spec"]["pgbouncer"] == {"paused": False, "poolMode": "session"}


def test_wait_does_not_believe_a_condition_of_another_generation(api: ApiServer, plugin: Plugin) -> None:
    made = api.pooler("shop-rw", conditions=paused("True", 1), instances=2, pausedInstances=2)
    code, _, told = plugin("pause", "shop-rw", "--wait", "--timeout", 0.5)
    assert code == 4
    assert "the operator has not answered yet" in told

    def answer() -> None:
        time.sleep(0.4)
        made["status"]["conditions"] = paused("True", 10)

    threading.Thread(target=answer).start()
    code, printed, _ = plugin("pause", "shop-rw", "--wait", "--timeout", 20)
    assert code == 0
    assert printed.startswith("pooler shop-rw: paused: no pod holds a server (after")


def test_at_the_deadline_the_holders_are_named_and_the_pause_goes_on(api: ApiServer, plugin: Plugin) -> None:
    made = api.pooler("shop-rw", conditions=paused("False", 10, "1 client holds a server: pod a, client 7, pid 4242."))
    code, printed, told = plugin("pause", "shop-rw", "--wait", "--timeout", 0.1)
    assert (code, printed) == (4, "")
    assert "client 7, pid 4242" in told
    assert "kubectl pgweir resume shop-rw gives it up" in told
    assert made["spec"]["paused"] is True


def test_a_resume_is_waited_for_until_no_pod_is_held_back(api: ApiServer, plugin: Plugin) -> None:
    held = paused("False", 10, "Not resumed yet: shop-rw-a.", "Resuming")
    made = api.pooler("shop-rw", conditions=held, instances=2)
    code, printed, told = plugin("resume", "shop-rw", "--wait", "--timeout", 0.1)
    assert (code, printed) == (4, "")
    assert "shop-rw is not resumed after 0.1 s: Not resumed yet: shop-rw-a." in told
    made["status"]["conditions"] = paused("False", 10, "No pause is asked for.", "NotAsked")
    assert plugin("resume", "shop-rw", "--wait", "--timeout", 5)[0] == 0


def test_what_is_not_there_or_not_allowed(api: ApiServer, plugin: Plugin) -> None:
    assert plugin("pause", "nothing")[0] == 1
    api.pooler("shop-rw")
    api.forbidden.add("Pooler")
    assert plugin("pause", "shop-rw")[0] == 3
