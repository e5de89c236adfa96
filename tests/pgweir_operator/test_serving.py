"""The operator's own port: reached at every address of either family, and it says why not."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from tests.network import has_ipv6
from tests.postgres.server import free_port

from pgweir_operator.metrics import Metrics
from pgweir_operator.serving import EVERYWHERE, serve


def asked(host: str, listen: str) -> dict[str, tuple[int, str]]:
    """What it says there, by path."""

    async def ask() -> dict[str, tuple[int, str]]:
        port = free_port()
        runner = await serve((listen, port), Metrics(), unhealthy=lambda: "", unready=lambda: "the kind is missing")
        found = {}
        try:
            async with aiohttp.ClientSession() as session:
                for path in ("/healthz", "/readyz", "/metrics"):
                    async with session.get(f"http://{host}:{port}{path}") as answer:
                        found[path] = answer.status, await answer.text()
        finally:
            await runner.cleanup()
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("host", "listen"), [("127.0.0.1", EVERYWHERE), ("[::1]", EVERYWHERE), ("127.0.0.1", "127.0.0.1")]
)
def test_probes_and_prometheus_are_answered_in_a_cluster_of_either_family(host: str, listen: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    said = asked(host, listen)
    assert said["/healthz"] == (200, "ok\n")
    assert said["/readyz"] == (503, "the kind is missing\n")
    assert said["/metrics"][0] == 200
    assert "pgweir_operator_reconciles" in said["/metrics"][1]


def test_a_port_that_somebody_has_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serving = serve(taken.getsockname(), Metrics(), unhealthy=lambda: "", unready=lambda: "")
        with pytest.raises(OSError, match="in use"):
            asyncio.run(serving)
