"""Poolers and operators without the second that their imports take: one interpreter has imported everything, and forks.

What comes of it is a process like any other: it runs the program's `main` from its first line, with a command line, an
environment, a folder and a log of its own. Only `python -m PROGRAM` itself is not tried by it: `pgweir demo`, the commands
of the documentation (tests/docs) and every pod are. PoolerProcess and the operators of e2e/control_plane come from here.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from tests.pooler import sanitized

_ROOT = Path(__file__).parents[1]
_LONGEST_ORDER = 1 << 20


class Forked:
    """What tests use of subprocess.Popen. It is no child of theirs: how it ended comes through a pipe.

    `command` is [interpreter, its options…, "-m", program, arguments…].
    """

    def __init__(
        self, command: Sequence[str], log: IO[bytes], cwd: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.args = list(command)
        at = self.args.index("-m")
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self._pipe = os.fdopen(reading, "rb", buffering=0)
        order = {"arguments": self.args[at + 1 :], "cwd": str(cwd), "environment": environment or dict(os.environ)}
        try:
            forge = _forge(tuple(self.args[: at + 2]))
            socket.send_fds(forge, [json.dumps(order).encode()], [log.fileno(), writing])
        finally:
            os.close(writing)
        self.pid = self._number()

    def _number(self) -> int:
        said = self._pipe.read(20)
        if not said:
            raise ChildProcessError("the interpreter of tests/forge.py is gone")
        return int(said)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            waiter = select.poll()
            waiter.register(self._pipe, select.POLLIN)
            if not waiter.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._number()
            self._pipe.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _forge(start: tuple[str, ...]) -> socket.socket:
    """Where orders for this program go; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST_ORDER)
    with theirs:
        command = [*start[:-1], "tests.forge", start[-1], str(theirs.fileno())]
        environment = sanitized.environment()
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=_ROOT, env=environment
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the other side: an interpreter of its own -----------------------------------------------------------------------


def work(main: Callable[[], object], orders: socket.socket) -> None:
    """For each order a keeper, who forks the program, says its pid and later its status, and goes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    gc.collect()
    gc.freeze()  # so that a collection in the program does not copy all these pages
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _LONGEST_ORDER, 2)
        if not order:
            return
        log, pipe = descriptors
        if os.fork() == 0:
            orders.close()
            _keep(main, json.loads(order), log, pipe)
        os.close(log)
        os.close(pipe)


def _keep(main: Callable[[], object], order: dict[str, Any], log: int, pipe: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(pipe)
        _become(main, order, log)
    os.close(log)
    os.write(pipe, b"%-20d" % pid)
    _, how = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, b"%-20d" % os.waitstatus_to_exitcode(how))
    os._exit(0)


def _become(main: Callable[[], object], order: dict[str, Any], log: int) -> None:
    """The program, from its first line to the interpreter's end."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    sys.argv = order["arguments"]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    work(importlib.import_module(sys.argv[1]).main, socket.socket(fileno=int(sys.argv[2])))
