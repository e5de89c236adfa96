"""The operator's metrics and the alerts about it, as promtool judges them; no operator runs for that."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.monitoring.prometheus import promtool

from pgweir_operator.main import shown
from pgweir_operator.metrics import Metrics

RULES = Path(__file__).parents[2] / "charts" / "pgweir" / "files" / "operator-alerts.yaml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
# Each alert, by the series of a minute that bring it about, and by those of a day like any other.
TROUBLE = {
    "PgweirOperatorWithoutLeader": {"pgweir_operator_leader": "0x60"},
    "PgweirPoolersNotReady": {'pgweir_operator_poolers{ready="False",reason="MissingSecret"}': "2x60"},
    "PgweirOperatorStumbles": {'pgweir_operator_reconciles_total{result="failed"}': "0+1x60"},
    "PgweirOperatorBehind": {"pgweir_operator_backlog": "20x60"},
    "PgweirOperatorRefusedByApiServer": {'pgweir_operator_api_requests_total{verb="get",code="403"}': "0+30x60"},
    "PgweirPodsSilent": {'pgweir_operator_pod_calls_total{call="status",result="silent"}': "0+30x60"},
    "PgweirCertificateExpires": {"pgweir_operator_poolers_with_expiring_certificate": "1x60"},
}
WELL = {
    "pgweir_operator_leader": "1x60",
    'pgweir_operator_poolers{ready="False",reason="ScaledToZero"}': "3x60",
    'pgweir_operator_poolers{ready="True",reason="AllPodsReady"}': "300x60",
    'pgweir_operator_reconciles_total{result="failed"}': "2x60",
    "pgweir_operator_backlog": "0 0 40 0 0 30 0x60",
    "pgweir_operator_poolers_with_expiring_certificate": "0x60",
    'pgweir_operator_api_requests_total{verb="get",code="404"}': "0+100x60",
    'pgweir_operator_pod_calls_total{call="status",result="silent"}': "4x60",
}


def exposition() -> str:
    """What an operator shows that has done a little of everything."""
    metrics = Metrics()
    shown(
        metrics,
        leadership=SimpleNamespace(is_leader=True),
        workers=SimpleNamespace(
            by_readiness=lambda: Counter({("True", "AllPodsReady"): 3}), backlog=lambda: 0, expiring=lambda: 0
        ),
        kube=SimpleNamespace(watches=8, answers=Counter({("get", "200"): 7, ("patch", "409"): 1})),
    )
    metrics.passes.labels("settled").inc()
    metrics.calls.labels("configuration", "answered").inc()
    metrics.call_seconds.labels("configuration").observe(0.01)
    with metrics.timed(metrics.pass_seconds):
        pass
    return metrics.text().decode()


def firing(series: dict[str, str], folder: Path) -> set[str]:
    """The alerts that fire after half an hour: promtool is told to expect none, and says which there are."""
    rows = [{"series": name, "values": values} for name, values in series.items()]
    expected = [{"eval_time": "40m", "alertname": name, "exp_alerts": []} for name in ALERTS]
    test = {"interval": "1m", "input_series": rows, "alert_rule_test": expected}
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    said = promtool("test", "rules", file)
    text = said.stdout + said.stderr
    return {part.partition(",")[0].strip() for part in text.split("alertname:")[1:]} if said.returncode else set()


def test_promtool_accepts_the_rules_about_the_operator() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert TROUBLE.keys() == ALERTS.keys()
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize("alert", TROUBLE)
def test_the_trouble_fires_its_alert_and_no_other(alert: str, tmp_path: Path) -> None:
    assert firing({"pgweir_operator_leader": "1x60", **TROUBLE[alert]}, tmp_path) == {alert}


def test_on_a_day_like_any_other_nothing_fires(tmp_path: Path) -> None:
    assert firing(WELL, tmp_path) == set()


def test_an_operator_that_nobody_sees_leads_nobody(tmp_path: Path) -> None:
    assert firing({"up": "0x60"}, tmp_path) == {"PgweirOperatorWithoutLeader"}


def test_promtool_finds_nothing_to_say_about_the_operators_metrics() -> None:
    done = promtool("check", "metrics", text=exposition())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_only_grows_is_a_counter_and_every_metric_has_a_help() -> None:
    rows = exposition().splitlines()
    kinds = dict(row.split()[2:4] for row in rows if row.startswith("# TYPE pgweir"))
    helps = {row.split()[2] for row in rows if row.startswith("# HELP pgweir") and len(row.split()) > 6}
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        f"pgweir_operator_{name}_total" for name in ("reconciles", "api_requests", "pod_calls", "switchovers")
    }
    assert {name for name in kinds if not name.endswith("_created")} <= helps


def names(expression: Any) -> set[str]:
    return {word for word in str(expression).replace("(", " ").replace("{", " ").split() if word.startswith("pgweir_")}


def test_alerts_ask_for_metrics_that_exist() -> None:
    text = exposition()
    for rule in ALERTS.values():
        for name in names(rule["expr"]):
            assert f"# TYPE {name.partition('[')[0].rstrip(')')} " in text, name
