"""As much of an API server as the plugin asks for, in a thread: Poolers, pods, logs, and port-forwards that lead somewhere.

What it leaves out is judged at a real one (e2e/control_plane, e2e/scenarios).
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import WSMsgType, web

Object = dict[str, Any]
PREFIXES = {
    "/apis/pgweir.io/v1/namespaces/shop/poolers": "Pooler",
    "/apis/postgresql.cnpg.io/v1/namespaces/shop/clusters": "Cluster",
    "/api/v1/namespaces/shop/pods": "Pod",
    "/api/v1/namespaces/shop/secrets": "Secret",
    "/apis/events.k8s.io/v1/namespaces/shop/events": "Event",
    "/apis/apps/v1/namespaces/shop/deployments": "Deployment",
}


class ApiServer:
    """`objects` by kind and name; `ports` by pod and port: where a port-forward leads on this machine."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.ports: dict[tuple[str, int], int] = {}
        self.logs: dict[str, str] = {}
        self.forbidden: set[str] = set()
        self.kubeconfig = folder / "kubeconfig"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        context = {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "shop"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [context],
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "test", "user": {"token": "t"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> int:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    # --- what there is -----------------------------------------------------------------------------------------------

    def put(self, kind: str, name: str, **fields: Any) -> Object:
        made = {"kind": kind, "metadata": {"name": name, "namespace": "shop", "generation": 1}, **fields}
        self.objects[kind, name] = made
        return made

    def pooler(self, name: str, **status: Any) -> Object:
        ready = {"type": "Ready", "status": "True", "reason": "AllPodsReady", "message": "All is well."}
        spec = {"cluster": {"name": "shop"}, "instances": 1, "type": "rw"}
        return self.put("Pooler", name, spec=spec, status={"phase": "active", "conditions": [ready], **status})

    def pod(self, name: str, pooler: str, rest: int | None = None) -> Object:
        made = self.put("Pod", name, status={"phase": "Running"})
        made["metadata"]["labels"] = {"pgweir.io/poolerName": pooler}
        if rest is not None:
            self.ports[name, 8080] = rest
        return made

    # --- how it is asked -----------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        for prefix, kind in PREFIXES.items():
            if request.path == prefix:
                return self._listed(kind, request.query.get("labelSelector", ""))
            if request.path.startswith(f"{prefix}/"):
                name, _, part = request.path.removeprefix(f"{prefix}/").partition("/")
                if kind in self.forbidden or part in self.forbidden:
                    return _status(403, f"you may not get {part or kind} {name}")
                return await self._one(request, kind, name, part)
        return _status(404, f"{request.path} is not here")

    def _listed(self, kind: str, selector: str) -> web.Response:
        if kind in self.forbidden:
            return _status(403, f"you may not list {kind}")
        key, _, value = selector.partition("=")
        items = [found for (of, _), found in sorted(self.objects.items()) if of == kind]
        if key:
            labels = [(found, found["metadata"].get("labels") or {}) for found in items]
            items = [found for found, has in labels if key in has and value in ("", has[key])]
        return web.json_response({"items": items})

    async def _one(self, request: web.Request, kind: str, name: str, part: str) -> web.StreamResponse:
        found = self.objects.get((kind, name))
        if found is None:
            return _status(404, f"{kind} {name} is not here")
        if part == "portforward":
            return await self._forward(request, name)
        if part == "log":
            return web.Response(text=self.logs.get(name, ""))
        if request.method == "PATCH":
            _merge(found, await request.json())
            found["metadata"]["generation"] += 1
        return web.json_response(found)

    async def _forward(self, request: web.Request, pod: str) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        number = int(request.query["ports"])
        for channel in (0, 1):
            await socket.send_bytes(bytes((channel,)) + number.to_bytes(2, "little"))
        target = self.ports.get((pod, number))
        try:
            if target is None:
                raise OSError(f"nothing listens on port {number} of {pod}")
            reader, writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError as error:
            await socket.send_bytes(b"\1" + str(error).encode())
            await socket.close()
            return socket

        async def down() -> None:
            while data := await reader.read(65536):
                await socket.send_bytes(b"\0" + data)
            await socket.close()

        task = asyncio.create_task(down())
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
                writer.write(message.data[1:])
        task.cancel()
        writer.close()
        return socket


def _merge(into: Object, part: Object) -> None:
    for key, value in part.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.Response(status=code, text=json.dumps(body), content_type="application/json")
