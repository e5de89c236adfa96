"""`kubectl pgweir status` and `logs`: what a Pooler's status and a pod's records become on a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.pgweir_operator.cli.plugin.api_server import ApiServer

from pgweir_operator.cli.plugin.logs import sentence
from pgweir_operator.cli.plugin.status import fleet, revision, switchover

Plugin = Callable[..., tuple[int, str, str]]
NOT_READY = {
    "type": "Ready",
    "status": "False",
    "reason": "PodsNotReady",
    "message": "1 of 2 pods are not ready.\nMore.",
}
PODS = [
    {
        "name": "a",
        "ready": True,
        "state": "active",
        "configRevision": 4,
        "clients": 3,
        "waitingClients": 1,
        "servers": 2,
    },
    {"name": "b", "ready": False, "state": "unknown", "message": "it did not answer"},
]


def test_the_fleet_is_one_line_a_pooler_with_the_sums_of_its_pods(api: ApiServer, plugin: Plugin) -> None:
    api.pooler("shop-ro", readyInstances=1, configRevision=2)
    api.pooler(
        "shop-rw",
        conditions=[NOT_READY],
        phaseReason="1 of 2 pods\nMore.",
        pods=PODS,
        configRevision=4,
        readyInstances=1,
    )
    code, printed, _ = plugin("status")
    head, first, second = printed.splitlines()
    assert code == 1
    assert head.split() == [
        "NAME",
        "PHASE",
        "READY",
        "REVISION",
        "CLIENTS",
        "WAITING",
        "SERVERS",
        "PAUSED",
        "SWITCHOVER",
        "MESSAGE",
    ]
    assert first.split() == ["shop-ro", "active", "1/1", "2", "0", "0", "0"]
    assert second.split("  ")[-1] == "1 of 2 pods"
    assert " ".join(second.split()).startswith("shop-rw active 1/1 4 (1/2 pods) 3 1 2")


def test_one_pooler_has_its_conditions_and_pods(api: ApiServer, plugin: Plugin) -> None:
    api.pooler("shop-rw", conditions=[NOT_READY], pods=PODS)
    code, printed, _ = plugin("status", "shop-rw")
    assert code == 1
    assert "Ready  False   PodsNotReady  1 of 2 pods are not ready." in printed
    assert "More." not in printed
    assert printed.splitlines()[-1].split() == ["b", "no", "unknown", "it", "did", "not", "answer"]


def test_all_namespaces_have_a_column_of_their_own_and_json_has_it_all(api: ApiServer, plugin: Plugin) -> None:
    made = api.pooler("shop-rw")
    assert plugin("status", "--json")[0] == 0
    assert json.loads(plugin("status", "--json")[1]) == [
        {"name": "shop-rw", "namespace": "shop", "status": made["status"]}
    ]
    assert fleet([made], everywhere=True).rows[0][:2] == ("shop", "shop-rw")


def test_none_at_all_is_said(api: ApiServer, plugin: Plugin) -> None:
    assert plugin("status") == (0, "no Poolers in namespace shop\n", "")
    assert plugin("status", "x")[:2] == (1, "")


def test_no_cluster_is_exit_code_3(plugin: Plugin) -> None:
    code, _, told = plugin("status", "--context=elsewhere")
    assert code == 3
    assert "elsewhere" in told


def test_a_switchover_says_how_long_clients_waited() -> None:
    found = {"phase": "Done", "from": "shop-1", "to": "shop-2", "heldMilliseconds": 3120}
    assert switchover({"switchover": found}) == "Done shop-1 → shop-2, held 3.1 s"
    assert switchover({"switchover": {"phase": "Held", "id": "x"}}) == "Held"
    assert switchover({}) == ""


def test_a_revision_that_not_all_pods_run_says_how_many_do() -> None:
    assert revision({"configRevision": 4, "pods": [{"configRevision": 4}, {"configRevision": 3}]}) == "4 (1/2 pods)"
    assert revision({"configRevision": 4, "pods": [{"configRevision": 4}]}) == "4"
    assert revision({}) == ""


@pytest.mark.parametrize("state", ["draining", "leaving"])
def test_a_pod_on_its_way_out_is_not_behind(state: str) -> None:
    going = {"state": state, "configRevision": 3}
    assert revision({"configRevision": 4, "pods": [{"configRevision": 4, "state": "active"}, going]}) == "4"


def test_a_record_becomes_a_sentence_with_its_reason_and_pid() -> None:
    """T17: the pid is the one that PostgreSQL's own log and pg_stat_activity have."""
    record = {
        "level": "info",
        "ts": "2026-11-22T07:00:00.000000Z",
        "msg": "record",
        "record": {
            "level": "LOG",
            "msg": "closing",
            "client_id": 7,
            "server_pid": 4242,
            "close_reason": "server_killed",
        },
    }
    said = sentence(json.dumps(record))
    assert (
        said == "2026-11-22T07:00:00.000000Z LOG     closing  (client_id=7 server_pid=4242 close_reason=server_killed)"
    )
    assert sentence("plain") == "plain"
    assert sentence("[1]") == "[1]"


def test_logs_of_all_pods_come_each_with_its_pod_and_can_be_sifted(api: ApiServer, plugin: Plugin) -> None:
    api.pooler("shop-rw")
    for name in ("a", "bb"):
        api.pod(name, "shop-rw")
        api.logs[name] = "first\nsecond close_reason\n"
    code, printed, _ = plugin("logs", "shop-rw", "--grep", "close_reason")
    assert code == 0
    assert sorted(printed.splitlines()) == ["a   second close_reason", "bb  second close_reason"]
    assert plugin("logs", "shop-rw", "--json")[1].count("first\n") == 2
    api.forbidden.add("log")
    code, _, told = plugin("logs", "shop-rw")
    assert code == 1
    assert "a: you may not get log a" in told
    for name in ("a", "bb"):
        api.objects["Pod", name]["metadata"]["deletionTimestamp"] = "2026-11-22T07:00:00Z"
    assert plugin("logs", "shop-rw") == (0, "", ""), "who is on the way out need not answer"
