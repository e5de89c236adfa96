"""What goes over the wire to the API server, against a server that answers as it does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest
from aiohttp import web
from kubernetes.aio import client

from pgweir_operator.kube import ApiError, Kube, api


@contextlib.asynccontextmanager
async def served(handler):
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with Kube(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")) as kube:
            yield kube
    finally:
        await runner.cleanup()


def watched(*chunks):
    """What a watch of the Cluster `shop` brings when the server writes exactly these pieces."""

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    async def look():
        async with served(stream) as kube:
            opened, *events = [event async for event in kube.changes("Cluster", "default", "shop")]
            assert opened == {"type": "OPENED"}
            return events

    return asyncio.run(asyncio.wait_for(look(), 30))


def test_an_event_longer_than_any_buffer_is_read_whole():
    event = {"type": "MODIFIED", "object": {"metadata": {"annotations": {"history": "x" * 1_000_000}}}}
    assert watched(json.dumps(event).encode() + b"\n") == [event]


def test_events_are_told_apart_wherever_the_stream_is_cut():
    events = [{"type": "ADDED", "object": {"n": 1}}, {"type": "MODIFIED", "object": {"n": 2}}]
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    for cut in range(1, len(text), 7):
        assert watched(text[:cut], text[cut:]) == events


@pytest.mark.parametrize("text", [b"no json\n", b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}\n'])
def test_a_stream_that_cannot_be_read_is_an_error_of_the_api_server(text):
    with pytest.raises(ApiError):
        watched(text)


def test_a_part_of_a_status_is_merged_into_what_others_wrote():
    seen = []

    async def answer(request):
        seen.append((request.method, request.path, request.content_type, await request.json()))
        return web.json_response({})

    async def write():
        async with served(answer) as kube:
            await kube.merge_status("Pooler", "n", "p", {"switchover": {"phase": "Held", "endedAt": None}})

    asyncio.run(asyncio.wait_for(write(), 30))
    path = "/apis/pgweir.io/v1/namespaces/n/poolers/p/status"
    body = {"status": {"switchover": {"phase": "Held", "endedAt": None}}}
    assert seen == [("PATCH", path, "application/merge-patch+json", body)]


def test_nobody_between_us_and_the_api_server_can_send_us_to_sleep_for_an_hour(monkeypatch):
    monkeypatch.setattr(api, "LONGEST_PAUSE", 0.01)
    asked = []

    async def answer(request):
        asked.append(request.path)
        return web.json_response({}, status=429 if len(asked) < 3 else 200, headers={"Retry-After": "3600"})

    async def read():
        async with served(answer) as kube:
            assert await kube.get("Secret", "n", "s") == {}

    asyncio.run(asyncio.wait_for(read(), 30))
    assert len(asked) == 3


def test_a_watch_notices_an_api_server_that_vanished_without_a_word():
    """TCP asks for a sign of life: without that, silence of the network and a quiet day look the same."""
    seen = {}

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADDED", "object": {}}\n')
        await asyncio.sleep(30)
        return response

    async def look():
        async with served(stream) as kube:
            async for _ in kube.changes("Cluster", "default", "shop"):
                for transport in [
                    protocol.transport
                    for protocol in kube._client.rest_client.pool_manager.connector._acquired
                    if protocol.transport is not None
                ]:
                    found = transport.get_extra_info("socket")
                    seen["alive"] = found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    seen["idle"] = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                break

    asyncio.run(asyncio.wait_for(look(), 30))
    assert seen == {"alive": 1, "idle": 5}
