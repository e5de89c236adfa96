"""Health: ready is whether a new connection would be accepted here, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.pgweir.admin.world import HandService

from pgweir.admin import rest
from pgweir.admin.http import listening_socket, parse_address


@pytest.fixture
def service(tmp_path: Path) -> HandService:
    return HandService(tmp_path)


def get(service: HandService, path: str) -> tuple[int, Any]:
    async def ask() -> tuple[int, Any]:
        room = await rest.start(service, "127.0.0.1:0")
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{room.port}{path}") as answer:
                return answer.status, await answer.json()
        finally:
            await room.close()

    return asyncio.run(ask())


def test_a_pooler_that_listens_is_alive_and_ready(service: HandService) -> None:
    assert get(service, "/livez") == (200, {"alive": True})
    assert get(service, "/readyz") == (200, {"ready": True, "reason": None})


def test_a_pause_a_full_pool_and_a_dead_database_keep_it_ready(service: HandService) -> None:
    waiter = service.client()
    waiter.data_received(b"Q\0\0\0\x05\0")
    service.pooler.opening.failed(service.edge.connects[-1], "no route", "08006", answered=False)
    service.operations.pause()
    assert get(service, "/readyz")[0] == 200


def test_draining_and_not_listening_are_said(service: HandService) -> None:
    service.listening = False
    assert get(service, "/readyz") == (503, {"ready": False, "reason": "not listening"})
    service.stopping = True
    assert get(service, "/readyz") == (503, {"ready": False, "reason": "draining"})
    assert get(service, "/livez")[0] == 200


def test_pools_are_those_of_the_console(service: HandService) -> None:
    service.client()
    status, answer = get(service, "/api/v1/pools")
    assert status == 200
    assert [(row["database"], row["cl_active"]) for row in answer["pools"]] == [("app", 1), ("pgbouncer", 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("*:8080", ("*", 8080)), ("h:0", ("h", 0))],
)
def test_addresses_are_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "80", ":80", "::1:80", "h:", "h:x", "h:70000", "h:-1"])
def test_what_is_no_address_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write ADDRESS:PORT"):
        parse_address(text)


def test_an_address_in_use_is_named() -> None:
    with listening_socket("*:0") as first, pytest.raises(OSError, match=r"cannot listen on \*:\d+"):
        listening_socket(f"*:{first.getsockname()[1]}")
