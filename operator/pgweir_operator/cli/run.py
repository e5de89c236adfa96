"""`pgweir run -f pooler.yaml`: a Pooler without Kubernetes, as one process on this machine.

The operator's own code renders it (`observe`, `integrate`, `desired`) and pushes what changes, so that the file means
here what it means in a cluster. What differs is one thing: names and ports of the cluster become this machine's. When
the file changes, the data plane follows; a file that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgweir.bundle import INI
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import PodReport
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.cli import given, screen
from pgweir_operator.cli.exit_codes import DONE, FAILED, UNUSABLE
from pgweir_operator.cli.given import Given, Unusable
from pgweir_operator.cli.local_pod import LocalPod, PodError
from pgweir_operator.desired import desired_state
from pgweir_operator.desired.bundle import with_revision
from pgweir_operator.desired.configuration import USERLIST_FILE
from pgweir_operator.fleet import Push
from pgweir_operator.integration.automatic import Stored, integrate
from pgweir_operator.integration.control import renewed

LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Place:
    """Where it listens, and where PostgreSQL is when not where the Pooler says."""

    address: str
    port: int
    http_port: int
    metrics_port: int
    postgres: tuple[str, int] | None = None


def run_pooler(file: Path, place: Place) -> int:
    screen.fresh()
    try:
        with tempfile.TemporaryDirectory(prefix="pgweir-run-") as folder:
            return asyncio.run(_Running(file, place, Path(folder)).serve())
    except Unusable as error:
        screen.complain(str(error))
        return UNUSABLE
    except (PodError, PrerequisiteError) as error:
        screen.complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return DONE


class _Running:
    """One Pooler that runs, and the file that it follows."""

    def __init__(self, file: Path, place: Place, folder: Path) -> None:
        self._file = file
        self._place = place
        self._folder = folder
        self._revision = 1
        self._stored = Stored(password=secrets.token_urlsafe(24))
        self._ended = asyncio.Event()

    async def serve(self) -> int:
        seen = _mark(self._file)
        found = given.read(self._file)
        pooler, place = found.pooler, self._place
        files = await self._rendered(found)
        control = renewed(None, pooler=pooler.name, now=time.time())
        pod = LocalPod(
            pooler.name, self._folder, control, place.port, http_port=place.http_port, metrics_port=place.metrics_port
        )
        await asyncio.to_thread(pod.start, files)
        try:
            self._say_where(pooler, pod)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._ended.set)
            while not self._ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), LOOK_EVERY)
                if not pod.is_running:
                    raise PodError(f"the data plane ended; its log ends with:\n{pod.log_tail()}")
                if (now := _mark(self._file)) not in (seen, None):
                    seen = now
                    await self._follow(pod)
        finally:
            await asyncio.to_thread(pod.stop)
        screen.say("stopped")
        return DONE

    def _say_where(self, pooler: Pooler, pod: LocalPod) -> None:
        place = self._place
        screen.say(
            f"{pooler.name} ({pooler.spec.pgbouncer.pool_mode.value} mode) listens on {place.address}:{place.port}"
        )
        screen.say(f"console: pgweir show pools --url {self._folder}")
        screen.say(f"REST:    http://127.0.0.1:{place.http_port}/api/v1")
        screen.say(f"metrics: http://127.0.0.1:{place.metrics_port}/metrics")
        screen.say(f"log:     {pod.log_file}")
        screen.say(f"{self._file} is followed; ^C ends")

    async def _rendered(self, found: Given) -> dict[str, bytes]:
        """The bundle for this machine. Raises Unusable or PrerequisiteError."""
        pooler, place = found.pooler, self._place
        observed = await found.observed()
        dial = place.postgres or (pooler.target_host, pooler.target_port)
        made = await integrate(pooler, observed, self._stored, now=time.time(), dial=dial)
        result = made.result
        desired = desired_state(pooler, observed, result.provisioned, image="none")
        if pooler.is_automatic and result.provisioned is None:
            if result.reason is not Reason.NO_ADMIN_ACCESS or USERLIST_FILE not in desired.bundle_files:
                raise PrerequisiteError(result.reason, f"{_where_secrets_go(result.reason)}{result.message}")
            screen.complain("no superuser's Secret in the file: only users with a passwordSecret can log in")
        files = with_revision(desired.bundle_files, self._revision)
        return on_this_machine(files, self._folder, place, (pooler.target_host, pooler.target_port))

    async def _follow(self, pod: LocalPod) -> None:
        """The file changed: push it, or say why not. What runs goes on in any case."""
        try:
            found = given.read(self._file)
            self._revision += 1
            files = await self._rendered(found)
        except (Unusable, PrerequisiteError) as error:
            screen.complain(f"{error}\nthe last good configuration goes on")
            return
        async with pod.fleet() as fleet:
            (answer,) = (await fleet.push([pod.member], Push(files))).values()
        if not isinstance(answer, PodReport):
            screen.complain(f"the data plane did not answer: {answer}")
        elif answer.rejected_error:
            screen.complain(f"refused: {answer.rejected_error}\nthe last good configuration goes on")
        else:
            screen.say(
                f"{time.strftime('%H:%M:%S')} the file changed: revision {answer.revision} runs ({answer.state})"
            )
            if answer.restart_needed:
                screen.complain(f"start anew for {', '.join(answer.restart_needed)}: no running process can take that")


def _where_secrets_go(reason: Reason) -> str:
    if reason is not Reason.NO_ADMIN_ACCESS:
        return ""
    return "Secrets may stand in the same file, as documents of kind Secret. "


def _mark(file: Path) -> tuple[int, int, int] | None:
    """What differs when the file is another. None while it is not there: editors put a new one in its place."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def on_this_machine(
    files: Mapping[str, bytes], folder: Path, place: Place, target: tuple[str, int]
) -> dict[str, bytes]:
    """The bundle with this machine's addresses in place of a pod's. Pure."""
    ini = files[INI].decode()
    own = {"listen_addr": place.address, "listen_port": str(place.port), "unix_socket_dir": str(folder)}
    for name, value in own.items():
        ini = re.sub(rf"(?m)^{name} =.*$", f"{name} = {value}".replace("\\", r"\\"), ini)
    if place.postgres is not None:
        there, here = (f"host={host} port={port}" for host, port in (target, place.postgres))
        ini = ini.replace(there, here)
    return {**files, INI: ini.encode()}
