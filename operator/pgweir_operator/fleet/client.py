"""The client side of the control endpoint: mutual TLS to a pod's address, under the one name that all pods bear.

A pod is dialled by its IP; its certificate is checked for `control.pgweir.internal` against the Pooler's own control
CA, so that neither a recycled address nor another Pooler's pod is ever taken for one of ours.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from pgweir.bundle import MANIFEST
from pgweir_operator.api.names import CONTROL_DNS_NAME, PORT_CONTROL
from pgweir_operator.api.observed import PodAnswer, PodReport, PodSilence
from pgweir_operator.metrics import Metrics

# A pod answers from memory: what takes longer than this is a pod that hangs, and the others do not wait for it.
DEADLINE = 5.0
# An order of a switchover is given again rather than waited for: the time in which it helps is shorter than DEADLINE.
ORDER_DEADLINE = 1.0
# A pause looks again this often while servers are held; transactions that short are the rule.
PAUSE_INTERVAL = 0.05

# Longer than the time between two periodic looks: a pause that comes in between finds its connections open.
KEEPALIVE = 90.0

# How metrics call a call where its path does not say it.
_CALLS = {("DELETE", "/v1/hold"): "release", ("POST", "/v1/holders/terminate"): "terminate_holders"}

# A report with its twenty holders has a few KiB. What a pod says ends up in conditions, which have to stay readable.
MAX_ANSWER = 2**20
MAX_WORDS = 500

NOT_FOUND = 404
UNPROCESSABLE = 422

Answers = Mapping[str, PodAnswer]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the operator is to the pods, and whom it trusts: PEM, from the Pooler's control Secrets."""

    trusted: bytes
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Member:
    """A pod to talk to."""

    name: str
    ip: str


@dataclass(frozen=True, slots=True)
class Push:
    """A configuration on its way: the bundle's files, with the manifest that says revision and pause."""

    files: Mapping[str, bytes]

    def body(self) -> bytes:
        manifest = json.loads(self.files[MANIFEST])
        return json.dumps(
            {
                "revision": manifest["revision"],
                "paused": manifest["paused"],
                "catalogueVersion": manifest["catalogueVersion"],
                "files": {
                    name: base64.b64encode(content).decode("ascii")
                    for name, content in self.files.items()
                    if name != MANIFEST
                },
            }
        ).encode()

    def __repr__(self) -> str:
        return f"<Push {', '.join(sorted(self.files))}>"


