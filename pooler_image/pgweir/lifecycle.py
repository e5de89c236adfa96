"""The life of a pooler process: start → serve → drain → stop.

`Service` ties the rooms together: configuration, edge, pooler, listeners, and the rooms of `admin` that look in. Signals mean
what they mean to PgBouncer. `executable` makes one and runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from pgweir import __version__, compiled
from pgweir import log as logs
from pgweir.admin import control, metrics, rest
from pgweir.admin.console import open_console
from pgweir.admin.nodes import Nodes
from pgweir.admin.service import Consoles, Reloads
from pgweir.bundle import Bundle
from pgweir.bundle_store import BundleStore
from pgweir.config import Config, load
from pgweir.net.descriptors import Descriptors
from pgweir.net.edge import NetworkEdge
from pgweir.net.listener import Listeners
from pgweir.net.tls import build_contexts
from pgweir.pool.stats import Timings
from pgweir.session import upkeep
from pgweir.session.operations import OperationError, Operations
from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)

TICK: Final = 1 / 3  # seconds; PgBouncer's janitor runs as often
ShutdownMode = Literal["immediate", "wait_for_servers", "wait_for_clients"]
State = Literal["active", "pausing", "paused", "draining"]


class StartError(Exception):
    """The process cannot start like this; the message says what to do."""


class Closer(Protocol):
    """Something that was started and can be ended."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said, beyond the configuration file."""

    config_path: Path
    state_dir: Path | None = None  # set: the configuration's folder is a bundle (an operator manages this process)
    http_listen: str | None = None
    metrics_listen: str | None = None
    metrics_prefix: str = metrics.DEFAULT_PREFIX
    metrics_tls: bool = False  # with the certificate that clients are shown
    control_listen: str | None = None
    control_dir: Path | None = None
    drain_accept_seconds: float = 0.0  # after SIGTERM, still accept for this long
    drain_seconds: float | None = None  # and give clients this long; None: PgBouncer's SIGTERM, which waits for ever
    peers_host: str | None = None  # a name that leads to every pod of the Deployment
    peers_address: str = ""  # the address by which it leads to this one


