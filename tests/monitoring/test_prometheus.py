"""The exporter, the chart's alerts and its dashboard, with a real Prometheus that scrapes real poolers.

One pooler for each trouble, all at once. First all of them are well and nothing may fire; then each gets its trouble, and each
alert must fire for the pooler that it is about. What an alert waits for (`for:`) is left out: it would only take time.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from tests.monitoring.prometheus import Prometheus, promtool, running
from tests.pooler.pod import Pod
from tests.pooler.process import PoolerProcess, Traffic, eventually
from tests.postgres.certificates import Certificates
from tests.postgres.server import PostgresServer, free_port

FILES = Path(__file__).parents[2] / "charts" / "pgweir" / "files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in ALERTS["groups"] for rule in group["rules"]}
PANELS = json.loads((FILES / "dashboard.json").read_text())["panels"]
EXPRESSIONS = {f"{panel['title']}/{target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
# Which alert is about which pooler's trouble.
EXPECTED = {
    "PgweirClientsWait": "full",
    "PgweirPostgresOutOfReach": "unreachable",
    "PgweirPausedTooLong": "paused",
    "PgweirHoldAtItsCeiling": "held",
    "PgweirConfigurationRefused": "refusing",
    "PgweirPodsDisagree": "disagreeing",
    "PgweirClientLimitNear": "crowded",
    "PgweirEventLoopLag": "slow",
    "PgweirTargetDown": "gone",
}


def without_patience(document: dict[str, Any]) -> dict[str, Any]:
    groups = [
        {**group, "rules": [{key: value for key, value in rule.items() if key != "for"} for rule in group["rules"]]}
        for group in document["groups"]
    ]
    return {"groups": groups}


class Machine:
    """Whether this machine itself is too busy to be on time: then a pooler may be late without any fault of its own."""

    def __init__(self) -> None:
        self.latest = 0.0
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            time.sleep(0.05)
            self.latest = max(self.latest, time.monotonic() - asked - 0.05)

    def stop(self) -> None:
        self._stop.set()

    def excuses(self, alert: str) -> bool:
        # A scrape has half a second.
        return alert in {"PgweirEventLoopLag", "PgweirTargetDown"} and self.latest > 0.1


@dataclass
class World:
    """Poolers by the trouble that they are to have."""

    poolers: dict[str, PoolerProcess]
    pod: Pod
    prometheus: Prometheus
    healthy: set[tuple[str, str]]  # what fired before there was any trouble
    machine: Machine
    stack: contextlib.ExitStack
    connections: list[psycopg.Connection[Any]]

    def connect(self, name: str, **options: Any) -> psycopg.Connection[Any]:
        made = self.poolers[name].connect(**options)
        self.connections.append(made)
        return made


def settings_of(certificates: Certificates) -> dict[str, dict[str, object]]:
    pair = certificates.server
    return {
        "well": {"client_tls_sslmode": "allow", "client_tls_cert_file": pair.certificate, "client_tls_key_file": pair.key},
        "full": {"default_pool_size": 1},
        "unreachable": {},
        "paused": {},
        "refusing": {},
        "disagreeing": {},
        "crowded": {"max_client_conn": 3},
        "slow": {},
        "gone": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def world(
    postgres: PostgresServer, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        connections: list[psycopg.Connection[Any]] = []
        # Last, when the poolers are gone: one that waits for an answer would wait for the thread that asked.
        stack.callback(lambda: [each.close() for each in connections])
        machine = Machine()
        stack.callback(machine.stop)
        poolers = {}
        for name, settings in settings_of(certificates).items():
            pooler = PoolerProcess(postgres.port, settings=settings)
            poolers[name] = stack.enter_context(pooler)
        other = stack.enter_context(PoolerProcess(postgres.port))
        jobs = {name: [pooler.metrics_port] for name, pooler in poolers.items()}
        jobs["disagreeing"].append(other.metrics_port)
        pod = Pod(tmp_path_factory.mktemp("pod"), f"* = host=127.0.0.1 port={postgres.port}")
        stack.callback(pod.stop)
        jobs["held"] = [pod.process.metrics_port]
        prometheus = stack.enter_context(running(jobs, without_patience(ALERTS)))
        targets = sum(len(ports) for ports in jobs.values())
        eventually(lambda: len(prometheus.query("up == 1")) == targets, "all are scraped", timeout=120.0)
        traffic = stack.enter_context(Traffic(poolers["well"], clients=2, pause=0.02))
        traffic.wait_for_more(20)
        eventually(lambda: set(prometheus.evaluations().values()) == {"ok"}, "all rules are evaluated")
        time.sleep(1.5)  # three more evaluations
        # Two processes have different ports in their ini, and so two digests from the start.
        healthy = prometheus.alerts() - {("PgweirPodsDisagree", "disagreeing")}
        made = World(poolers, pod, prometheus, healthy, machine, stack, connections)
        make_trouble(made)
        yield made


def make_trouble(world: World) -> None:
    poolers, stack = world.poolers, world.stack
    poolers["gone"].process.kill()  # type: ignore[union-attr]
    poolers["paused"].console("PAUSE")
    poolers["refusing"].settings["pool_mode"] = "no such mode"
    poolers["refusing"].write_files()
    with pytest.raises(psycopg.Error):
        poolers["refusing"].console("RELOAD")
    for _ in range(3):
        world.connect("crowded")
    world.pod.hold("h1", ceiling=0.5)
    # full: one holds, another waits
    world.connect("full").execute("BEGIN")
    _in_background(lambda: world.connect("full").execute("SELECT 1"))
    # unreachable: nobody listens where its database is now
    poolers["unreachable"].databases = {"*": f"host=127.0.0.1 port={free_port()}"}
    poolers["unreachable"].write_files()
    poolers["unreachable"].console("RELOAD")
    _in_background(lambda: world.connect("unreachable"))
    # what the dashboard has of refusals
    with pytest.raises(psycopg.Error):
        poolers["well"].connect(password="wrong")
    break_a_handshake(poolers["well"].port)
    stop = threading.Event()
    stack.callback(stop.set)
    _in_background(lambda: stall(poolers["slow"], stop))


def stall(pooler: PoolerProcess, stop: threading.Event) -> None:
    """As a CPU limit does: it runs a little, and then not at all."""
    while not stop.is_set():
        with contextlib.suppress(ProcessLookupError):
            pooler.signal(signal.SIGSTOP)
            stop.wait(0.45)
            pooler.signal(signal.SIGCONT)
        stop.wait(0.6)


def _in_background(action: Any) -> None:
    def run() -> None:
        with contextlib.suppress(Exception):  # it ends with the pooler
            action()

    threading.Thread(target=run, daemon=True).start()


def break_a_handshake(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
        assert sock.recv(1) == b"S"
        sock.sendall(b"this is no ClientHello\r\n")
        sock.recv(100)


# --- the rules ---------------------------------------------------------------------------------------------------------


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", FILES / "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_every_alert_is_provoked_here_and_says_what_to_do() -> None:
    assert EXPECTED.keys() == RULES.keys()
    for rule in RULES.values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_where_all_is_well_nothing_fires(world: World) -> None:
    assert {(alert, job) for alert, job in world.healthy if not world.machine.excuses(alert)} == set()


@pytest.mark.parametrize("alert", EXPECTED)
def test_the_alert_fires_for_the_pooler_in_trouble(world: World, alert: str) -> None:
    eventually(lambda: (alert, EXPECTED[alert]) in world.prometheus.alerts(), f"{alert} fires")
    others = {job for name, job in world.prometheus.alerts() if name == alert} - {EXPECTED[alert]}
    others -= {"slow"} if alert == "PgweirTargetDown" else set()  # while it stands still it does not answer either
    assert others == set() or world.machine.excuses(alert)


def test_the_pooler_that_is_well_stays_well(world: World) -> None:
    firing = {alert for alert, job in world.prometheus.alerts() if job == "well"}
    assert {alert for alert in firing if not world.machine.excuses(alert)} == set()


# --- the dashboard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", EXPRESSIONS)
def test_every_expression_of_the_dashboard_yields_series(world: World, panel: str) -> None:
    expression = re.sub(r"\$(namespace|job|pod)\b", ".*", EXPRESSIONS[panel]).replace("$__rate_interval", "1m")
    assert "$" not in expression
    eventually(lambda: world.prometheus.query(expression), expression)


def test_the_dashboards_numbers_are_the_poolers(world: World) -> None:
    def value(expression: str) -> float:
        (found,) = world.prometheus.query(expression) or [
            {"value": (0, "nan")}
        ]  # of a scrape that came too late there is none
        return float(found["value"][1])

    eventually(lambda: value('sum(pgweir_clients{job="crowded"})') == 3)
    eventually(lambda: value('max(pgweir_pool_wait_queue_length{job="full"})') == 1)
    eventually(lambda: 0 < value('histogram_quantile(0.5, rate(pgweir_query_seconds_bucket{job="well"}[1m]))') < 1)


# --- the exposition ----------------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_to_say_about_our_metrics(world: World) -> None:
    _, text = world.poolers["well"].get(world.poolers["well"].metrics_port, "/metrics")
    said = promtool("check", "metrics", text=text).stderr.splitlines()
    # Other people's names are as they are (a gauge called …_total, microseconds), and so are Python's.
    foreign = ("cnp_pgbouncer_", "python_", "process_")
    assert [line for line in said if not line.startswith(foreign)] == []
