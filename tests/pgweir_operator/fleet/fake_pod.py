"""A pod's control endpoint without a pod: real HTTPS with mutual TLS, and every way to be difficult.

It keeps the endpoint's contract (revisions, digests, acknowledgement of a pause, holds and routes) and can be told to
refuse a configuration, to lag, to hold servers, or to be silent. Used by the tests of fleet, reconcile and the control plane.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from pgweir.bundle import bundle_digest, bundle_manifest
from pgweir.settings import CATALOGUE_VERSION

# Whoever is connected and does not go is not waited for any longer.
GOODBYE = 1.0


@dataclass
class FakePod:
    name: str
    ca: bytes
    certificate: bytes
    key: bytes
    address: str = "127.0.0.1"
    port: int = 0
    revision: int = 0
    digest: str = ""
    paused: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    rejected: dict[str, Any] | None = None
    catalogue_version: int = CATALOGUE_VERSION
    first_version: bool = False
    """It knows the first two paths alone, and answers 404 to every other."""
    refuses: str = ""
    """A sentence: every configuration is refused with it (422)."""
    lags: float = 0.0
    """Seconds before each answer."""
    holders: list[dict[str, Any]] = field(default_factory=list)
    """Clients that keep a server while the pod is pausing."""
    servers: int = 2
    """Server connections, while nothing is paused."""
    draining: bool = False
    """It got SIGTERM and waits for its clients."""
    lookup: dict[str, Any] = field(default_factory=lambda: {"ok": True, "lastError": None})
    target: dict[str, Any] = field(default_factory=lambda: {"reachable": True, "lastError": None})
    held: dict[str, Any] | None = None
    """The order of a hold that stands."""
    held_since: float = 0.0
    last_hold: dict[str, Any] | None = None
    route: dict[str, Any] | None = None
    route_since: float = 0.0
    orders: list[tuple[float, str, str]] = field(default_factory=list)
    """Every hold, route and release: when (monotonic), which, and by what id."""
    asked: list[str] = field(default_factory=list)
    """Every request, as 'METHOD path'."""
    odd: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """What answers instead, whatever it was asked."""
    _runner: web.AppRunner | None = None
    _server: Any = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_get("/v1/status", self._get)
        application.router.add_put("/v1/configuration", self._put)
        if not self.first_version:
            application.router.add_post("/v1/holders/terminate", self._terminate)
            application.router.add_put("/v1/hold", self._hold)
            application.router.add_delete("/v1/hold", self._release)
            application.router.add_put("/v1/route", self._route)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.address, self.port, ssl_context=self._context(), reuse_address=True)
        await site.start()
        self._server = site._server
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            # WHY: aiohttp closes what it knows. A connection that is still at its TLS handshake, or at the end of it, would
            # outlive the loop, and warn in whichever test is running when it is collected.
            until = time.monotonic() + GOODBYE
            while getattr(self._server, "_active_count", 0) and time.monotonic() < until:
                await asyncio.sleep(0.005)

    def hold(self, **holder: Any) -> None:
        """A client keeps a server from now on."""
        row = {
            "clientId": 7,
            "serverPid": 4242,
            "database": "app",
            "user": "alice",
            "applicationName": "psql",
            "address": "10.0.0.7:5000",
            "inTransactionSeconds": 12.5,
        }
        self.holders.append({**row, **holder})

    def let_go(self) -> None:
        self.holders.clear()

    @property
    def state(self) -> str:
        if self.draining:
            return "draining"
        if not self.paused:
            return "active"
        return "pausing" if self.holders else "paused"

    def end_hold(self, by: str) -> None:
        """As the pod does at the ceiling, or when it has seen a restart."""
        if self.held is not None:
            seconds = time.monotonic() - self.held_since
            self.last_hold = {"id": self.held["id"], "seconds": seconds, "endedBy": by, "clientsHeld": 3}
            self.held = None

    def _switchover(self) -> dict[str, Any]:
        now = time.monotonic()
        if self.held is not None and now - self.held_since >= self.held["ceilingSeconds"]:
            self.end_hold("ceiling")
        hold = route = None
        if self.held is not None:
            hold = {**self.held, "seconds": now - self.held_since, "drained": not self.holders}
        if self.route is not None and (left := self.route_since + self.route["seconds"] - now) > 0:
            route = {"host": self.route["host"], "address": self.route["address"], "seconds": left}
        return {"hold": hold, "route": route, "lastHold": self.last_hold}

    def status(self) -> dict[str, Any]:
        held = len(self.holders) if self.paused else 0
        return {
            "pod": self.name,
            "version": "0.1.0",
            "catalogueVersion": self.catalogue_version,
            "revision": self.revision,
            "digest": self.digest,
            "rejected": self.rejected,
            "state": self.state,
            "paused": self.paused,
            "heldServers": held,
            "holders": self.holders[:20] if held else [],
            "clients": 3,
            "waitingClients": 0,
            "servers": 0 if self.paused and not held else self.servers,
            "target": self.target,
            "lookup": self.lookup,
            "restartNeeded": [],
            **({} if self.first_version else self._switchover()),
        }

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self.ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder, "pair.pem")
            pair.write_bytes(self.certificate + b"\n" + self.key)
            context.load_cert_chain(pair)
        return context

    async def _answer(self, request: web.Request) -> web.StreamResponse | None:
        self.asked.append(f"{request.method} {request.path}")
        transport = request.transport
        assert transport is not None
        subject = dict(item[0] for item in transport.get_extra_info("peercert")["subject"])
        await asyncio.sleep(self.lags)
        if self.odd is not None:
            return await self.odd(request)
        if subject.get("commonName") != "pgweir-operator":
            return web.json_response({"error": f"{subject} is not the operator"}, status=403)
        return None

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request) or web.json_response(self.status())

    async def _put(self, request: web.Request) -> web.StreamResponse:
        if no := await self._answer(request):
            return no
        body = await request.json()
        files = {name: base64.b64decode(content, validate=True) for name, content in body["files"].items()}
        manifest = bundle_manifest(revision=body["revision"], paused=body["paused"], catalogue_version=1)
        digest = bundle_digest({**files, "bundle.json": manifest})
        if body["revision"] < self.revision or (body["revision"] == self.revision and digest != self.digest):
            return web.json_response({"error": "a newer one runs", "revision": self.revision}, status=409)
        if self.refuses:
            self.rejected = {"revision": body["revision"], "error": self.refuses}
            return web.json_response({"error": self.refuses, "key": None, "file": "pgbouncer.ini"}, status=422)
        self.revision, self.digest, self.paused, self.files = body["revision"], digest, body["paused"], files
        self.rejected = None
        return web.json_response(self.status())

    async def _terminate(self, request: web.Request) -> web.StreamResponse:
        if no := await self._answer(request):
            return no
        body = await request.json()
        if body["revision"] != self.revision or not self.paused:
            return web.json_response({"error": "that pause does not run here", "revision": self.revision}, status=409)
        closed = len(self.holders)
        self.let_go()
        return web.json_response({**self.status(), "terminatedHolders": closed})

    async def _hold(self, request: web.Request) -> web.StreamResponse:
        if no := await self._answer(request):
            return no
        body = await request.json()
        self.orders.append((time.monotonic(), "hold", body["id"]))
        if self.held is None or self.held["id"] != body["id"]:
            self.held, self.held_since = body, time.monotonic()
        return web.json_response(self.status())

    async def _release(self, request: web.Request) -> web.StreamResponse:
        if no := await self._answer(request):
            return no
        return self._ended("release", await request.json(), "told")

    async def _route(self, request: web.Request) -> web.StreamResponse:
        if no := await self._answer(request):
            return no
        body = await request.json()
        self.route, self.route_since = body, time.monotonic()
        return self._ended("route", body, "route")

    def _ended(self, order: str, body: dict[str, Any], by: str) -> web.Response:
        self.orders.append((time.monotonic(), order, body["id"]))
        if self.held is not None and self.held["id"] == body["id"]:
            self.end_hold(by)
        return web.json_response(self.status())
