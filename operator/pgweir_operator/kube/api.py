"""The client: server-side apply, and the few other verbs the operator needs. Plain dictionaries in and out.

WHY not the generated classes: an object that passes through them loses every field that this version of the client
does not know. Each call is one request to a path that the kind decides.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client

from pgweir_operator.api.names import FIELD_MANAGER
from pgweir_operator.kube.errors import ApiError, NotFoundError, api_error

Object = dict[str, Any]

# As audit logs and the API server's own metrics call them.
_VERBS = {"POST": "create", "PUT": "update"}

ATTEMPTS = 5
REQUEST_TIMEOUT = 30.0
# Whatever Retry-After says: a pass that sleeps keeps its turn, and somebody between us and the API server may say an hour.
LONGEST_PAUSE = 15.0
# The API server ends a watch after this.
WATCH_SECONDS = 290
# It sends a bookmark about once a minute. A watch that is silent for longer is opened anew where it was: that costs one
# request, and an API server that hangs is noticed.
WATCH_SILENCE = 150.0
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind, and where its objects live."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
        root = "/api" if "/" not in self.api_version else "/apis"
        scope = f"/namespaces/{namespace}" if namespace else ""
        parts = [f"{root}/{self.api_version}{scope}/{self.plural}", name, subresource]
        return "/".join(part for part in parts if part)


RESOURCES = {
    resource.kind: resource
    for resource in (
        Resource("pgweir.io/v1", "Pooler", "poolers"),
        Resource("apps/v1", "Deployment", "deployments"),
        Resource("v1", "Service", "services"),
        Resource("v1", "Secret", "secrets"),
        Resource("v1", "ServiceAccount", "serviceaccounts"),
        Resource("v1", "Pod", "pods"),
        Resource("v1", "Namespace", "namespaces"),
        Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
        Resource("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
        Resource("postgresql.cnpg.io/v1", "Cluster", "clusters"),
        Resource("events.k8s.io/v1", "Event", "events"),
        Resource("coordination.k8s.io/v1", "Lease", "leases"),
    )
} | {
    # The same object under EDB's name; two resources of one kind need two words here.
    "EdbCluster": Resource("postgresql.k8s.enterprisedb.io/v1", "Cluster", "clusters"),
}


class Kube:
    """One client for the whole process. An async context manager."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._configuration = configuration
        self._client: client.ApiClient | None = None
        self.answers: Counter[tuple[str, ...]] = Counter()
        """Requests by verb and status code ("none" where no answer came); a watch counts when it is opened."""
        self.watches = 0
        """Those that are open."""
        self.on_answer: Callable[[Object, Object], None] = lambda document, written: None
        """Told what the API server answered to a write (the object as it is now, or the Status of a deletion), and what was
        written."""

    async def __aenter__(self) -> Self:
        self._client = client.ApiClient(self._configuration)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """None where it does not exist."""
        try:
            return await self._request("GET", RESOURCES[kind].path(namespace, name))
        except NotFoundError:
            return None

    async def items(self, kind: str, namespace: str, *, labels: str | None = None) -> list[Object]:
        """Every object of a kind, in a namespace or ("") in all of them."""
        return (await self.listed(kind, namespace, labels=labels))[0]

    async def listed(self, kind: str, namespace: str, *, labels: str | None = None) -> tuple[list[Object], str]:
        """The same, and the version at which a watch takes up from there."""
        query: dict[str, str] = {"labelSelector": labels} if labels else {}
        found: list[Object] = []
        while True:
            page = await self._request(
                "GET", RESOURCES[kind].path(namespace), query={**query, "limit": "500"}, verb="list"
            )
            found += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not (token := metadata.get("continue")):
                return found, str(metadata.get("resourceVersion") or "")
            query["continue"] = token

    async def knows(self, api_version: str, kind: str) -> bool:
        """Whether the API server serves this kind."""
        root = "/api" if "/" not in api_version else "/apis"
        try:
            listed = await self._request("GET", f"{root}/{api_version}")
        except NotFoundError:
            return False
        return any(resource.get("kind") == kind for resource in listed.get("resources") or [])

    async def apply(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Server-side apply: what we name is ours, by force; what others set beside it stays."""
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return await self._request("PATCH", path, query=query, body=manifest, content_type=APPLY)

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        """Raises ConflictError where it exists."""
        path = RESOURCES[manifest["kind"]].path(manifest["metadata"]["namespace"])
        return await self._request("POST", path, body=manifest, attempts=1)

    async def replace(self, manifest: Mapping[str, Any]) -> Object:
        """Raises ConflictError where somebody else was faster (metadata.resourceVersion decides)."""
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, body=manifest, attempts=1)

    async def merge_status(self, kind: str, namespace: str, name: str, part: Mapping[str, Any]) -> Object:
        """Only what is named: None takes a field away, lists are replaced, and what others wrote beside it stays."""
        path = RESOURCES[kind].path(namespace, name, "status")
        return await self._request("PATCH", path, body={"status": part}, content_type=MERGE)

    async def set_finalizers(self, target: Mapping[str, Any], finalizers: list[str]) -> Object:
        """Of exactly this version of the object; raises ConflictError where it has changed meanwhile."""
        metadata = target["metadata"]
        body = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        path = RESOURCES[target["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._request("PATCH", path, body=body, content_type=MERGE, attempts=1)

    async def merge(self, kind: str, namespace: str, name: str, body: Mapping[str, Any]) -> Object:
        """Change what is named and nothing else; None takes a field away. Raises NotFoundError."""
        path = RESOURCES[kind].path(namespace, name)
        return await self._request("PATCH", path, body=body, content_type=MERGE, attempts=1)

    async def log(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, **query: str
    ) -> AsyncIterator[bytes]:
        """What a container wrote, a line each. With `follow`, as it writes them."""
        words = {"container": container, **query, **({"follow": "true"} if follow else {})}
        response = await self._send(
            "GET",
            RESOURCES["Pod"].path(namespace, pod, "log"),
            query=words,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=None if follow else REQUEST_TIMEOUT),
        )
        try:
            async for line in response.content:
                yield line.rstrip(b"\n")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"the log of pod {pod} broke off: {error}") from None
        finally:
            response.close()

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str) -> None:
        """Delete exactly this object: one that was made anew under the same name has another uid."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", RESOURCES[kind].path(namespace, name), body=body)
        except NotFoundError:
            return

    async def changes(
        self, kind: str, namespace: str, name: str = "", label: str = "", *, since: str = ""
    ) -> AsyncIterator[Object]:
        """Watch one object by name, all that bear a label, or all: what becomes of them after the version `since`, or what
        is there first where none is given. Begins with an event OPENED; ends when the API server ends it or is silent."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        query |= {"labelSelector": label} if label else {}
        query |= {"resourceVersion": since} if since else {}
        response = await self._send(
            "GET",
            RESOURCES[kind].path(namespace),
            query=query,
            timeout=aiohttp.ClientTimeout(total=WATCH_SECONDS + 30, sock_connect=10, sock_read=WATCH_SILENCE),
            verb="watch",
        )
        _notice_silence(response)
        self.watches += 1
        try:
            yield {"type": "OPENED"}
            async for line in _lines(response.content):
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise api_error(int(status.get("code") or 500), status)
                yield event
        except TimeoutError:
            return
        except (aiohttp.ClientError, ValueError) as error:
            raise ApiError(0, f"the watch of {kind} {name} broke: {error}") from None
        finally:
            self.watches -= 1
            response.close()

    async def websocket(self, path: str) -> tuple[str, dict[str, str], ssl.SSLContext]:
        """What a WebSocket to a path of the API server needs: its URL, the headers that say who we are, and TLS."""
        assert self._client is not None, "a Kube is entered before it is used"
        headers: dict[str, str] = {}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        return self._configuration.host + path, headers, self._client.rest_client.ssl_context

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        attempts: int = ATTEMPTS,
        verb: str = "",
    ) -> Object:
        for attempt in range(1, attempts + 1):
            try:
                response = await self._send(
                    method,
                    path,
                    query=query,
                    body=body,
                    content_type=content_type,
                    timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
                    verb=verb,
                )
                async with response:
                    document: Object = await response.json(content_type=None)
                if method != "GET" and "dryRun" not in (query or {}):
                    self.on_answer(document, body or {})
                return document
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                failure = ApiError(0, f"the API server's answer to {method} {path} was cut off: {error}")
            except ApiError as error:
                failure = error
            if not failure.may_pass or attempt == attempts:
                raise failure
            pause = min(failure.retry_after or min(0.1 * 3**attempt, 5.0), LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 (spreads retries, guards nothing)
        raise AssertionError("the loop returns or raises")

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout,
        verb: str = "",
    ) -> aiohttp.ClientResponse:
        """One request, answered with success; else an ApiError."""
        assert self._client is not None, "a Kube is entered before it is used"
        verb = verb or _VERBS.get(method, method.lower())
        headers = {"Accept": "application/json", "Content-Type": content_type}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            wrapped = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.answers[verb, "none"] += 1
            raise ApiError(0, f"the API server cannot be reached: {error or type(error).__name__}") from None
        response: aiohttp.ClientResponse = wrapped.response
        self.answers[verb, str(response.status)] += 1
        if response.status < 300:
            return response
        async with response:
            text = await response.text()
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        retry_after = response.headers.get("Retry-After", "")
        raise api_error(response.status, document, retry_after=float(retry_after) if retry_after.isdigit() else None)


def _notice_silence(response: aiohttp.ClientResponse) -> None:
    """A connection whose other end has vanished breaks within 20 s, where a watch would hear nothing until its own end.

    WHY not a shorter watch: every reconnect sends all that is there once more.
    """
    transport = response.connection.transport if response.connection is not None else None
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """WHY not the reader's own lines: it gives up at 128 KiB, and a Secret or a Cluster with its history may be longer."""
    begun: list[bytes] = []
    async for chunk in content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*begun, line])
            begun.clear()
        if rest:
            begun.append(rest)
