"""Plain HTTP for the kubelet and for people: /livez, /readyz, /api/v1/pools. Read-only, and without a login: no secrets here.

Ready means that a new connection would be accepted here. A full pool, a database that is down or a pause never unreadies:
that would take away the very place where clients wait.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from pgweir.admin import tables
from pgweir.admin.http import Room, open_room
from pgweir.admin.service import Service

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def start(service: Service, address: str) -> Room:
    application = web.Application()
    application.router.add_get("/livez", _alive)
    application.router.add_get("/readyz", _readiness(service))
    application.router.add_get("/api/v1/pools", _pools(service))
    room = await open_room(application, address)
    await room.serve()
    return room


def unready_reason(service: Service) -> str | None:
    """Why no new connection should come here; None when one may."""
    if service.stopping or service.state == "draining":
        return "draining"
    if not service.listening:
        return "not listening"
    return None


async def _alive(request: web.Request) -> web.Response:
    return web.json_response({"alive": True})


def _readiness(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        reason = unready_reason(service)
        return web.json_response({"ready": reason is None, "reason": reason}, status=200 if reason is None else 503)

    return handler


def _pools(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        view = tables.View.of(service, time.time())
        return web.json_response({"pools": tables.pools(view).dictionaries()})

    return handler
