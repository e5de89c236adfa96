"""Between the operator and the API server: passes everything on, until a test says what is to go wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from e2e.control_plane.harness import Loop

_HOP = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"}


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    query: Mapping[str, str]

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query

    @property
    def is_write(self) -> bool:
        """One that changes something a user has: no dry run, no Lease, no Event."""
        about = self.path.rpartition("/apis/")[2]
        return self.method != "GET" and "dryRun" not in self.query and not about.startswith(("coordination", "events"))


class ApiProxy:
    """`fault` says of each call what is answered in place of the API server: a status code, or None for nothing. `after` is
    told of each call that the API server has answered, before the operator hears of it."""

    def __init__(self, config: Mapping[str, Any], loop: Loop) -> None:
        self._config = config
        self._loop = loop
        self.fault: Callable[[Call], int | None] = lambda call: None
        self.after: Callable[[Call], None] = lambda call: None
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self._loop.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._stop())

    def kubeconfig(self, folder: Path) -> str:
        """The operator's own, by way of this proxy."""
        here = [
            {"name": row["name"], "cluster": {"server": f"http://127.0.0.1:{self._port}"}} for row in self._clusters
        ]
        target = folder / f"proxy-{self._port}.kubeconfig"
        target.write_text(yaml.safe_dump({**self._config, "clusters": here}))
        return str(target)

    @property
    def _clusters(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self._config["clusters"]
        return found

    async def _start(self) -> None:
        cluster = self._clusters[0]["cluster"]
        authority = cluster.get("certificate-authority-data")
        text = base64.b64decode(authority).decode() if authority else Path(cluster["certificate-authority"]).read_text()
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=text), limit=0)
        self._session = aiohttp.ClientSession(
            cluster["server"], connector=connector, timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_route("*", "/{tail:.*}", self._pass)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._session.close()  # what is still open ends by that
        await self._runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.path, request.query)
        if status := self.fault(call):
            said = {"kind": "Status", "code": status, "message": f"the test says {status}", "reason": "Test"}
            return web.Response(status=status, text=json.dumps(said), content_type="application/json")
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(
            request.method,
            request.rel_url,
            data=await request.read() or None,
            headers=headers,
            skip_auto_headers=("Content-Type",),
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if not call.is_watch:
                body = await answer.read()
                self.after(call)
                return web.Response(status=answer.status, body=body, headers=kept)
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    if self.fault(call):
                        break  # what is open ends, too
                    await response.write(chunk)
            except (aiohttp.ClientError, ConnectionError, asyncio.CancelledError):
                pass
            return response
