"""The control endpoint over real mutual TLS, in front of a pooler without a network."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import uvloop
from tests.pgweir.admin.world import HandService
from tests.postgres.certificates import Authority, Pair

from pgweir.admin import control
from pgweir.bundle import Bundle, bundle_digest, bundle_manifest
from pgweir.bundle_store import BundleStore
from pgweir.config import Config
from pgweir.protocol.reasons import CloseReason

INI = "[databases]\n* = host=db\n[pgbouncer]\ndefault_pool_size = {size}\n"
HOST_NAME = "control.pgweir.internal"


class Pod:
    """A pod's folders, its certificates, and the operator's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "control").mkdir()
        self.authority = Authority("control-ca", folder)
        self.other = Authority("other-ca", folder)
        self.operator = self.authority.issue("operator", "pgweir-operator", client=True)
        self.install(self.authority)
        self.service = HandService(folder)
        self.service.options = SimpleNamespace(control_dir=folder / "control")
        (folder / "state").mkdir()
        self.service.store = BundleStore(mounted=folder / "mounted", state_dir=folder / "state")
        self.control: control.Control | None = None

    def install(self, authority: Authority, name: str = "pod") -> None:
        pair = authority.issue(name, "pod", (HOST_NAME,))
        for target, source in (("ca.crt", authority.file), ("tls.crt", pair.certificate), ("tls.key", pair.key)):
            (self.folder / "control" / target).write_bytes(source.read_bytes())

    def client_context(self, pair: Pair | None, authority: Authority | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str((authority or self.authority).file))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        context: ssl.SSLContext | None = None,
        raw: bytes | None = None,
    ) -> tuple[int, dict[str, Any]]:
        assert self.control is not None
        raw = json.dumps(body).encode() if body is not None else raw
        data = io.BytesIO(raw) if raw is not None else None
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method,
                f"https://127.0.0.1:{self.control.port}{path}",
                data=data,
                ssl=context or self.client_context(self.operator),
                server_hostname=HOST_NAME,
                timeout=aiohttp.ClientTimeout(10),
            ) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else {"text": text}

    async def push(self, revision: int, *, size: object = 5, paused: bool = False) -> tuple[int, dict[str, Any]]:
        return await self.ask("PUT", "/v1/configuration", pushed(revision, size=size, paused=paused))


def pushed(revision: int, *, size: object = 5, paused: bool = False) -> dict[str, Any]:
    ini = INI.format(size=size).encode()
    files = {"pgbouncer.ini": base64.b64encode(ini).decode()}
    return {"revision": revision, "paused": paused, "catalogueVersion": 1, "files": files}


