"""`pgweir demo`: the main job in half a minute, on this machine, with nothing but Python.

An embedded PostgreSQL stands in for the database cluster, and processes for the pods. Everything between is the
operator's own: the Pooler is parsed, PostgreSQL provisioned, the bundle rendered and pushed by the code that a cluster
runs. It ends by itself, and with a failure if anything that it claims was not so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pgweir.bundle import MANIFEST
from pgweir_operator.api.observed import ClusterFacts, Observed, PodReport, SecretFacts
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.cli.embedded import SUPERUSER, SUPERUSER_PASSWORD, EmbeddedPostgres, PostgresError
from pgweir_operator.cli.load import SCHEMA, Load
from pgweir_operator.cli.local_pod import LocalPod, PodError
from pgweir_operator.desired import desired_state
from pgweir_operator.fleet import Push
from pgweir_operator.integration.automatic import Stored, integrate
from pgweir_operator.integration.control import renewed

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "pooler.yaml"
USER, PASSWORD, DATABASE = "app", "app-password", "app"
PAUSE_DEADLINE = 20.0

screen = Console()


class DemoFailed(Exception):
    """Something that the demo claims was not so."""


def run_demo(path: Path | None, *, seconds: float, clients: int, stay: bool) -> int:
    """The exit code."""
    try:
        pooler = read_pooler(path or SAMPLE)
        asyncio.run(play(pooler, seconds=seconds, clients=clients, stay=stay))
    except (DemoFailed, PodError, PostgresError) as failure:
        screen.print(f"[bold red]failed:[/] {failure}", highlight=False)
        return 1
    except KeyboardInterrupt:
        screen.print("stopped")
    return 0


def read_pooler(path: Path) -> Pooler:
    try:
        manifest = yaml.safe_load(path.read_text())
        return Pooler.from_manifest(manifest)
    except OSError as error:
        raise DemoFailed(f"cannot read {path}: {error.strerror}; name a Pooler with --pooler FILE") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise DemoFailed(f"{path} is no Pooler: {error}") from error


async def play(pooler: Pooler, *, seconds: float, clients: int, stay: bool) -> None:
    started = time.monotonic()
    instances = min(pooler.spec.instances, 3)
    screen.print(
        f"[bold]pgweir demo[/]: Pooler {pooler.name} ({pooler.spec.pgbouncer.pool_mode.value} mode, "
        f"{instances} instances) in front of an embedded PostgreSQL",
        highlight=False,
    )
    with contextlib.ExitStack() as cleanup:
        with step("starting PostgreSQL") as done:
            server = cleanup.enter_context(EmbeddedPostgres())
            prepare(server)
            done(f"{server.installation} on port {server.port}")
        with step("provisioning and rendering with the operator's own code") as done:
            fleet = await make_fleet(pooler, server, instances)
            cleanup.callback(fleet.stop)
            done(f"role, look-up function and a bundle of {len(fleet.files)} files")
        with step("starting the data plane") as done:
            await asyncio.to_thread(fleet.start)
            done(f"{instances} processes, ready, listening on {', '.join(str(pod.port) for pod in fleet.pods)}")
        strings = [connection_string(pod) for pod in fleet.pods]
        async with Load(strings, clients) as load:
            await act(f"{clients} clients transfer money", seconds, load)
            await pause_and_resume(fleet, server, load, strings[0], seconds)
            await act("the same clients, after the pause", seconds, load)
        check_books(server, load)
        report(load, clients, seconds, time.monotonic() - started)
        how_to_connect(fleet, stay)
        if stay:
            await asyncio.Event().wait()


# -- the stage ------------------------------------------------------------------------------------------------------


def prepare(server: EmbeddedPostgres) -> None:
    """An application's user and database, as every cluster has them."""
    server.start()
    server.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")
    with psycopg.connect(server.connection_string(USER, PASSWORD, DATABASE), autocommit=True) as connection:
        connection.execute(SCHEMA)


