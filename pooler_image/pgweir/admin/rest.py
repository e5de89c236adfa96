"""Plain HTTP for the kubelet and for people: /livez, /readyz, and /api/v1/pools. Read-only; no secrets here.

Health is for everybody. The pools are for those who ask from this very host (`kubectl exec`, a port-forward), and for those who
show the token that lies beside the control endpoint's certificates.

Ready means that a new connection would be accepted here. A full pool, a database that is down or a pause never unreadies:
that would take away the very place where clients wait.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from pgweir.admin import tables
from pgweir.admin.http import Room, open_room
from pgweir.admin.service import Service

TOKEN_FILE: Final = "token"  # noqa: S105 (its name, in the folder of --control-dir)

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
        if not may_look(service, request.remote, request.headers.get("Authorization", "")):
            error = "ask from the pooler's own host, or with Authorization: Bearer and the token"
            return web.json_response({"error": error}, status=401, headers={"WWW-Authenticate": "Bearer"})
        return web.json_response(pools(tables.View.of(service, time.time())))

    return handler


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
    return bool(token) and hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())


def _is_loopback(remote: str) -> bool:
    address = ipaddress.ip_address(remote.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback  # a socket for both families sees IPv4 as ::ffff:127.0.0.1


def pools(view: tables.View) -> list[dict[str, Any]]:
    """One object for each database and user: what its pools may have, what they have, and how often they were reused."""
    rows = {(row["database"], row["user"]): row for row in tables.pools(view).dictionaries()}
    return [_pool(view, each, rows[each.database, each.user]) for each in tables.usage(view)]


def _pool(view: tables.View, each: tables.Usage, row: dict[str, tables.Value]) -> dict[str, Any]:
    config = view.config
    entry = config.database(each.database)
    hosts = entry.hosts if entry is not None else ()
    return {
        "database": each.database,
        "user": each.user,
        "mode": row["pool_mode"],
        "target": [f"{host}:{entry.port}" for host in hosts or (config.settings.unix_socket_dir,)] if entry else [],
        "size": config.pool_size(each.database, each.user),
        "limits": {
            "min_pool_size": config.min_pool_size(each.database),
            "reserve_pool_size": config.reserve_pool_size(each.database, each.user),
            "max_db_connections": config.max_db_connections(each.database),
            "max_user_connections": config.max_user_connections(each.user),
        },
        "servers": {name: row[f"sv_{name}"] for name in ("active", "idle", "used", "tested", "login")},
        "clients": {"active": row["cl_active"], "waiting": row["cl_waiting"]},
        "cached": each.cached,
        "hits": each.hits,
        "misses": each.misses,
        "hit_ratio": each.hit_ratio,
        "maxwait_us": int(row["maxwait"] or 0) * 1_000_000 + int(row["maxwait_us"] or 0),
    }
