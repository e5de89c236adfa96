"""A real browser (Debian's Chromium, headless), spoken to by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from tests.pooler.unpacked import Unpacked, find
from tests.postgres.server import make_directory


def find_browser() -> Unpacked:
    return find(
        "chromium-headless-shell",
        "usr/lib/chromium/chromium-headless-shell",
        on_path="chromium-headless-shell",
        with_libraries=True,
    )


class Browser:
    """One page in one browser. What it complains about is kept in `complaints`."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        program = find_browser()
        self._folder = make_directory("browser-")
        self._log = self._folder / "log"
        command = [
            str(program.program), "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--no-proxy-server",
            "--disable-dev-shm-usage", f"--user-data-dir={self._folder / 'profile'}", "--remote-debugging-port=0", *options,
        ]  # fmt: skip
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # it refuses root otherwise; it sees nothing but our own page
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "about:blank"], env=program.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._runner = asyncio.Runner()
        self._numbers = 0
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._page = ""
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._open())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._runner.run(self._hang_up())
        self._runner.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _open(self) -> None:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"DevTools listening on (ws://\S+)", self._log.read_text(errors="replace"))):
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, "the browser does not start"
            await asyncio.sleep(0.05)
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(found[1], max_msg_size=0)
        target = await self._ask("Target.createTarget", url="about:blank")
        self._page = (await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            await self._ask(f"{domain}.enable")

    async def _hang_up(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._http is not None:
            await self._http.close()

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        assert self._socket is not None
        self._numbers += 1
        number = self._numbers
        request = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(request | ({"sessionId": self._page} if self._page else {}))
        while True:
            said = await asyncio.wait_for(self._socket.receive_json(), timeout=120)
            if said.get("id") == number:
                assert "error" not in said, said
                return dict(said["result"])
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"):
            case "Log.entryAdded" if said["params"]["entry"]["level"] == "error":
                self.complaints.append(said["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._runner.run(self._ask(method, **parameters))

    # --- verbs ---

    def look_like(self, width: int, height: int, scheme: str) -> None:
        """The window's size, and what its user likes: `light` or `dark`."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url: str) -> None:
        self.ask("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({selector!r})?.textContent ?? ''"))

    def wait(self, what: Callable[[], object], timeout: float = 60.0) -> float:
        """Until it is so; answers how long that took."""
        started = time.monotonic()
        while not what():
            page = self.run("document.body?.innerText ?? ''")
            assert time.monotonic() - started < timeout, f"not within {timeout:g} s; {self.complaints}\n{page}"
            time.sleep(0.02)
        return time.monotonic() - started

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that assistive technology is told of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]