@dataclass
class DemoFleet:
    """The pods and the bundle they run; revision and pause are said as the operator says them."""

    pods: list[LocalPod]
    files: Mapping[str, bytes]
    postgres_port: int
    revision: int = 1

    def start(self) -> None:
        for pod in self.pods:
            pod.start(pod.localized(self.files, self.postgres_port))

    def stop(self) -> None:
        for pod in self.pods:
            pod.stop()

    async def set_paused(self, paused: bool, patience: float) -> list[PodReport]:
        """Push the next revision to every pod and wait until none holds a server any more."""
        self.revision += 1
        manifest = {**json.loads(self.files[MANIFEST]), "revision": self.revision, "paused": paused}
        files = {**self.files, MANIFEST: json.dumps(manifest).encode()}

        async def push(pod: LocalPod) -> PodReport:
            bundle = Push(pod.localized(files, self.postgres_port))
            async with pod.fleet() as fleet:
                said = (
                    fleet.pause([pod.member], bundle, patience=patience) if paused else fleet.push([pod.member], bundle)
                )
                (answer,) = (await said).values()
            if not isinstance(answer, PodReport):
                raise DemoFailed(f"{pod.name}: {answer}\n{pod.log_tail()}")
            if answer.rejected_error:
                raise DemoFailed(f"{pod.name} refused the configuration: {answer.rejected_error}")
            return answer

        return list(await asyncio.gather(*(push(pod) for pod in self.pods)))


async def make_fleet(pooler: Pooler, server: EmbeddedPostgres, instances: int) -> DemoFleet:
    """What reconcile does, with this machine's facts in place of the API server's."""
    now = time.time()
    credentials = {"username": SUPERUSER.encode(), "password": SUPERUSER_PASSWORD.encode()}
    superuser = SecretFacts(f"{pooler.cluster_name}-superuser", "kubernetes.io/basic-auth", "1", credentials)
    cluster = ClusterFacts(pooler.target_host, pooler.target_port, name=pooler.cluster_name, superuser=superuser)
    observed = Observed(cluster)
    integration = await integrate(
        pooler, observed, Stored(password=secrets.token_urlsafe(24)), now=now, dial=("127.0.0.1", server.port)
    )
    if integration.result.provisioned is None:
        raise DemoFailed(f"provisioning: {integration.result.reason}: {integration.result.message}")
    desired = desired_state(pooler, observed, integration.result.provisioned, image="none")
    control = renewed(None, pooler=pooler.name, now=now)
    pods = []
    for number in range(instances):
        folder = server.directory / f"pod-{number}"
        folder.mkdir(mode=0o755)
        pods.append(LocalPod(f"{pooler.name}-{number}", folder, control))
    return DemoFleet(pods, desired.bundle_files, server.port, desired.revision)


def connection_string(pod: LocalPod) -> str:
    return f"host=127.0.0.1 port={pod.port} user={USER} password={PASSWORD} dbname={DATABASE}"


# -- the acts -------------------------------------------------------------------------------------------------------


async def act(title: str, seconds: float, load: Load) -> None:
    """Let the load run for so long and show how it goes."""
    before = load.count.committed
    with progress() as bar:
        task = bar.add_task(title, total=seconds)
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            rate = (load.count.committed - before) / max(passed, 0.1)
            bar.update(task, completed=passed, description=f"{title}: {rate:,.0f} transactions/s")
            await asyncio.sleep(0.1)
            if load.count.failures:
                raise DemoFailed(load.count.failures[0])
    done = load.count.committed - before
    if done == 0:
        raise DemoFailed(f"{title}: not one transaction in {seconds:g} s")
    screen.print(f"[green]✓[/] {title}: {done:,} transactions", highlight=False)


