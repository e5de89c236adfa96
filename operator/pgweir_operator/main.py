"""`pgweir-operator`: options, the Lease, and everything joined together.

A replica that does not hold the Lease waits; one that loses it exits, and Kubernetes starts it anew. Reads the
environment and the command line; decides nothing about Poolers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any

import typer

from pgweir_operator import handlers
from pgweir_operator.api import names
from pgweir_operator.desired import default_image
from pgweir_operator.kopf_loop import watch_poolers
from pgweir_operator.kube import Access, ApiError, Kube, connect
from pgweir_operator.kube.cache import Cache
from pgweir_operator.kube.connection import ConfigException, own_namespace
from pgweir_operator.kube.events import Events
from pgweir_operator.kube.lease import Leadership
from pgweir_operator.kube.watches import ObjectWatches
from pgweir_operator.metrics import Metrics
from pgweir_operator.passes import RECHECK, Options
from pgweir_operator.reconcile import Reconciler
from pgweir_operator.serving import EVERYWHERE, serve
from pgweir_operator.switchover import Switchovers
from pgweir_operator.workers import Key, Workers

logger = logging.getLogger("pgweir_operator")

LEASE = "pgweir-operator"
EXIT_LOST_LEASE = 3
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@application.command()
def run(
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            envvar="PGWEIR_NAMESPACES", help="Serve Poolers of this namespace; repeat for more. Default: all."
        ),
    ] = None,
    kubeconfig: Annotated[str | None, typer.Option(help="Kubeconfig file, outside a cluster.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    listen: Annotated[
        str, typer.Option(help="ADDRESS:PORT of /healthz, /readyz and /metrics; * is every address.")
    ] = f"{EVERYWHERE}:8080",
    lease_namespace: Annotated[
        str | None, typer.Option(help="Namespace of the Lease. Default: the operator's own.")
    ] = None,
    control_port: Annotated[
        int, typer.Option(envvar="PGWEIR_CONTROL_PORT", help="Port of the pods' control endpoint.")
    ] = names.PORT_CONTROL,
    dial_target: Annotated[
        str | None,
        typer.Option(
            envvar="PGWEIR_DIAL_TARGET",
            help="HOST:PORT to provision at, where the names of Services do not resolve (development).",
        ),
    ] = None,
    exec_in_primary: Annotated[
        bool,
        typer.Option(
            envvar="PGWEIR_EXEC_IN_PRIMARY",
            help="Provision by psql in the primary's pod where there is no superuser's Secret (needs pods/exec).",
        ),
    ] = False,
    recheck: Annotated[float, typer.Option(help="Seconds after which each Pooler is looked at anew.")] = RECHECK,
    log_level: Annotated[str, typer.Option(envvar="PGWEIR_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Turn Poolers into running, verified fleets."""
    _log(log_level)
    options = Options(
        image=default_image(os.environ, version("pgweir")),
        namespaces=tuple(namespace or ()),
        control_port=control_port,
        dial_target=_address(dial_target, "--dial-target") if dial_target else None,
        recheck=recheck,
        exec_in_primary=exec_in_primary,
        namespace=own_namespace() or "",
    )
    access = Access(kubeconfig=kubeconfig, context=context)
    where = lease_namespace or own_namespace() or "default"
    try:
        status = asyncio.run(_operate(access, options, where, _address(listen, "--listen")))
    except ConfigException as error:
        raise SystemExit(f"No API server: {error}. Give --kubeconfig, or run in a cluster.") from None
    raise SystemExit(status)


def main() -> None:
    application(prog_name="pgweir-operator")


async def _operate(access: Access, options: Options, lease_namespace: str, listen: tuple[str, int]) -> int:
    pod = os.environ.get("POD_NAME", "")
    identity = f"{pod or socket.gethostname()}_{secrets.token_hex(4)}"
    stop = asyncio.Event()
    _stop_at_signals(stop)
    metrics = Metrics()
    async with Kube(await connect(access)) as kube:
        leadership = Leadership(kube, namespace=lease_namespace, name=LEASE, identity=identity, pod=pod)
        events = Events(kube, instance=identity)
        switchovers = Switchovers(
            kube,
            events,
            lambda key: workers.wake(key, "a switchover", known_only=True),
            ended=lambda outcome: metrics.switchovers.labels(outcome).inc(),
        )
        watches: ObjectWatches[Key] = ObjectWatches(kube, lambda key, change: ears.other(key, change))
        kube.on_answer = watches.answered
        cache = Cache(kube, watches, switchovers.watches)
        reconciler = Reconciler(kube, cache, events, options, switchovers, metrics=metrics)
        workers = Workers(
            reconciler.reconcile,
            lambda key, outcome: handlers.settled(watches, workers, key, outcome),
            rest=options.recheck,
            metrics=metrics,
        )
        ears = handlers.Ears(workers, switchovers)
        reconciler.rollouts.on_free = lambda key: workers.wake(key, "its turn to roll", known_only=True)
        shown(metrics, leadership=leadership, workers=workers, kube=kube)
        state = _State(watches, workers)
        try:
            server = await serve(listen, metrics, unhealthy=state.unhealthy, unready=state.unready)
        except OSError as error:
            raise SystemExit(f"--listen {listen[0]}:{listen[1]} cannot be listened on: {error.strerror}") from None
        try:
            if not await _unless(stop, _wait_for_crd(kube, state)):
                return 0
            # One that stands by watches, too: it could lead at once.
            handlers.watch_children(watches, options.namespaces)
            state.is_watching = True
            if not await _unless(stop, leadership.acquire()):
                return 0
            return await _lead(access, options, leadership, workers, switchovers, watches, ears, stop)
        finally:
            await workers.close()
            await switchovers.close()
            await watches.close()
            await leadership.release()
            await server.cleanup()