class Service:
    """One running pooler."""

    def __init__(self, options: Options, config: Config, bundle: Bundle | None, store: BundleStore | None) -> None:
        self.options = options
        self.version = __version__
        self.started_at = time.time()
        self.config_path = options.config_path
        self.bundle = bundle
        self.store = store
        self.stopping = False
        edge = NetworkEdge(build_contexts(config))
        self.edge = edge
        self.pooler = Pooler(config, edge)
        edge.pooler = self.pooler
        self.operations = Operations(self.pooler)
        if options.peers_host:
            self.pooler.cancels.peers.discover(options.peers_host, options.peers_address)
        self.consoles = Consoles()
        self.nodes = Nodes()
        self.reloads = Reloads()
        self.loop_lag = Timings()
        self.descriptors = Descriptors()
        self.pooler.open_console = lambda login, wire, admin: open_console(self, login, wire, admin)
        self.listeners = Listeners(self.pooler, edge.streams)
        self._rooms: list[Closer] = []
        self._metrics_tls: ssl.SSLContext | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._pidfile = ""
        self._stopped = asyncio.Event()
        self._stop_when: Callable[[], bool] | None = None
        self._shutting_down: ShutdownMode | None = None

    # --- what others ask -----------------------------------------------------------------------------------------------

    @property
    def listening(self) -> bool:
        return self.listeners.listening

    @property
    def state(self) -> State:
        if self.stopping:
            return "draining"
        if not self.pooler.paused:
            return "active"
        return "pausing" if self.operations.held_servers() else "paused"

    # --- start, serve, stop --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until a signal or a SHUTDOWN ends it."""
        try:
            await self._start()
            await self._stopped.wait()
        finally:
            await self._close()

    async def _start(self) -> None:
        settings = self.pooler.settings
        for warning in self.pooler.config.warnings:
            log.warning("%s", warning)
        self._provide_descriptors()
        if self.bundle is not None and self.bundle.paused:
            self.operations.pause()
        await self._open_rooms()  # first, so that whoever finds the pooler listening finds these too
        loop = asyncio.get_running_loop()
        for signal_number, action in (
            (signal.SIGHUP, self._on_reload),
            (signal.SIGTERM, self._on_terminate),
            (signal.SIGINT, lambda: self._on_shutdown_signal("wait_for_servers")),
            (signal.SIGQUIT, lambda: self.shutdown("immediate")),
            (signal.SIGUSR1, lambda: self._quietly(self.operations.pause, "got SIGUSR1, pausing")),
            (signal.SIGUSR2, lambda: self._quietly(self.operations.resume, "got SIGUSR2, resuming")),
        ):
            loop.add_signal_handler(signal_number, action)
        await self.listeners.start()
        for address, port in self.listeners.tcp_addresses:
            log.info("listening on %s:%d", address, port)
        self._pidfile = settings.pidfile
        _write_pidfile(self._pidfile)
        gc.collect()
        gc.freeze()  # PERF: what exists now lives as long as the process
        # PERF: a pass costs 0.35 µs an object, so these take 0.7 and 4 ms at most. Traffic makes no net objects, and sessions
        # make no circles (tests/robustness/test_leaks.py): what the passes walk is what thousands of new clients have brought.
        gc.set_threshold(2_000, 5, 1_000)
        self._ticker = loop.create_task(self._tick())
        transport = "its own" if self.edge.streams is not None else "uvloop's"
        text = "process up: pgweir %s (%s, on %s transport), pid %d"
        log.info(text, self.version, compiled.FORM, transport, os.getpid())
        if compiled.WHY_PLAIN:
            log.info("the plain form of the data plane runs, which takes more CPU: %s", compiled.WHY_PLAIN)

    async def _open_rooms(self) -> None:
        options = self.options
        if options.metrics_listen:
            self._metrics_tls = metrics.tls(self.pooler.config) if options.metrics_tls else None
            room = metrics.start(self, options.metrics_listen, options.metrics_prefix, self._metrics_tls)
            await self._open("--metrics-listen", room)
        if options.http_listen:
            await self._open("--http-listen", rest.start(self, options.http_listen))
        if options.control_listen:
            await self._open("--control-listen", control.start(self, options.control_listen))

    async def _open(self, option: str, room: Awaitable[Closer]) -> None:
        try:
            self._rooms.append(await room)
        except (OSError, ValueError) as error:  # SSLError among them
            raise StartError(f"{option}: {getattr(error, 'strerror', None) or error}") from None

    async def _close(self) -> None:
        """After a start that failed, too: streams hold a place in the loop."""
        if self._ticker is not None:
            self._ticker.cancel()
        self.listeners.stop()
        for client in list(self.pooler.clients):
            client.wire.close()
        for server in list(self.pooler.servers()):
            if server.wire is not None:
                server.wire.close()
        for room in self._rooms:
            await room.close()
        await self.edge.close()
        await asyncio.sleep(0)  # let the goodbyes out
        if self._ticker is not None:
            _remove_pidfile(self._pidfile)
            log.info("process down")

    async def _tick(self) -> None:
        next_stats = time.monotonic() + self.pooler.settings.stats_period
        while True:
            asked = time.monotonic()
            await asyncio.sleep(TICK)
            self.loop_lag.observe(time.monotonic() - asked - TICK)
            try:
                self.descriptors.look(time.monotonic())
                upkeep.tick(self.pooler)
                self.edge.refresh_names()
                if self.pooler.draining:
                    self.operations.release_idle_clients()
                if self._shutting_down and self._stop_when is not None and self._stop_when():
                    self._stopped.set()
                self.operations.tick()
                if time.monotonic() >= next_stats:
                    next_stats += self.pooler.settings.stats_period
                    self._end_stats_period()
            except Exception:
                log.exception("the janitor stumbled; it goes on")

    def _end_stats_period(self) -> None:
        now = self.pooler.clock()
        for database in self.pooler.databases.values():
            database.averages.rotate(self.pooler.stats(database), now)
        if self.pooler.settings.log_stats:
            log.info("%s", metrics.stats_line(self.pooler))

    def _provide_descriptors(self) -> None:
        config = self.pooler.config
        names = list(config.databases) or ["*"]
        servers = sum(config.pool_size(name, "") + config.reserve_pool_size(name, "") for name in names)
        self.descriptors.provide(config.settings.max_client_conn, servers)

    # --- configuration -------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again. Raises ConfigError, and then nothing has changed."""
        try:
            # The bundle that runs is the truth; a file that changed under it comes with a higher revision, or not at all.
            store, bundle = self.store, self.bundle
            self.apply(load(self.config_path) if store is None or bundle is None else store.load(bundle))
        except Exception as error:
            self.reloads.refuse(str(error))
            raise
        self.reloads.took(time.time())

    def apply(self, config: Config) -> None:
        """Take a configuration that loaded. Raises ConfigError when its certificates do not."""
        contexts = build_contexts(config)
        for warning in config.warnings:
            log.warning("%s", warning)
        if self._metrics_tls is not None:
            metrics.renew(self._metrics_tls, config)
        self.edge.contexts = contexts
        self.operations.apply(config)
        self.listeners.retune()
        self._provide_descriptors()
        logs.reconfigure(config.settings)

    def _on_reload(self) -> None:
        log.info("got SIGHUP, re-reading the configuration")
        try:
            self.reload()
        except Exception as error:  # a bad file must not end the process: the last good configuration serves
            log.error("RELOAD failed: %s", error)

    # --- the end ---------------------------------------------------------------------------------------------------------

    def shutdown(self, mode: ShutdownMode) -> None:
        """SHUTDOWN, as the console has it."""
        self.stopping = True
        self._shutting_down = mode
        if mode == "immediate":
            self._stopped.set()
            return
        self.listeners.stop_tcp()
        self.pooler.accepting = False
        if mode == "wait_for_servers":
            self._quietly(self.operations.pause)
            self.operations.refuse_waiting()
            self._stop_when = lambda: self.operations.held_servers() == 0
        else:
            self._stop_when = self._nobody_is_in

    def _on_shutdown_signal(self, mode: ShutdownMode) -> None:
        log.info("got a signal to stop (%s)", mode)
        self.shutdown("immediate" if self.stopping else mode)

    def _on_terminate(self) -> None:
        if self.stopping or self.options.drain_seconds is None:
            self._on_shutdown_signal("wait_for_clients")
            return
        log.info("got SIGTERM, draining: accepting for %gs more", self.options.drain_accept_seconds)
        self.stopping = True  # not ready from now on
        loop = asyncio.get_running_loop()
        loop.call_later(self.options.drain_accept_seconds, self._drain)
        loop.call_later(self.options.drain_accept_seconds + self.options.drain_seconds, self._drain_over)

    def _drain(self) -> None:
        """Clients leave at the end of their transaction; those of session pools when they like, until the deadline."""
        self._shutting_down = "wait_for_clients"
        if self.pooler.cancels.peers.discovered:
            self.pooler.accepting = False  # but cancel requests still come, from the pods that clients reach now
        else:
            self.listeners.stop_tcp()
        self.operations.drain()
        self._stop_when = self._nobody_is_in

    def _nobody_is_in(self) -> bool:
        """WHY not every connection: one that has not said who it is (a port check that stays) would hold up the end for
        client_login_timeout, only to be refused then."""
        return self.pooler.roster.count() == 0

    def _drain_over(self) -> None:
        if not self._stopped.is_set():
            log.warning("drain deadline: %d clients are cut off", len(self.pooler.clients))
            self._stopped.set()

    def _quietly(self, operation: Callable[[], None], announcement: str = "") -> None:
        if announcement:
            log.info("%s", announcement)
        if self.stopping and operation == self.operations.resume:
            log.info("RESUME is ignored while shutting down")
            return
        try:
            operation()
        except OperationError as error:
            log.info("%s", error)


def _remove_pidfile(name: str) -> None:
    if name:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _write_pidfile(name: str) -> None:
    if not name:
        return
    text, complete = f"{os.getpid()}\n", Path(f"{name}.{os.getpid()}")
    try:
        try:
            complete.write_text(text)
            complete.replace(name)  # whoever waits for the file must not find it empty
        except OSError:  # only the file itself may be ours, and not its folder
            Path(name).write_text(text)
    except OSError as error:
        raise StartError(f"pidfile = {name!r}: name a file that can be written ({error.strerror})") from None