async def pause_and_resume(fleet: DemoFleet, server: EmbeddedPostgres, load: Load, string: str, seconds: float) -> None:
    with step("spec.paused: true, pushed to every pod") as done:
        started = time.monotonic()
        answers = await fleet.set_paused(True, PAUSE_DEADLINE)
        if any(answer.state != "paused" for answer in answers):
            raise DemoFailed(f"not paused within {PAUSE_DEADLINE:g} s: {answers}")
        took = time.monotonic() - started
        await sessions_gone(server)
        done(f"every pod proved it after {took * 1000:.0f} ms; no session of {USER!r} is left in PostgreSQL")
    before = load.count.committed
    with progress() as bar:
        task = bar.add_task("held", total=seconds)
        newcomer = asyncio.create_task(ask(string))
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            bar.update(task, completed=passed, description=f"held: {load.count.committed - before} transactions since")
            await asyncio.sleep(0.1)
    if load.count.committed != before:
        raise DemoFailed(f"{load.count.committed - before} transactions went through while paused")
    if newcomer.done():
        raise DemoFailed("a client that came during the pause was not held")
    if load.count.failures:
        raise DemoFailed(load.count.failures[0])
    screen.print(f"[green]✓[/] held for {seconds:g} s: every client waits, a newcomer too, and none failed")
    with step("spec.paused: false") as done:
        started = time.monotonic()
        await fleet.set_paused(False, PAUSE_DEADLINE)
        try:
            answer = await asyncio.wait_for(newcomer, PAUSE_DEADLINE)
        except (TimeoutError, psycopg.Error) as error:
            raise DemoFailed(f"the newcomer was not served after the pause: {error or 'no answer'}") from error
        done(f"the newcomer had its answer ({answer}) after {(time.monotonic() - started) * 1000:.0f} ms")


async def ask(string: str) -> int:
    async with await psycopg.AsyncConnection.connect(string, autocommit=True) as connection:
        row = await (await connection.execute("SELECT count(*) FROM accounts")).fetchone()
        assert row is not None
        return int(row[0])


async def sessions_gone(server: EmbeddedPostgres) -> None:
    """A session leaves pg_stat_activity a moment after its connection was closed."""
    deadline = time.monotonic() + 5
    while left := sum(user == USER for (user,) in server.execute("SELECT usename FROM pg_stat_activity")):
        if time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            continue
        raise DemoFailed(f"{left} sessions of {USER!r} are left in PostgreSQL while paused")


def check_books(server: EmbeddedPostgres, load: Load) -> None:
    """What the clients were told against what PostgreSQL has."""
    if load.count.failures:
        raise DemoFailed(load.count.failures[0])
    ((transfers,),) = server.execute("SELECT count(*) FROM transfers", DATABASE)
    ((balance,),) = server.execute("SELECT sum(balance) FROM accounts", DATABASE)
    if (transfers, balance) != (load.count.committed, 0):
        raise DemoFailed(
            f"clients were told of {load.count.committed} transactions, PostgreSQL has {transfers}; balance {balance}"
        )


def report(load: Load, clients: int, seconds: float, took: float) -> None:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("transactions, all found in PostgreSQL", f"{load.count.committed:,}")
    table.add_row("failed", "0")
    table.add_row(f"clients held by a pause of {seconds:g} s", str(clients))
    table.add_row("longest transaction, the pause included", f"{load.count.longest:.2f} s")
    table.add_row("the whole demo", f"{took:.0f} s")
    screen.print(table)


def how_to_connect(fleet: DemoFleet, stay: bool) -> None:
    pod = fleet.pods[0]
    if not stay:
        screen.print("To connect yourself, run it with --stay (make demo DEMO_ARGS=--stay).")
        return
    screen.print("Connect while it runs (Ctrl-C ends it):")
    for line in (
        f"psql 'postgresql://{USER}:{PASSWORD}@127.0.0.1:{pod.port}/{DATABASE}'",
        f"pgweir-console -h {pod.folder} -p {pod.port} -c 'SHOW POOLS'",
        f"curl http://127.0.0.1:{pod.metrics_port}/metrics",
    ):
        screen.print(f"  {line}", highlight=False, soft_wrap=True)


# -- showing --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, and then what came of it."""
    words = ""

    def done(text: str) -> None:
        nonlocal words
        words = text

    with screen.status(title):
        yield done
    screen.print(f"[green]✓[/] {title}: {words}", highlight=False)


def progress() -> Progress:
    columns: Sequence[Any] = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=screen, transient=True)
