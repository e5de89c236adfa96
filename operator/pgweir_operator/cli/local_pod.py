"""A pooler pod as a process on this machine, run with a pod's own options and files.

What Kubernetes gives a pod, this gives a process: its bundle as a mounted folder, its control certificates, its
ports. What differs from a pod is one thing: names and ports of the cluster are replaced by this machine's
(`localized`). Used by the demo.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgweir.bundle import INI
from pgweir_operator.cli.ports import free_port
from pgweir_operator.fleet import Fleet, Identity, Member
from pgweir_operator.integration.control import ControlCertificates

ADDRESS = "127.0.0.1"


class PodError(Exception):
    """The data plane did not start or did not obey; the message shows what it said last."""


@dataclass
class LocalPod:
    """One process of the data plane and where it can be reached."""

    name: str
    folder: Path
    control: ControlCertificates = field(repr=False)
    port: int = field(default_factory=free_port)
    control_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def member(self) -> Member:
        return Member(self.name, ADDRESS)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    def fleet(self) -> Fleet:
        """The operator's way to this pod: each process has a port of its own, where pods have an address."""
        operator = self.control.operator
        return Fleet(Identity(self.control.trusted, operator.certificate, operator.key), port=self.control_port)

    def localized(self, files: Mapping[str, bytes], postgres_port: int) -> dict[str, bytes]:
        """The bundle with this machine in place of the cluster's Service and the pod's own address and ports."""
        ini = files[INI].decode()
        ini = re.sub(r"(?m)^(\* = ).*$", rf"\g<1>host={ADDRESS} port={postgres_port}", ini)
        for name, value in {
            "listen_addr": ADDRESS,
            "listen_port": str(self.port),
            "unix_socket_dir": str(self.folder),
        }.items():
            ini = re.sub(rf"(?m)^{name} =.*$", f"{name} = {value}", ini)
        return {**files, INI: ini.encode()}

    def start(self, files: Mapping[str, bytes], timeout: float = 120.0) -> None:
        """Mount the bundle and start; returns when the pod says that it is ready. One that ends is not waited for."""
        config, control, state = (self.folder / name for name in ("config", "control", "state"))
        for directory in (config, control, state):
            directory.mkdir()
        for name, content in files.items():
            _write(config / name, content)
        pod = self.control.pod
        for name, content in (("ca.crt", self.control.trusted), ("tls.crt", pod.certificate), ("tls.key", pod.key)):
            _write(control / name, content)
        command = [sys.executable, "-m", "pgweir.executable"]
        if os.geteuid() == 0:
            command += ["-u", "root"]  # said in so many words, because the data plane refuses root otherwise
        command += ["--json-log", "--state-dir", str(state), "--control-dir", str(control)]
        command += ["--control-listen", f"{ADDRESS}:{self.control_port}"]
        command += ["--http-listen", f"{ADDRESS}:{self.http_port}"]
        command += ["--metrics-listen", f"{ADDRESS}:{self.metrics_port}", str(config / INI)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PodError(f"{self.name} does not get ready; its log ends with:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self, lines: int = 15) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{ADDRESS}:{self.http_port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
