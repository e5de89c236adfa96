"""`pgweir bench`: what it counts, and what it says when nobody answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.pgweir_operator.cli.test_files import pgweir
from tests.postgres.server import PASSWORDS, PostgresServer

from pgweir_operator.cli.bench import Result
from pgweir_operator.cli.modes import Mode

ROOT = Path(__file__).parents[3]


@pytest.fixture
def environment(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """T14: libpq's five variables and nothing else."""
    values = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGDATABASE": "app", "PGUSER": "alice"}
    for name, value in {**values, "PGPASSWORD": PASSWORDS["alice"]}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.usefixtures("environment")
def test_a_burst_is_counted_and_timed(mode: Mode) -> None:
    code, printed, told = pgweir("bench", "--mode", mode.value, "--clients", 2, "--seconds", 0.2, "--json")
    assert (code, told) == (0, "")
    found = json.loads(printed)
    assert (found["connected"], found["failed"]) == (2, 0)
    assert found["transactions"] > 0
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]


@pytest.mark.usefixtures("environment")
def test_what_fails_is_counted_with_its_words_and_is_exit_code_1() -> None:
    code, printed, told = pgweir("bench", "--clients", 1, "--seconds", 0.2, "--query", "SELECT 1/0")
    assert code == 1
    assert "division by zero" in told
    assert "failed" in printed


def test_nobody_who_lets_us_in_is_exit_code_3() -> None:
    code, _, told = pgweir("bench", "host=127.0.0.1 port=1 user=x dbname=x", "--clients", 2, "--seconds", 0.2)
    assert code == 3
    assert "2 × " in told


def test_a_quantile_is_a_time_that_was_measured() -> None:
    result = Result(times=[0.001 * number for number in range(1, 101)])
    assert [round(result.quantile(share), 3) for share in (0.5, 0.95, 0.99, 1.0)] == [0.05, 0.095, 0.099, 0.1]
    assert Result().quantile(0.99) == 0.0


def test_the_shipped_job_runs_it_with_libpqs_environment_alone() -> None:
    job = yaml.safe_load((ROOT / "manifests" / "bench-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["pgweir", "bench"]
    assert {row["name"] for row in container["env"]} == {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"}
    assert pgweir("bench", *container["args"], "--help")[0] == 0
