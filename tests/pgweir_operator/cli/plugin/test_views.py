"""`kubectl pgweir clients, waiters, show, psql, status --live`: through port-forwards into running poolers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.pgweir_operator.cli.plugin.api_server import ApiServer
from tests.pooler.process import FLAVOUR, SECRETS, PoolerProcess, eventually
from tests.pooler.wire import query
from tests.postgres.server import PostgresServer, installations

from pgweir_operator.cli.plugin.psql import _ready_pod
from pgweir_operator.cli.plugin.views import together

Plugin = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.skipif(FLAVOUR != "pgweir", reason="the plugin looks into our own pods")


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    with PoolerProcess(postgres.port, settings={"default_pool_size": 1}) as made:
        yield made
    postgres.terminate_clients()


@pytest.fixture
def pods(api: ApiServer, pooler: PoolerProcess) -> ApiServer:
    """Two pods, which are one process here."""
    row = {"ready": True, "state": "active", "configRevision": 3, "clients": 99, "waitingClients": 98, "servers": 97}
    api.pooler("shop-rw", configRevision=3, readyInstances=2, pods=[{"name": name, **row} for name in ("a", "b")])
    api.pod("a", "shop-rw", pooler.http_port)
    api.pod("b", "shop-rw", pooler.http_port)
    return api


def test_clients_of_all_pods_stand_together(pods: ApiServer, pooler: PoolerProcess, plugin: Plugin) -> None:
    with pooler.connect(application_name="month_end"):
        code, printed, told = plugin("clients", "shop-rw", "--columns", "pod,application_name,user")
    assert (code, told) == (0, "")
    assert [line.split() for line in printed.splitlines()] == [
        ["pod", "application_name", "user"],
        ["a", "month_end", "alice"],
        ["b", "month_end", "alice"],
    ]


def test_waiters_say_who_holds_what_they_wait_for(pods: ApiServer, pooler: PoolerProcess, plugin: Plugin) -> None:
    with pooler.connect(application_name="hoarder") as holder:
        holder.execute("BEGIN")
        with pooler.wire() as waiter:
            waiter.say(query("SELECT 1"))
            eventually(lambda: pooler.pool()["cl_waiting"] == 1, "it waits")
            code, printed, _ = plugin("waiters", "--json")
            holder.execute("COMMIT")
    rows = json.loads(printed)
    assert (code, {row["pod"] for row in rows}) == (0, {"a", "b"})
    assert {(row["limit"], row["holder_application_name"]) for row in rows} == {("pool_size", "hoarder")}


def test_any_table_is_shown_and_one_that_is_none_is_said(pods: ApiServer, plugin: Plugin) -> None:
    code, printed, _ = plugin("show", "config", "shop-rw", "--columns", "pod,key,value")
    assert code == 0
    assert "default_pool_size" in printed
    code, _, told = plugin("show", "nonsense")
    assert code == 1
    assert "nothing at /api/v1/show/nonsense" in told


def test_a_pod_that_does_not_answer_is_named_and_the_others_are_shown(pods: ApiServer, plugin: Plugin) -> None:
    del pods.ports["b", 8080]
    code, printed, told = plugin("show", "lists", "--json")
    assert (code, {row["pod"] for row in json.loads(printed)}) == (1, {"a"})
    assert told.strip() == "port-forward to pod b: nothing listens on port 8080 of b"
    del pods.ports["a", 8080]
    assert plugin("show", "lists")[0] == 3


def test_a_pod_that_is_on_its_way_out_is_not_missed(pods: ApiServer, plugin: Plugin) -> None:
    """As in a rollout, between the list of pods and the question to each."""
    del pods.ports["b", 8080]
    pods.objects["Pod", "b"]["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    code, printed, told = plugin("show", "lists", "--json")
    assert (code, {row["pod"] for row in json.loads(printed)}, told) == (0, {"a"}, "")


def test_without_the_right_to_forward_that_is_what_is_said(pods: ApiServer, plugin: Plugin) -> None:
    pods.forbidden.add("portforward")
    code, printed, told = plugin("clients")
    assert (code, printed) == (3, "")
    assert "port-forward to pod a" in told


def test_a_pooler_that_is_not_there_and_one_without_pods(api: ApiServer, plugin: Plugin) -> None:
    api.pooler("shop-rw")
    assert plugin("clients", "shop")[2].strip() == "there is no Pooler 'shop' in namespace 'shop'; there are shop-rw"
    assert plugin("clients", "shop-rw") == (1, "", "no pod of Pooler 'shop-rw' is running\n")


def test_live_numbers_stand_in_place_of_the_operators(pods: ApiServer, plugin: Plugin) -> None:
    assert plugin("status")[1].splitlines()[1].split()[4:7] == ["198", "196", "194"]
    code, printed, told = plugin("status", "--live")
    assert (code, told) == (0, "")
    assert int(printed.splitlines()[1].split()[4]) < 10
    del pods.ports["b", 8080]
    code, _, told = plugin("status", "--live")
    assert code == 1
    assert "pod b" in told


def test_psql_goes_through_a_pod_that_is_ready_and_stays() -> None:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    leaving = {"metadata": {"name": "a", "deletionTimestamp": "2026-11-22T07:00:00Z"}, "status": ready}
    starting = {"metadata": {"name": "b"}, "status": {"phase": "Running", "conditions": []}}
    staying = {"metadata": {"name": "c"}, "status": ready}

    class Pods:
        async def pods(self, pooler: str) -> list[dict[str, Any]]:
            return [leaving, starting, staying]

    assert asyncio.run(_ready_pod(Pods(), "shop-rw")) == staying  # type: ignore[arg-type]


@pytest.mark.skipif(not any((each.bin_directory / "psql").exists() for each in installations()), reason="no psql here")
def test_psql_goes_through_a_pod_with_the_login_of_the_application(
    pods: ApiServer,
    pooler: PoolerProcess,
    plugin: Plugin,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from base64 import b64encode

    folder = next(each.bin_directory for each in installations() if (each.bin_directory / "psql").exists())
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    login = {"username": "alice", "password": SECRETS["alice"], "dbname": "app"}
    pods.put("Secret", "shop-app", data={key: b64encode(value.encode()).decode() for key, value in login.items()})
    pods.ports["a", 5432] = pooler.port
    assert plugin("psql", "shop-rw", "--", "-XAtc", "SELECT 40 + 2")[0] == 0
    assert capfd.readouterr().out == "42\n"
    assert plugin("psql", "shop-rw", "--", "-XAtc", "SELECT 1/0")[0] == 1


def test_rows_of_pods_of_different_versions_have_every_column_and_the_longest_wait_comes_first() -> None:
    number, text = "number", "text"

    def answer(rows: list[dict[str, object]], **columns: str) -> dict[str, object]:
        return {"columns": [{"name": name, "type": kind} for name, kind in columns.items()], "rows": rows}

    shown = together(
        {
            "a": answer([{"wait": 1, "wait_us": 5, "limit": "x"}], wait=number, wait_us=number, limit=text),
            "b": answer(
                [{"wait": 7, "wait_us": 0, "limit": "y", "new": 1}], wait=number, wait_us=number, limit=text, new=number
            ),
        }
    )
    assert shown.columns == (("pod", False), ("wait", True), ("wait_us", True), ("limit", False), ("new", True))
    assert shown.rows == (("b", 7, 0, "y", 1), ("a", 1, 5, "x", None))
