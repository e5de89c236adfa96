"""An API server that knows pods and runs commands "in" them: here, as processes of this machine.

It speaks the channel protocol of exec as an API server does (empty first frames, the Status at the end, version 5's
closing of the input), and can be told to forbid it, to be of an older version, or to have no such program.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
from aiohttp import web
from kubernetes.aio import client

TOKEN = "the-operators-token"


class FakeExec:
    def __init__(self, program: str = "psql", environment: Mapping[str, str] | None = None) -> None:
        self.program = program
        """What runs where `psql` is asked for."""
        self.environment = dict(environment or {})
        self.objects: dict[str, dict[str, Any]] = {}
        """What GET answers, by path."""
        self.protocols = ("v5.channel.k8s.io", "v4.channel.k8s.io")
        self.refuses: int | None = None
        """The status with which exec is refused."""
        self.commands: list[list[str]] = []
        self.written = b""
        """All that came on standard input."""
        self.closed_input = 0
        self.ended = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/exec", self._exec)
        application.router.add_get("/{path:.*}", self._get)
        self._runner = web.AppRunner(application, shutdown_timeout=5.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def configuration(self) -> client.Configuration:
        assert self._runner is not None
        made = client.Configuration(host=f"http://127.0.0.1:{self._runner.addresses[0][1]}")
        made.api_key = {"BearerToken": TOKEN}
        made.api_key_prefix = {"BearerToken": "Bearer"}
        return made

    def has_primary(self, *, cluster: str = "shop", pod: str = "shop-1", container: str = "postgres") -> None:
        """A Service whose selector finds one running pod."""
        found = {
            "metadata": {"name": pod, "labels": {"role": "primary"}},
            "spec": {"containers": [{"name": container}]},
            "status": {"containerStatuses": [{"name": container, "state": {"running": {}}}]},
        }
        self.objects[f"/api/v1/namespaces/default/services/{cluster}-rw"] = {"spec": {"selector": {"role": "primary"}}}
        self.objects["/api/v1/namespaces/default/pods"] = {"items": [found]}
        self.objects[f"/api/v1/namespaces/default/pods/{pod}"] = found

    async def _get(self, request: web.Request) -> web.Response:
        if (found := self.objects.get(request.path)) is None:
            return web.json_response({"kind": "Status", "message": f"{request.path} not found"}, status=404)
        return web.json_response(found)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        if self.refuses is not None:
            return web.json_response({"message": "no"}, status=self.refuses)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        command = request.query.getall("command")
        self.commands.append(list(command))
        for channel in (1, 2, 3):
            await socket.send_bytes(bytes((channel,)))
        if command[0] == "psql":
            command[0] = self.program
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self.environment,
            )
        except FileNotFoundError:
            message = f'error executing command in container: exec: "{command[0]}": executable file not found in $PATH'
            await _status(socket, {"status": "Failure", "reason": "InternalError", "message": message})
            return socket
        await self._joined(socket, process)
        self.ended += 1
        return socket

    async def _joined(self, socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
        async def output(channel: int, stream: asyncio.StreamReader) -> None:
            while data := await stream.read(4096):
                await socket.send_bytes(bytes((channel,)) + data)

        async def outputs() -> None:
            assert process.stdout is not None and process.stderr is not None  # noqa: PT018
            await asyncio.gather(output(1, process.stdout), output(2, process.stderr))
            code = await process.wait()
            if code == 0:
                await _status(socket, {"status": "Success"})
            else:
                details = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
                why = {"message": f"command terminated with exit code {code}", "details": details}
                await _status(socket, {"status": "Failure", "reason": "NonZeroExitCode", **why})

        told = asyncio.create_task(outputs())
        assert process.stdin is not None
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    continue
                if message.data[:1] == b"\0":
                    self.written += message.data[1:]
                    process.stdin.write(message.data[1:])
                elif message.data == b"\xff\0":
                    assert socket.ws_protocol == "v5.channel.k8s.io"
                    self.closed_input += 1
                    process.stdin.close()
        finally:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 1.0)
            except TimeoutError:
                process.kill()
            await asyncio.gather(told, return_exceptions=True)


async def _status(socket: web.WebSocketResponse, status: dict[str, Any]) -> None:
    if not socket.closed:
        await socket.send_bytes(b"\3" + json.dumps({"kind": "Status", "metadata": {}, **status}).encode())
        await socket.close()
