"""Ports that nobody else gets, from the asking until the server listens."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pgweir_operator.cli import ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="blocks are claimed with Linux's abstract names")


def test_no_port_comes_twice_and_none_is_one_that_the_kernel_hands_out():
    given = [ports.free_port() for _ in range(100)]
    assert len(set(given)) == 100
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < low for port in given)


def test_two_processes_never_get_the_same():
    program = "from pgweir_operator.cli.ports import free_port; print(*(free_port() for _ in range(500)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    theirs = {int(port) for port in done.stdout.split()}
    assert len(theirs) <= ports.BLOCK
    assert not theirs & {ports.free_port() for _ in range(ports.BLOCK)}


def test_a_port_on_which_somebody_listens_is_passed_over():
    block = [ports.free_port() for _ in range(ports.BLOCK)]
    with contextlib.ExitStack() as stack:
        taken = next(port for port in sorted(block) if ports._is_free(port))
        stack.enter_context(socket.create_server(("127.0.0.1", taken)))
        assert taken not in {ports.free_port() for _ in range(ports.BLOCK)}


def test_without_a_block_the_kernel_picks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    wide = tmp_path / "range"
    wide.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_KERNEL_RANGE", wide)
    ports._block.cache_clear()
    try:
        with socket.create_server(("127.0.0.1", ports.free_port())):
            pass
    finally:
        ports._block.cache_clear()
