"""Ports that nobody else gets, from the asking until the server listens."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgweir_operator.cli import ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="blocks are claimed with Linux's abstract names")


def test_no_port_comes_twice_and_none_is_one_that_the_kernel_hands_out():
    given = [ports.free_port() for _ in range(100)]
    assert len(set(given)) == 100
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < low for port in given) or low < ports.END


def test_two_processes_never_get_the_same():
    ports.free_port()  # a block of the other's could be ours as soon as it has ended
    program = "from pgweir_operator.cli.ports import free_port; print(*(free_port() for _ in range(500)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=200)
    theirs = {int(port) for port in done.stdout.split()}
    assert len(theirs) <= ports.BLOCK
    assert not theirs & {ports.free_port() for _ in range(ports.BLOCK)}


def test_a_port_on_which_somebody_listens_is_passed_over():
    block = [ports.free_port() for _ in range(ports.BLOCK)]
    with contextlib.ExitStack() as stack:
        taken = next(port for port in sorted(block) if ports._is_free(port))
        stack.enter_context(socket.create_server(("127.0.0.1", taken)))
        assert taken not in {ports.free_port() for _ in range(ports.BLOCK)}


@pytest.fixture
def kernel_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(ports, "_KERNEL_RANGE", tmp_path / "range")
    ports._block.cache_clear()
    yield tmp_path / "range"
    ports._block.cache_clear()


@pytest.mark.parametrize(("low", "end"), [(1024, ports.END), (20_000, 20_000), (32_768, ports.END)])
def test_a_block_is_one_that_the_kernel_leaves_alone_where_there_is_one(kernel_range: Path, low: int, end: int):
    kernel_range.write_text(f"{low}\t65535\n")
    given = {ports.free_port() for _ in range(100)}
    assert len(given) == 100
    assert ports.FIRST <= min(given) <= max(given) < end


def test_without_a_block_the_kernel_picks(kernel_range: Path):
    with socket.create_server(("127.0.0.1", ports.free_port())):
        pass