class _State:
    """What the probes ask for."""

    def __init__(self, watches: ObjectWatches[Key], workers: Workers) -> None:
        self._watches = watches
        self._workers = workers
        self.waits_for = "the start is not over"
        self.is_watching = False

    def unhealthy(self) -> str:
        if not self._watches.are_alive():
            return "a watch has ended that should not"
        return "" if self._workers.are_alive() else "a Pooler has lost the task that looks after it"

    def unready(self) -> str:
        if not self.is_watching:
            return self.waits_for
        return "" if self._watches.are_whole() else "not all that is watched has come yet"


def shown(metrics: Metrics, *, leadership: Leadership, workers: Workers, kube: Kube) -> None:
    """What the rooms know anyway, as metrics."""
    metrics.gauge("pgweir_operator_leader", "1 where this replica holds the Lease.", lambda: leadership.is_leader)
    metrics.sorted(
        "pgweir_operator_poolers",
        "Poolers that are looked after, by status and reason of their condition Ready.",
        ("ready", "reason"),
        workers.by_readiness,
    )
    metrics.gauge("pgweir_operator_backlog", "Poolers that wait for a pass.", workers.backlog)
    metrics.gauge(
        "pgweir_operator_poolers_with_expiring_certificate",
        "Poolers with a certificate that expires within five days, or has.",
        workers.expiring,
    )
    metrics.gauge("pgweir_operator_watches", "Watches that are open, one connection each.", lambda: kube.watches)
    metrics.tallied(
        "pgweir_operator_api_requests",
        "Requests to the API server by verb and status code; a watch counts when it is opened.",
        ("verb", "code"),
        lambda: kube.answers,
    )


async def _lead(
    access: Access,
    options: Options,
    leadership: Leadership,
    workers: Workers,
    switchovers: Switchovers,
    watches: ObjectWatches[Key],
    ears: handlers.Ears,
    stop: asyncio.Event,
) -> int:
    """Until told to stop, or until the Lease is lost: then nothing more is written, and we go."""
    ears.lead(watches, options.namespaces)
    watching = asyncio.create_task(watch_poolers(access, options.namespaces, ears.pooler), name="kopf")
    lost = asyncio.create_task(leadership.keep(), name="lease")
    told = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({watching, lost, told}, return_when=asyncio.FIRST_COMPLETED)
    was_lost = lost.done()
    if was_lost:
        logger.error("leadership is lost; exiting")
    for task in (lost, told):
        task.cancel()
    # First nothing is written any more, then the next replica may lead, and only then kopf takes its time to end.
    await workers.close()
    await switchovers.close()
    await watches.close()
    await leadership.release()
    watching.cancel()
    try:
        await watching
    except asyncio.CancelledError:
        pass
    return EXIT_LOST_LEASE if was_lost else 0


def _stop_at_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _unless(stop: asyncio.Event, work: Any) -> bool:
    """Whether the work came to its end before we were told to stop."""
    task, told = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    return False


async def _wait_for_crd(kube: Kube, state: _State) -> None:
    """kopf would look once at its start and never see a CRD that comes later."""
    said = False
    while True:
        try:
            if await kube.knows(names.API_VERSION, names.KIND):
                return
            trouble = f"the kind {names.KIND} of {names.API_VERSION} is not installed: apply crds/"
        except ApiError as error:
            trouble = error.message
        state.waits_for = trouble
        if not said:
            logger.warning("waiting: %s", trouble)
            said = True
        await asyncio.sleep(2.0)


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise SystemExit(f"{option} is {text!r}: write ADDRESS:PORT, for example 127.0.0.1:5432")
    return host.strip("[]"), int(port)


class _JsonLines(logging.Formatter):
    """One JSON object per line, as the pods write theirs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _log(level: str) -> None:
    if level.upper() not in LOG_LEVELS:
        raise SystemExit(f"--log-level is {level!r}: write {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What kopf says of each event belongs to its own debugging.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