Story = Callable[[Callable[[Pod], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def story(pod: Pod, request: pytest.FixtureRequest) -> Story:
    """Run a coroutine against the pod's endpoint."""

    async def tell(what: Callable[[Pod], Coroutine[Any, Any, None]]) -> None:
        pod.control = await control.start(pod.service, "127.0.0.1:0")
        try:
            await what(pod)
        finally:
            await pod.control.close()

    def run(what: Callable[[Pod], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(tell(what))

    return run


def test_a_bundle_is_applied_kept_and_reported(pod: Pod, story: Story) -> None:
    async def what(pod: Pod) -> None:
        status, answer = await pod.push(4, size=9)
        assert status == 200
        ini = INI.format(size=9).encode()
        manifest = bundle_manifest(revision=4, paused=False, catalogue_version=1)
        assert answer["digest"] == bundle_digest({"pgbouncer.ini": ini, "bundle.json": manifest})
        assert (answer["revision"], answer["state"], answer["rejected"]) == (4, "active", None)
        assert (await pod.ask("GET", "/v1/status"))[1] == answer

    story(what)
    assert pod.service.pooler.settings.default_pool_size == 9
    assert (pod.folder / "state" / "accepted" / "pgbouncer.ini").read_bytes() == INI.format(size=9).encode()


def test_revisions_only_go_up(pod: Pod, story: Story) -> None:
    async def what(pod: Pod) -> None:
        await pod.push(4)
        assert (await pod.push(4))[0] == 200
        for revision, size in ((3, 5), (4, 6)):
            status, answer = await pod.push(revision, size=size)
            assert (status, answer["revision"]) == (409, 4)
        assert (await pod.push(5, size=6))[1]["revision"] == 5

    story(what)
    assert len(pod.service.applied) == 2


def test_what_does_not_load_changes_nothing_and_is_remembered(pod: Pod, story: Story) -> None:
    async def what(pod: Pod) -> None:
        await pod.push(4, size=9)
        status, answer = await pod.push(5, size="many")
        assert (status, answer["key"], answer["file"]) == (422, "default_pool_size", "pgbouncer.ini")
        assert "'many'" in answer["error"]
        pod.service.refuses = "this certificate does not fit its key"
        status, answer = await pod.push(6)
        assert (status, answer["key"]) == (422, "client_tls_cert_file")
        pod.service.refuses = None
        now = (await pod.ask("GET", "/v1/status"))[1]
        assert (now["revision"], now["rejected"]["revision"]) == (4, 6)
        assert (await pod.push(7))[1]["rejected"] is None

    story(what)
    assert [path.name[0] for path in (pod.folder / "state").iterdir() if path.name != "accepted"] == ["7"]


def test_a_pause_is_acknowledged_at_once_and_its_holders_are_named(pod: Pod, story: Story) -> None:
    service = pod.service

    async def what(pod: Pod) -> None:
        server = service.server(pid=321)
        service.begin(service.client(application_name="shop"))
        service.edge.now += 12.5
        _, answer = await pod.push(4, paused=True)
        assert (answer["state"], answer["paused"], answer["heldServers"]) == ("pausing", True, 1)
        (holder,) = answer["holders"]
        assert (holder["serverPid"], holder["applicationName"], holder["inTransactionSeconds"]) == (321, "shop", 12.5)
        server.query_open = False
        server.release(service.edge.now)
        answer = (await pod.ask("GET", "/v1/status"))[1]
        assert (answer["state"], answer["heldServers"], answer["holders"]) == ("paused", 0, [])
        assert (await pod.push(5))[1]["state"] == "active"

    story(what)


def test_past_the_deadline_of_a_pause_its_holders_are_closed_and_counted(pod: Pod, story: Story) -> None:
    service = pod.service

    async def what(pod: Pod) -> None:
        service.server()
        client = service.client()
        service.begin(client)
        assert client.server is not None
        client.server.query_open = True
        waiting = service.client("two", "bob")
        await pod.push(4, paused=True)
        status, answer = await pod.ask("POST", "/v1/holders/terminate", {"revision": 4})
        assert (status, answer["terminatedHolders"]) == (200, 1)
        assert (answer["state"], answer["heldServers"], answer["holders"], answer["clients"]) == ("paused", 0, [], 1)
        goodbye = client.wire.messages()[-1].fields
        assert (goodbye["C"], goodbye["M"]) == ("57P01", CloseReason.PAUSE_TIMEOUT.text)
        assert waiting in service.pooler.clients
        status, answer = await pod.ask("POST", "/v1/holders/terminate", {"revision": 4})
        assert (status, answer["terminatedHolders"]) == (200, 0)
        assert "terminatedHolders" not in (await pod.ask("GET", "/v1/status"))[1]

    story(what)


def test_holders_are_closed_for_the_pause_that_runs_and_for_no_other(pod: Pod, story: Story) -> None:
    service = pod.service

    async def terminate(revision: object) -> tuple[int, object]:
        status, answer = await pod.ask("POST", "/v1/holders/terminate", {"revision": revision})
        assert answer["error"]
        return status, answer.get("revision")

    async def what(pod: Pod) -> None:
        assert await terminate(1) == (409, 0)
        service.server()
        client = service.client()
        service.begin(client)
        await pod.push(4)
        assert await terminate(4) == (409, 4), "not paused"
        await pod.push(5, paused=True)
        assert await terminate(4) == (409, 5)
        service.operations.resume()  # at the console, meanwhile
        assert await terminate(5) == (409, 5)
        for nonsense in ("5", True, None):
            assert await terminate(nonsense) == (400, None)
        assert (await pod.ask("POST", "/v1/holders/terminate", raw=b"not json"))[0] == 400
        assert client in service.pooler.clients

    story(what)


def test_a_pause_does_not_wait_for_the_disk_and_is_undone_when_it_fails(
    pod: Pod, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused_while_writing: list[bool] = []

    def full_disk(bundle: object) -> None:
        paused_while_writing.append(pod.service.pooler.paused)
        raise OSError(28, "No space left on device")

    async def what(pod: Pod) -> None:
        await pod.push(4)
        monkeypatch.setattr(pod.service.store, "stage", full_disk)
        status, answer = await pod.push(5, paused=True)
        assert (status, answer["error"]) == (422, "[Errno 28] No space left on device")
        answer = (await pod.ask("GET", "/v1/status"))[1]
        assert (answer["revision"], answer["state"], answer["paused"]) == (4, "active", False)

    story(what)
    assert paused_while_writing == [True]


def test_what_a_push_says_wins_over_a_pause_from_the_console(pod: Pod, story: Story) -> None:
    async def what(pod: Pod) -> None:
        await pod.push(4)
        pod.service.operations.pause()
        assert (await pod.push(5, size=6))[1]["state"] == "active"

    story(what)


# --- a switchover ----------------------------------------------------------------------------------------------------


def test_a_hold_is_acknowledged_at_once_and_stands_beside_the_configuration(pod: Pod, story: Story) -> None:
    service = pod.service

    async def what(pod: Pod) -> None:
        await pod.push(4)
        server = service.server(pid=321)
        service.begin(service.client())
        order = {"id": "c1:2026-11-22T07:00:00.5Z", "ceilingSeconds": 60, "releaseWhen": "told"}
        status, answer = await pod.ask("PUT", "/v1/hold", order)
        assert status == 200
        expected = {**order, "ceilingSeconds": 60.0, "seconds": 0.0, "drained": False}
        assert (answer["hold"], answer["lastHold"], answer["route"]) == (expected, None, None)
        assert (answer["state"], answer["paused"]) == ("active", False), "an older operator knows no other words"
        assert (answer["heldServers"], answer["holders"][0]["serverPid"]) == (1, 321)
        service.pooler.drop_server(server, CloseReason.SERVER_GONE)
        service.edge.now += 3.5
        assert (await pod.ask("PUT", "/v1/hold", order))[1]["hold"] == {**expected, "seconds": 3.5, "drained": True}
        assert (await pod.push(5, paused=True))[1]["hold"] is not None
        assert (await pod.push(6))[1]["hold"] is not None
        status, answer = await pod.ask("DELETE", "/v1/hold", {"id": order["id"]})
        assert (status, answer["hold"]) == (200, None)
        last = {"id": order["id"], "seconds": 3.5, "endedBy": "told", "clientsHeld": 0}
        assert answer["lastHold"] == last
        assert (await pod.ask("DELETE", "/v1/hold?id=unknown"))[0] == 200

    story(what)


def test_a_route_is_reported_while_it_stands_and_ends_the_hold(pod: Pod, story: Story) -> None:
    service = pod.service

    async def what(pod: Pod) -> None:
        await pod.ask("PUT", "/v1/hold", {"id": "one", "ceilingSeconds": 60, "releaseWhen": "restarted"})
        route = {"id": "one", "host": "c1-rw", "address": "10.0.0.7", "seconds": 60}
        status, answer = await pod.ask("PUT", "/v1/route", route)
        assert (status, answer["hold"], answer["lastHold"]["endedBy"]) == (200, None, "route")
        assert answer["route"] == {"host": "c1-rw", "address": "10.0.0.7", "seconds": 60.0}
        service.edge.now += 61
        assert (await pod.ask("GET", "/v1/status"))[1]["route"] is None

    story(what)


def test_an_order_waits_for_no_bundle_and_no_disk(pod: Pod, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, may_go_on = threading.Event(), threading.Event()
    store = pod.service.store
    assert store is not None
    stage = store.stage

    def slow_disk(bundle: Bundle) -> Config:
        writing.set()
        assert may_go_on.wait(10)
        return stage(bundle)

    async def what(pod: Pod) -> None:
        monkeypatch.setattr(store, "stage", slow_disk)
        push = asyncio.create_task(pod.push(4))
        assert await asyncio.to_thread(writing.wait, 10)
        answer = (await pod.ask("PUT", "/v1/hold", {"id": "one", "ceilingSeconds": 60}))[1]
        assert answer["hold"]["id"] == "one"
        may_go_on.set()
        assert (await push)[1]["hold"]["id"] == "one"

    story(what)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/v1/hold", [], "object"),
        ("PUT", "/v1/hold", {"id": "", "ceilingSeconds": 1}, "id"),
        ("PUT", "/v1/hold", {"id": "a b", "ceilingSeconds": 1}, "id"),
        ("PUT", "/v1/hold", {"id": "x" * 65, "ceilingSeconds": 1}, "id"),
        ("PUT", "/v1/hold", {"id": "one"}, "ceilingSeconds"),
        ("PUT", "/v1/hold", {"id": "one", "ceilingSeconds": 0}, "ceilingSeconds"),
        ("PUT", "/v1/hold", {"id": "one", "ceilingSeconds": True}, "ceilingSeconds"),
        ("PUT", "/v1/hold", {"id": "one", "ceilingSeconds": 1, "releaseWhen": "never"}, "releaseWhen"),
        ("PUT", "/v1/hold", {"id": "one", "ceilingSeconds": 1, "releaseWhen": []}, "releaseWhen"),
        (
            "PUT",
            "/v1/hold",
            {"id": "one", "ceilingSeconds": 1, "leaving": "c1-1"},
            "leaving is 'c1-1'; write an IP address",
        ),
        ("PUT", "/v1/route", {"id": "one", "address": "10.0.0.7", "seconds": 1}, "host"),
        ("PUT", "/v1/route", {"id": "one", "host": "c1-rw", "address": "c1-rw", "seconds": 1}, "address"),
        ("PUT", "/v1/route", {"id": "one", "host": "c1-rw", "address": "10.0.0.7"}, "seconds"),
        ("DELETE", "/v1/hold", {}, "id"),
        ("DELETE", "/v1/hold", None, "id"),
    ],
)
def test_an_order_that_cannot_be_says_which_field(story: Story, method: str, path: str, body: Any, field: str) -> None:
    async def what(pod: Pod) -> None:
        status, answer = await pod.ask(method, path, body)
        assert status == 400
        assert field in answer["error"]
        assert (await pod.ask("GET", "/v1/status"))[1]["hold"] is None

    story(what)


def test_status_speaks_of_postgresql_and_of_settings_that_need_a_restart(pod: Pod, story: Story) -> None:
    service = pod.service

    async def what(pod: Pod) -> None:
        assert (await pod.ask("GET", "/v1/status"))[1]["target"] == {"reachable": None, "lastError": None}
        service.client().data_received(b"Q\0\0\0\x05\0")
        service.pooler.opening.failed(service.edge.connects[-1], "connect failed", "08006", answered=False)
        body = pushed(4)
        ini = INI.format(size=5).encode() + b"listen_port = 7777\n"
        body["files"]["pgbouncer.ini"] = base64.b64encode(ini).decode()
        _, answer = await pod.ask("PUT", "/v1/configuration", body)
        assert answer["restartNeeded"] == ["listen_port"]

    story(what)


@pytest.mark.parametrize(
    "raw",
    [
        b"not json",
        b"[]",
        b'{"revision": 1}',
        json.dumps(pushed(1) | {"revision": "1"}).encode(),
        json.dumps(pushed(1) | {"paused": 1}).encode(),
        json.dumps(pushed(1) | {"files": {}}).encode(),
        json.dumps(pushed(1) | {"files": {"pgbouncer.ini": "%%%"}}).encode(),
        json.dumps(pushed(1) | {"files": {"pgbouncer.ini": "", "../evil": ""}}).encode(),
        json.dumps(pushed(1) | {"files": {"pgbouncer.ini": "", "bundle.json": ""}}).encode(),
    ],
)
def test_what_is_no_bundle_is_400(story: Story, raw: bytes) -> None:
    async def what(pod: Pod) -> None:
        status, answer = await pod.ask("PUT", "/v1/configuration", raw=raw)
        assert status == 400
        assert answer["error"]

    story(what)


def test_a_body_beyond_four_mebibytes_is_413(story: Story) -> None:
    async def what(pod: Pod) -> None:
        assert (await pod.ask("PUT", "/v1/configuration", raw=b"x" * (4 * 2**20 + 1)))[0] == 413

    story(what)


def test_only_the_operators_certificate_gets_in(pod: Pod, story: Story) -> None:
    somebody = pod.authority.issue("somebody", "somebody-else", client=True)
    forged = pod.other.issue("forged", "pgweir-operator", client=True)

    async def what(pod: Pod) -> None:
        assert (await pod.ask("GET", "/v1/status", context=pod.client_context(somebody)))[0] == 403
        for pair in (None, forged):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                await pod.ask("GET", "/v1/status", context=pod.client_context(pair))

    story(what)


def test_renewed_certificates_are_used_without_a_restart(
    pod: Pod, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CERTIFICATE_CHECK", 0.05)
    new = Authority("new-ca", pod.folder)
    renewed = new.issue("operator-2", "pgweir-operator", client=True)

    async def what(pod: Pod) -> None:
        assert (await pod.ask("GET", "/v1/status"))[0] == 200
        (pod.folder / "control" / "tls.key").write_bytes(b"half a k")  # a moment in which they do not fit
        await asyncio.sleep(0.2)
        assert (await pod.ask("GET", "/v1/status"))[0] == 200
        pod.install(new, "pod-2")
        context = pod.client_context(renewed, new)
        for _ in range(100):
            try:
                assert (await pod.ask("GET", "/v1/status", context=context))[0] == 200
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        else:
            raise AssertionError("the new authority is never trusted")
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await pod.ask("GET", "/v1/status", context=pod.client_context(pod.operator, new))

    story(what)
