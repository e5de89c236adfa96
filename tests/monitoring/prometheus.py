"""A real Prometheus (Debian's) that scrapes poolers of ours and evaluates our rules."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.pooler.process import eventually
from tests.pooler.unpacked import Unpacked, find
from tests.postgres.server import free_port, make_directory

INTERVAL = "500ms"


def find_prometheus() -> Unpacked:
    return find("prometheus", "usr/bin/prometheus", on_path="prometheus")


def promtool(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    program = find_prometheus()
    return subprocess.run(
        [program.program.with_name("promtool"), *arguments],
        input=text, env=program.environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self._base}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with self._opener.open(url, timeout=60) as answer:
                document = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{error.code}: {error.read().decode(errors='replace')}") from None
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("/api/v1/query", query=expression)["result"]
        return found

    def alerts(self) -> set[tuple[str, str]]:
        """Those that fire now: name and job."""
        found = self.ask("/api/v1/alerts")["alerts"]
        return {(each["labels"]["alertname"], each["labels"]["job"]) for each in found if each["state"] == "firing"}

    def evaluations(self) -> dict[str, str]:
        """How each rule's last evaluation went: "ok", or what is wrong."""
        groups = self.ask("/api/v1/rules")["groups"]
        return {rule["name"]: rule.get("lastError") or rule["health"] for group in groups for rule in group["rules"]}


@contextlib.contextmanager
def running(jobs: Mapping[str, Sequence[int]], rules: Mapping[str, Any]) -> Iterator[Prometheus]:
    """`jobs`: the metrics' ports of each."""
    program = find_prometheus()
    folder = make_directory("prometheus-")
    (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)))
    config = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            for job, ports in jobs.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program.program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            env=program.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        prometheus = Prometheus(port)
        eventually(lambda: prometheus.query("vector(1)"), f"Prometheus answers; {folder / 'log'}", timeout=120.0)
        yield prometheus
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
