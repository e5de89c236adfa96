"""`kubectl pgweir` on real pods: what is there, who waits and why, pause, psql, logs, the support bundle, bench as a Job."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml
from e2e.scenarios.release import Operator
from e2e.scenarios.shop import POOLER, WAIT, Shop, until
from e2e.scenarios.typed import kubectl_pgweir

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    shop.pooler(instances=2, pgbouncer={"parameters": {"default_pool_size": "1"}})


@pytest.fixture(autouse=True)
def at_rest(shop: Shop) -> None:
    shop.pause(False)
    shop.at_rest()


def test_status_is_the_fleet_at_a_glance_and_live_asks_the_pods(shop: Shop) -> None:
    code, said, told = kubectl_pgweir(shop, "status")
    assert (code, told) == (0, "")
    assert said.splitlines()[1].split()[:3] == [POOLER, "active", "2/2"]
    with shop.holding():
        with_client = shop.start_psql(WAIT)
        until(
            lambda: kubectl_pgweir(shop, "status", "--live")[1].splitlines()[1].split()[4] == "1",
            "the client is counted",
        )
    with_client.communicate(timeout=30)


def test_who_waits_is_told_who_holds_and_the_pause_names_them(shop: Shop) -> None:
    """T18, B16: into every pod, without exec and without the token."""
    address = f"host={shop.addresses()[0]}"

    def waits() -> list[dict[str, object]]:
        code, said, told = kubectl_pgweir(shop, "waiters", POOLER, "--json")
        assert (code, told) == (0, "")
        rows: list[dict[str, object]] = json.loads(said)
        return rows

    with shop.holding() as release:
        hoarder = shop.start_psql(f"begin; {WAIT}; commit", f"{address} application_name=month_end")
        shop.until_held()
        waiter = shop.start_psql("select 42", address)
        (row,) = until(waits, "somebody waits")
        assert (row["limit"], row["holder_application_name"]) == ("pool_size", "month_end")
        shop.pause(True)
        shop.until_condition("Paused", "False", "Pausing", words="month_end")
        code, _, told = kubectl_pgweir(shop, "pause", POOLER, "--wait", "--timeout=1")
        assert code == 4
        assert "month_end" in told
        release()
        assert kubectl_pgweir(shop, "pause", POOLER, "--wait", "--timeout=30")[0] == 0
    assert kubectl_pgweir(shop, "resume", POOLER, "--wait")[0] == 0
    assert hoarder.wait(timeout=30) == 0
    assert waiter.communicate(timeout=30)[0].splitlines()[-1] == "42"


@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql on this machine")
def test_psql_goes_through_a_pod_as_the_application(shop: Shop) -> None:
    words = ("psql", POOLER, "--", "-XAtc", "select current_user, 40 + 2")
    assert kubectl_pgweir(shop, *words) == (0, "app|42\n", "")


def test_the_console_is_there_for_who_may_exec(shop: Shop) -> None:
    code, said, _ = kubectl_pgweir(shop, "psql", POOLER, "--console", "--", "-c", "SHOW VERSION")
    assert code == 0
    assert "pgweir" in said


def test_logs_say_why_a_connection_ended_with_the_pid_that_postgresql_knows(shop: Shop) -> None:
    """T17: a backend is killed, and the pod's line has its pid."""
    with shop.holding():
        victim = shop.start_psql(f"begin; {WAIT}", "application_name=victim")
        shop.until_held()
        waits = f"state = 'active' and position('{WAIT}' in query) > 0 and pid <> pg_backend_pid()"
        pid = shop.administrator(f"select pid from pg_stat_activity where {waits}")
        shop.administrator(f"select pg_terminate_backend({pid})")
        victim.communicate(timeout=60)

    def line() -> str:
        """What a container says is in the node's file a moment later."""
        code, said, told = kubectl_pgweir(shop, "logs", POOLER, "--grep", f'"server_pid": {pid}')
        assert code == 0, told
        return said

    said = until(line, "the line is there")
    assert f"server_pid={pid}" in said
    assert "close_reason=" in said


def test_the_support_bundle_has_every_pod_and_no_password(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    code, said, told = kubectl_pgweir(shop, "support-bundle", "--file", str(target), timeout=120)
    assert (code, told) == (0, ""), said
    with tarfile.open(target) as archive:
        files = {entry.name: archive.extractfile(entry).read().decode() for entry in archive.getmembers()}  # type: ignore[union-attr]
    for pod in shop.pods():
        name = pod["metadata"]["name"]
        assert any(path.endswith(f"logs/{name}.log") for path in files)
        assert any(path.endswith(f"show/{name}/show-pools.json") for path in files)
    together = "\n".join(files.values())
    assert shop.secret("app", "password") not in together
    assert "PRIVATE KEY" not in together
    assert "SCRAM-SHA-256$" not in together


def test_the_shipped_job_benches_with_the_operators_own_image(shop: Shop, operator: Operator) -> None:
    """T14."""
    job = yaml.safe_load((ROOT / "manifests" / "bench-job.yaml").read_text())
    job["metadata"]["namespace"] = shop.namespace
    (container,) = job["spec"]["template"]["spec"]["containers"]
    deployed = json.loads(
        shop.kubernetes.kubectl("get", "deployments", f"--namespace={operator.namespace}", "--output=json")
    )["items"][0]
    container["image"] = deployed["spec"]["template"]["spec"]["containers"][0]["image"]
    container["args"] = ["--clients=4", "--seconds=2"]
    for variable in container["env"]:
        if variable["name"] == "PGHOST":
            variable["value"] = POOLER
        if "valueFrom" in variable:
            variable["valueFrom"]["secretKeyRef"]["name"] = f"{shop.cluster}-app"
    shop.kubernetes.apply([job])
    shop.kubernetes.wait_for("condition=Complete", "job", "pgweir-bench", namespace=shop.namespace)
    said = shop.kubernetes.kubectl("logs", "job/pgweir-bench", namespace=shop.namespace)
    assert "4 of 4" in said