class Fleet:
    """All pods of one Pooler, behind one TLS context. Connections are kept between calls, until `close`."""

    def __init__(
        self,
        identity: Identity,
        *,
        port: int = PORT_CONTROL,
        deadline: float = DEADLINE,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._context = _tls_context(identity)
        self._port = port
        self._deadline = deadline
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """For good: whoever still has it hears that nobody is asked any more."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def poll(self, members: Sequence[Member]) -> Answers:
        """What each pod says of itself."""
        return await self._all(members, self._poll)

    async def push(self, members: Sequence[Member], push: Push) -> Answers:
        """Hand the configuration to every pod. A pod that refuses it is asked what it runs instead."""
        body = push.body()
        return await self._all(members, lambda member: self._push(member, body))

    async def pause(self, members: Sequence[Member], push: Push, *, patience: float) -> Answers:
        """In two phases: every pod acknowledges that it assigns no more, then servers are waited for.

        Answers as soon as no pod holds a server, or after `patience` with who still does. The caller comes back for
        the rest: the pods go on pausing by themselves.
        """
        answers = await self.push(members, push)
        until = time.monotonic() + patience
        while time.monotonic() < until and _is_draining(answers):
            await asyncio.sleep(PAUSE_INTERVAL)
            answers = await self.poll(members)
        return answers

    async def terminate_holders(self, members: Sequence[Member], revision: int) -> Answers:
        """Close the clients that a pause of this revision still waits for. A pod that runs another one closes nobody."""
        body = json.dumps({"revision": revision}).encode()
        return await self._all(members, lambda member: self._terminate_holders(member, body))

    # WHY one by one: an order to a pod that answers is not kept waiting by one to a pod that hangs.

    async def ask(self, member: Member) -> PodAnswer:
        """What one pod says of itself, soon."""
        return await self._order(member, "GET", "/v1/status", None)

    async def hold(
        self, member: Member, id_: str, *, ceiling: float, release_when: str, leaving: str = ""
    ) -> PodAnswer:
        """Clients wait from here on, and servers are closed as they become free."""
        order: dict[str, Any] = {"id": id_, "ceilingSeconds": ceiling, "releaseWhen": release_when}
        if leaving:
            order["leaving"] = leaving
        return await self._order(member, "PUT", "/v1/hold", order)

    async def route(self, member: Member, id_: str, *, host: str, address: str, seconds: float) -> PodAnswer:
        """The host is at that address for so long; the hold of that id is over."""
        order = {"id": id_, "host": host, "address": address, "seconds": seconds}
        return await self._order(member, "PUT", "/v1/route", order)

    async def release(self, member: Member, id_: str) -> PodAnswer:
        """The hold of that id is over, and everything is as it was."""
        return await self._order(member, "DELETE", "/v1/hold", {"id": id_})

    async def _order(self, member: Member, method: str, path: str, order: Mapping[str, Any] | None) -> PodAnswer:
        body = None if order is None else json.dumps(order).encode()
        answer = await self._call(member, method, path, body, deadline=min(ORDER_DEADLINE, self._deadline))
        if isinstance(answer, _Refusal):
            if answer.status == NOT_FOUND:
                return PodSilence(member.name, "its image is too old for that", is_too_old=True)
            return PodSilence(member.name, answer.error)
        return answer

    async def _all(self, members: Sequence[Member], ask: Callable[[Member], Awaitable[PodAnswer]]) -> Answers:
        answers = await asyncio.gather(*(ask(member) for member in members))
        return {member.name: answer for member, answer in zip(members, answers, strict=True)}

    async def _push(self, member: Member, body: bytes) -> PodAnswer:
        answer = await self._call(member, "PUT", "/v1/configuration", body)
        if not isinstance(answer, _Refusal):
            return answer
        current = await self._call(member, "GET", "/v1/status", None)
        if isinstance(current, _Refusal):
            return PodSilence(member.name, current.error)
        if isinstance(current, PodReport) and answer.status == UNPROCESSABLE:
            return replace(current, rejected_revision=json.loads(body)["revision"], rejected_error=answer.words)
        return current

    async def _terminate_holders(self, member: Member, body: bytes) -> PodAnswer:
        answer = await self._call(member, "POST", "/v1/holders/terminate", body)
        return await self._poll(member) if isinstance(answer, _Refusal) else answer

    async def _poll(self, member: Member) -> PodAnswer:
        answer = await self._call(member, "GET", "/v1/status", None)
        return PodSilence(member.name, answer.error) if isinstance(answer, _Refusal) else answer

    async def _call(
        self, member: Member, method: str, path: str, body: bytes | None, *, deadline: float | None = None
    ) -> PodAnswer | _Refusal:
        if self._closed:
            return PodSilence(member.name, "this operator's certificate was replaced meanwhile")
        call = _CALLS.get((method, path), path.rpartition("/")[2])
        began = time.monotonic()
        answer = await self._asked(member, method, path, body, deadline)
        if isinstance(answer, PodReport):
            self._metrics.call_seconds.labels(call).observe(time.monotonic() - began)
        result = {PodReport: "answered", _Refusal: "refused"}.get(type(answer), "silent")
        self._metrics.calls.labels(call, result).inc()
        return answer

    async def _asked(
        self, member: Member, method: str, path: str, body: bytes | None, deadline: float | None
    ) -> PodAnswer | _Refusal:
        patience = self._deadline if deadline is None else deadline
        if self._session is None:
            # WHY trust_env is off: a proxy of the environment has no business between the operator and a pod.
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0, keepalive_timeout=KEEPALIVE)
            # WHY nothing is unpacked: a few bytes could become gigabytes, and no pod of ours packs its answers.
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False)
        host = f"[{member.ip}]" if ":" in member.ip else member.ip
        where = f"{host}:{self._port}"
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(
                    method,
                    f"https://{where}{path}",
                    data=body,
                    headers={"Content-Type": "application/json"} if body else None,
                    server_hostname=CONTROL_DNS_NAME,
                    allow_redirects=False,
                ) as response,
            ):
                answer = await _body(response)
                if response.status == 200:
                    return PodReport.from_json(member.name, json.loads(answer))
                return _Refusal(response.status, _words(answer) or str(response.reason)[:MAX_WORDS], where)
        except TimeoutError:
            return PodSilence(member.name, f"no answer from {where} within {patience:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return PodSilence(member.name, f"no answer from {where}: {error or type(error).__name__}")
        except (ValueError, RecursionError) as error:
            return PodSilence(member.name, f"{where} answered what cannot be read: {str(error)[:MAX_WORDS]}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """An answer, as far as a pod of ours could have one to give."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError(f"more than {MAX_ANSWER} bytes")
    return bytes(body)


def _words(body: bytes) -> str:
    """A refusal in the pod's own words. WHY not always JSON: a pod of an older image has no such path, and says 404."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(document.get("error") or "")[:MAX_WORDS] if isinstance(document, dict) else ""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The pod understood and said no."""

    status: int
    words: str
    where: str

    @property
    def error(self) -> str:
        return f"{self.where} answered {self.status}: {self.words}"


def _is_draining(answers: Answers) -> bool:
    """Whether waiting could still help: some pod holds servers, and none is lost."""
    return any(isinstance(answer, PodReport) and answer.state == "pausing" for answer in answers.values())


def _tls_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=identity.trusted.decode("ascii"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Python loads a key from a file only: it exists for as long as the call takes.
    with tempfile.TemporaryDirectory(prefix="pgweir-") as folder:
        pair = Path(folder, "pair.pem")
        with open(pair, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(identity.certificate + b"\n" + identity.key)
        context.load_cert_chain(pair)
    return context
