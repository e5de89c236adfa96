"""Debian's PgBouncer: whether it is here, which version, and its package where it may be installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from tests.pooler.process import find_pgbouncer


def pgbouncer_version() -> str | None:
    """ "1.18.0"; None where there is none."""
    try:
        program = find_pgbouncer()
    except FileNotFoundError:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else None


def install_pgbouncer() -> bool:
    """Where that is allowed. No service is started."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    # RUNLEVEL=1: the package's scripts then do not start the service.
    environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    # Who installs something for another test at this moment is waited for.
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    command = ["apt-get", "install", *wait, "--yes", "--no-install-recommends", "pgbouncer"]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
        subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
        subprocess.run(command, env=environment, capture_output=True, check=False)
    return pgbouncer_version() is not None
