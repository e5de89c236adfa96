"""Health: ready is whether a new connection would be accepted here, and nothing else."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.pgweir.admin.world import HandService

from pgweir.admin import rest, tables
from pgweir.admin.http import listening_socket, parse_address
from pgweir.admin.tables import View


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


def test_pools_have_the_values_of_the_console_and_what_may_be(service: HandService) -> None:
    """B16: an array, one object for each database and user."""
    service.server(user="bob")
    service.begin(service.client(user="bob"))
    service.client(user="bob").data_received(b"Q\0\0\0\x05\0")
    service.client(database="two")
    service.edge.now += 1.5
    status, answer = get(service, "/api/v1/pools")
    assert status == 200
    app, two = answer
    assert app == {
        "database": "app",
        "user": "bob",
        "mode": "transaction",
        "target": ["10.0.0.1:5433"],
        "size": 1,
        "limits": {"min_pool_size": 0, "reserve_pool_size": 0, "max_db_connections": 0, "max_user_connections": 0},
        "servers": {"active": 1, "idle": 0, "used": 0, "tested": 0, "login": 0},
        "clients": {"active": 1, "waiting": 1},
        "cached": 0,
        "hits": 0,
        "misses": 1,
        "hit_ratio": 0.0,
        "maxwait_us": 1_500_000,
    }
    (shown,) = [row for row in tables.pools(View.of(service, 0.0)).dictionaries() if row["user"] == "bob"]
    assert (shown["sv_active"], shown["sv_idle"], shown["sv_login"]) == (1, 0, 0)
    assert (shown["cl_active"], shown["cl_waiting"]) == (app["clients"]["active"], app["clients"]["waiting"])
    assert shown["maxwait"] * 1_000_000 + shown["maxwait_us"] == app["maxwait_us"]
    assert (two["database"], two["user"], two["hit_ratio"]) == ("two", "forced", None)
    assert two["target"] == ["10.0.0.1:5432", "10.0.0.2:5432"]


def test_pools_are_for_the_host_itself_and_for_who_has_the_token(service: HandService, tmp_path: Path) -> None:
    for remote in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert rest.may_look(service, remote, "")
    assert not rest.may_look(service, "10.0.0.9", "")
    assert not rest.may_look(service, None, "Bearer x")
    service.options.control_dir = tmp_path
    assert not rest.may_look(service, "10.0.0.9", "Bearer x")
    (tmp_path / "token").write_text("secret\n")
    assert rest.may_look(service, "10.0.0.9", "Bearer secret")
    assert not rest.may_look(service, "10.0.0.9", "Bearer secrets")
    (tmp_path / "token").write_text("")
    assert not rest.may_look(service, "10.0.0.9", "Bearer ")


def test_a_thousand_clients_do_not_make_the_answer_slow(service: HandService) -> None:
    for _ in range(1000):
        service.client()
    started = time.perf_counter()
    assert rest.pools(View.of(service, 0.0))
    assert time.perf_counter() - started < 0.5


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
