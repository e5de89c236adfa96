"""`pgweir run`: a Pooler without Kubernetes, which follows its file."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from tests.pooler.process import FLAVOUR, eventually
from tests.postgres.server import PASSWORDS, PostgresServer, free_port, installations

from pgweir.bundle import INI
from pgweir_operator.cli import given
from pgweir_operator.cli.given import Unusable
from pgweir_operator.cli.run import Place, on_this_machine

ROOT = Path(__file__).parents[3]
LOCAL = (ROOT / "manifests" / "local.yaml").read_text()


@pytest.fixture(scope="module")
def target() -> Iterator[PostgresServer]:
    with PostgresServer(installations()[0]) as made:
        made.execute("DROP SCHEMA pgweir CASCADE")  # the operator's own is to be made
        yield made


class Running:
    """`pgweir run` as a process, and the file that it follows."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "pooler.yaml"
        self.file.write_text(text)
        self.port, self.http, self.metrics = free_port(), free_port(), free_port()
        self._said = folder / "said"
        words = ["run", "-f", str(self.file), "--listen", f"127.0.0.1:{self.port}"]
        words += ["--http", str(self.http), "--metrics", str(self.metrics)]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pgweir_operator.cli.main", *words],
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def said(self) -> str:
        return self._said.read_text()

    def hears(self, words: str) -> None:
        eventually(lambda: words in self.said() or self.process.poll() is not None, words, timeout=200)
        assert words in self.said(), self.said()

    def change(self, text: str) -> None:
        aside = self.file.with_suffix(".new")
        aside.write_text(text)
        aside.rename(self.file)

    def ask(self, sql: str) -> object:
        string = f"host=127.0.0.1 port={self.port} user=alice password={PASSWORDS['alice']} dbname=app"
        with psycopg.connect(string, autocommit=True) as connection:
            row = connection.execute(sql.encode()).fetchone()
            return None if row is None else row[0]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@pytest.fixture
def running(target: PostgresServer, tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path, LOCAL.replace("5432", str(target.port)).replace("change-me", "password"))
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait()


@pytest.mark.skipif(FLAVOUR != "pgweir", reason="it runs our data plane")
def test_a_pooler_runs_and_follows_its_file_and_a_bad_one_changes_nothing(running: Running) -> None:
    running.hears("is followed")
    assert running.ask("SELECT 42") == 42
    good = running.file.read_text()
    running.change(good.replace('max_client_conn: "200"', 'max_client_conn: "many"'))
    running.hears("the last good configuration goes on")
    assert running.ask("SELECT 43") == 43
    running.change(good.replace('default_pool_size: "10"', 'default_pool_size: "3"'))
    running.hears("the file changed: revision 2 runs (active)")
    running.change(good.replace("  pgbouncer:", "  paused: true\n  pgbouncer:", 1))
    running.hears("revision 3 runs (paus")
    assert running.stop() == 0
    assert running.said().endswith("stopped\n")
    assert "change-me" not in running.said()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "this is no YAML"),
        ("kind: Secret", "one object of kind Pooler"),
        (LOCAL.replace("pgweir.io/v1", "postgresql.cnpg.io/v1", 1), "apiVersion is 'postgresql.cnpg.io/v1'"),
        (LOCAL.replace("poolMode: transaction", "poolMode: trans"), "poolMode"),
        (LOCAL.replace("name: postgres-superuser\nstr", "x: 1\nstr"), "a Secret in it has no metadata.name"),
    ],
)
def test_a_file_that_cannot_be_run_says_why(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(Unusable, match=words):
        given.read(tmp_path / "p.yaml")
    with pytest.raises(Unusable, match="name a file that can be read"):
        given.read(tmp_path / "none.yaml")


def test_secrets_of_the_file_stand_for_those_of_a_cluster(tmp_path: Path) -> None:
    data = {"username": base64.b64encode(b"app").decode()}
    documents = [
        {
            "apiVersion": "pgweir.io/v1",
            "kind": "Pooler",
            "metadata": {"name": "p"},
            "spec": {"cluster": {"name": "shop"}, "instances": 2},
        },
        {"kind": "Secret", "metadata": {"name": "shop-app"}, "data": data, "stringData": {"password": "x"}},
    ]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump_all(documents))
    observed = asyncio.run(given.read(tmp_path / "p.yaml").observed())
    assert observed.cluster.found
    assert observed.cluster.app is not None
    assert observed.cluster.app.data == {"username": b"app", "password": b"x"}
    assert observed.cluster.superuser is None


def test_only_addresses_differ_from_what_a_pod_runs_on(tmp_path: Path) -> None:
    ini = "[databases]\na = host=shop-rw port=5432 dbname=b\n* = host=shop-rw port=5432\n[pgbouncer]\nlisten_addr = *\n"
    ini += "listen_port = 5432\nunix_socket_dir = /run/pgweir\npool_mode = session\n"
    place = Place("127.0.0.1", 6432, 8080, 9127, ("10.0.0.1", 5433))
    made = on_this_machine({INI: ini.encode(), "x": b"y"}, tmp_path, place, ("shop-rw", 5432))
    assert made["x"] == b"y"
    assert made[INI].decode() == (
        "[databases]\na = host=10.0.0.1 port=5433 dbname=b\n* = host=10.0.0.1 port=5433\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = 6432\nunix_socket_dir = {tmp_path}\npool_mode = session\n"
    )
