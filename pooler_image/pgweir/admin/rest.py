"""Plain HTTP for the kubelet and for people: /livez, /readyz, /api/v1, and a page at /. Read-only; no secrets here.

Health is for everybody. What stands under /api/v1 (`resources`) is for those who ask from this very host (`kubectl exec`, a
port-forward), and for those who show the token that lies beside the control endpoint's certificates. Errors are JSON, too.

Ready means that a new connection would be accepted here. A full pool, a database that is down or a pause never unreadies:
that would take away the very place where clients wait.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from pgweir.admin import page, resources, shown, tables
from pgweir.admin.http import Room, open_room
from pgweir.admin.resources import RESOURCES, ROOT, Resource, unready_reason
from pgweir.admin.service import Service

TOKEN_FILE: Final = "token"  # noqa: S105 (its name, in the folder of --control-dir)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def start(service: Service, address: str) -> Room:
    application = web.Application(middlewares=[_errors_as_json, _for_whom_it_is(service)])
    application.router.add_get("/", _page())
    application.router.add_get("/livez", _alive)
    application.router.add_get("/readyz", _readiness(service))
    application.router.add_get(ROOT, _index(service))
    for resource in RESOURCES.values():
        application.router.add_get(resource.path, _resource(service, resource))
    application.router.add_get(f"{ROOT}/show/{{table}}", _table(service))
    room = await open_room(application, address)
    await room.serve()
    return room


# --- who may look, and what those hear who may not ---------------------------------------------------------------------------


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        what = {
            404: f"there is nothing at {request.path}; {ROOT} lists what there is",
            405: "only GET is answered here",
        }
        headers = {name: value for name, value in error.headers.items() if name in ("Allow", "WWW-Authenticate")}
        text = what.get(error.status) or error.text or error.reason
        return web.json_response({"error": text}, status=error.status, headers=headers)
    except Exception:
        log.exception("REST: %s failed", request.path)
        return web.json_response({"error": "this should not happen; the pooler's log has more"}, status=500)


def _for_whom_it_is(service: Service) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        inside = request.path == ROOT or request.path.startswith(f"{ROOT}/")
        remote = request.remote if _is_asked_by_own_name(request.host) else None
        if inside and not may_look(service, remote, request.headers.get("Authorization", "")):
            error = "ask from the pooler's own host, or with Authorization: Bearer and the token"
            return web.json_response({"error": error}, status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return middleware


def may_look(service: Service, remote: str | None, authorization: str) -> bool:
    """Whether this request comes from the host itself, or bears the token."""
    if remote is not None and _is_loopback(remote):
        return True
    directory = service.options.control_dir
    if directory is None:
        return False
    try:
        token = (directory / TOKEN_FILE).read_text().strip()
    except OSError:
        return False
    said = authorization.encode("utf-8", "surrogateescape")  # whatever bytes a stranger sent
    return bool(token) and hmac.compare_digest(said, f"Bearer {token}".encode())


def _is_asked_by_own_name(host: str) -> bool:
    """WHY: a page of somebody else's, in a browser beside a port-forward, may have its own name lead to 127.0.0.1 and then
    read what we answer; and a proxy in the pod brings strangers from there. Both come with a name that has a dot in it."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        return _is_loopback(name.strip("[]"))
    except ValueError:
        return "." not in name.rstrip(".")


def _is_loopback(remote: str) -> bool:
    address = ipaddress.ip_address(remote.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback  # a socket for both families sees IPv4 as ::ffff:127.0.0.1


# --- answers -----------------------------------------------------------------------------------------------------------------


def _page() -> Handler:
    html = page.FILE.read_text()
    headers = page.headers(html)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html", headers=headers)

    return handler


async def _alive(request: web.Request) -> web.Response:
    return web.json_response({"alive": True})


def _readiness(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        reason = unready_reason(service)
        return web.json_response({"ready": reason is None, "reason": reason}, status=200 if reason is None else 503)

    return handler


def _index(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(resources.index(service))

    return handler


def _resource(service: Service, resource: Resource) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        if resource.looks_at_nodes:
            await _look_at_nodes(service)
        return web.json_response(resource.answer(service, tables.View.of(service, time.time())))

    return handler


def _table(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        name = request.match_info["table"].upper()
        if name == "POOL_NODES":
            await _look_at_nodes(service)
        found = shown.table(service, name)
        if found is None:
            raise web.HTTPNotFound
        return web.json_response(resources.shown(found))

    return handler


async def _look_at_nodes(service: Service) -> None:
    looked = asyncio.Event()
    give_up = service.nodes.look(tables.nodes(tables.View.of(service, time.time())), looked.set)
    try:
        await looked.wait()
    finally:
        give_up()
