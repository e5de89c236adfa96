"""The operator's door: HTTPS with mutual TLS. GET /v1/status says what runs, PUT /v1/configuration brings a bundle,
POST /v1/holders/terminate ends a pause's wait for whoever still holds a server. PUT and DELETE /v1/hold and PUT /v1/route are the
orders of a switchover (`session.switchover`): they wait for no bundle, and no disk.

Only a certificate of the pod's own authority with the operator's name gets in. A bundle that does not load changes nothing;
one that loads is applied, kept for the next boot, and paused or resumed as it says. Answers hold no secrets.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from pgweir.admin import orders
from pgweir.admin.http import Room, open_room
from pgweir.admin.service import Service
from pgweir.bundle import MANIFEST, Bundle, BundleError, bundle_manifest, read_bundle
from pgweir.bundle_store import MAX_BUNDLE, BundleStore
from pgweir.config import ConfigError
from pgweir.session import switchover
from pgweir.session.client import ClientSession
from pgweir.settings import CATALOGUE_VERSION, Settings, changed_settings

log = logging.getLogger(__name__)

OPERATOR: Final = "pgweir-operator"  # the common name that its client certificate must have
CERTIFICATE_CHECK: Final = 5.0  # seconds between looks at the certificate files
MAX_HOLDERS: Final = 20
_FILES: Final = ("ca.crt", "tls.crt", "tls.key")


async def start(service: Service, address: str) -> Control:
    """Serve. Raises OSError, ValueError or ssl.SSLError, whose text names what is wrong."""
    directory = service.options.control_dir
    if directory is None or service.store is None:
        raise ValueError("--control-listen needs --control-dir and --state-dir too")
    return await Control(service, service.store, directory).start(address)


class Control:
    """The requests, and the certificates they come under."""

    def __init__(self, service: Service, store: BundleStore, directory: Path) -> None:
        self._service = service
        self._store = store
        self._directory = directory
        self._lock = asyncio.Lock()  # one bundle at a time, and no termination in the middle of one
        self._rejected: dict[str, Any] | None = None
        self._at_start: Settings = service.pooler.settings
        self._certificates: tuple[bytes, ...] = ()
        self._room: Room | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        assert self._room is not None
        return self._room.port

    async def start(self, address: str) -> Control:
        application = web.Application(client_max_size=MAX_BUNDLE, middlewares=[_operator_only])
        application.router.add_get("/v1/status", self._get_status)
        application.router.add_put("/v1/configuration", self._put_configuration)
        application.router.add_post("/v1/holders/terminate", self._terminate_holders)
        application.router.add_put("/v1/hold", self._put_hold)
        application.router.add_delete("/v1/hold", self._delete_hold)
        application.router.add_put("/v1/route", self._put_route)
        self._certificates = self._read_certificates()
        context = self._context()
        self._room = await open_room(application, address)
        await self._room.serve(context)
        self._watch = asyncio.get_running_loop().create_task(self._follow_certificates())
        return self

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._room is not None:
            await self._room.close()

    # --- certificates ----------------------------------------------------------------------------------------------------

    def _read_certificates(self) -> tuple[bytes, ...]:
        return tuple((self._directory / name).read_bytes() for name in _FILES)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._directory / "ca.crt")
        context.load_cert_chain(self._directory / "tls.crt", self._directory / "tls.key")
        return context

    async def _follow_certificates(self) -> None:
        """A renewed certificate is used for the next connection; one that does not fit together is left alone until it does."""
        assert self._room is not None
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK)
            try:
                found = self._read_certificates()
                if found != self._certificates:
                    await self._room.serve(self._context())
                    self._certificates = found
                    log.info("control endpoint: certificates renewed")
            except (OSError, ssl.SSLError) as error:
                log.warning("control endpoint: the new certificates cannot be used yet: %s", error)

    # --- requests --------------------------------------------------------------------------------------------------------

    async def _get_status(self, request: web.Request) -> web.Response:
        return web.json_response(self.status())

    async def _put_configuration(self, request: web.Request) -> web.Response:
        try:
            bundle = bundle_of(await request.json())
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": str(error)}, status=400)
        async with self._lock:
            return await self._take(bundle)

    async def _take(self, bundle: Bundle) -> web.Response:
        """The rules of revisions, then: write aside, load, apply, keep."""
        service = self._service
        current = service.bundle
        if current is not None:
            if bundle.revision < current.revision:
                return _conflict(f"revision {bundle.revision} is older than the one that runs", current.revision)
            if bundle.revision == current.revision:
                if bundle.digest != current.digest:
                    return _conflict(f"revision {bundle.revision} runs with another content", current.revision)
                self._follow_wish(bundle)
                return web.json_response(self.status())
        in_advance = current is not None and _same_files(bundle, current)
        if in_advance:
            self._follow_wish(bundle)  # PERF: a switchover counts from here; the disk may take its time
        try:
            config = await asyncio.to_thread(self._store.stage, bundle)
            service.apply(config)
        except (OSError, ValueError) as error:  # ConfigError and SSLError among them
            self._store.discard(bundle)
            if in_advance and current is not None:
                self._follow_wish(current)
            return self._refused(bundle, error)
        service.bundle = bundle
        service.reloads.took(time.time())
        self._rejected = None
        self._follow_wish(bundle)
        await asyncio.to_thread(self._store.try_to_keep, bundle)
        log.info("configuration of revision %d applied (%s)", bundle.revision, "paused" if bundle.paused else "active")
        return web.json_response(self.status())

    def _refused(self, bundle: Bundle, error: OSError | ValueError) -> web.Response:
        sentence, key, file = str(error), None, None
        if isinstance(error, ConfigError):
            key, file = error.key or None, Path(error.file).name
        log.error("the configuration of revision %d is refused: %s", bundle.revision, sentence)
        self._service.reloads.refuse(sentence)
        self._rejected = {"revision": bundle.revision, "error": sentence}
        return web.json_response({"error": sentence, "key": key, "file": file}, status=422)

    def _follow_wish(self, bundle: Bundle) -> None:
        """What the bundle says wins, whoever paused or resumed this pod meanwhile."""
        operations, pooler = self._service.operations, self._service.pooler
        if bundle.paused and not pooler.paused:
            operations.pause()
            log.info("paused, by revision %d", bundle.revision)
        elif not bundle.paused and pooler.paused:
            waited = pooler.waiting_count
            operations.resume()
            log.info("resumed, by revision %d: %d clients had waited", bundle.revision, waited)

    async def _terminate_holders(self, request: web.Request) -> web.Response:
        """Close the holders of the pause of one revision; a pause that is over or another's is left alone."""
        try:
            revision = _revision_of(await request.json())
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": str(error)}, status=400)
        async with self._lock:
            current = self._service.bundle
            if current is None or current.revision != revision:
                running = current.revision if current is not None else 0
                return _conflict(f"revision {revision} does not run here; revision {running} does", running)
            if not current.paused or not self._service.pooler.paused:
                return _conflict(f"revision {revision} is not paused", revision)
            closed = self._service.operations.terminate_holders()
            return web.json_response({**self.status(), "terminatedHolders": closed})

    # --- a switchover: at once, whatever else is under way ---

    async def _put_hold(self, request: web.Request) -> web.Response:
        try:
            order = orders.hold_of(await request.json())
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": str(error)}, status=400)
        switchover.hold(self._service.pooler, order.id, order.ceiling, order.release_when, order.leaving)
        return web.json_response(self.status())

    async def _put_route(self, request: web.Request) -> web.Response:
        try:
            order = orders.route_of(await request.json())
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": str(error)}, status=400)
        switchover.route(self._service.pooler, order.id, order.host, order.address, order.seconds)
        return web.json_response(self.status())

    async def _delete_hold(self, request: web.Request) -> web.Response:
        try:
            body = await request.json() if request.can_read_body else dict(request.query)
            id_ = orders.id_of(body)
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": str(error)}, status=400)
        switchover.release(self._service.pooler, id_)
        return web.json_response(self.status())

    # --- status ------------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        service = self._service
        pooler, bundle = service.pooler, service.bundle
        is_stopped = pooler.paused or pooler.holds.current is not None
        held = service.operations.held_servers() if is_stopped else 0
        return {
            "pod": socket.gethostname(),
            "version": service.version,
            "catalogueVersion": CATALOGUE_VERSION,
            "revision": bundle.revision if bundle is not None else 0,
            "digest": bundle.digest if bundle is not None else "",
            "rejected": self._rejected,
            "state": service.state,
            "paused": bundle is not None and bundle.paused,
            "heldServers": held,
            "holders": self._holders() if held else [],
            "clients": len(pooler.clients),
            "waitingClients": pooler.waiting_count,
            "servers": sum(pool.server_count for pool in pooler.pools.values()),
            "target": self._target(),
            "lookup": {"ok": pooler.lookups.last_ok, "lastError": pooler.lookups.last_error},
            **orders.report(pooler.holds, pooler.clock()),
            "descriptors": {"limit": service.descriptors.limit, "needed": service.descriptors.needed},
            "restartNeeded": list(changed_settings(self._at_start, pooler.settings).restart),
        }

    def _holders(self) -> list[dict[str, Any]]:
        now = self._service.pooler.clock()
        found = self._service.operations.holders()
        found.sort(key=lambda client: -_in_transaction(client, now))
        return [
            {
                "clientId": client.id,
                "serverPid": client.server.pid if client.server is not None else 0,
                "database": client.database,
                "user": client.user,
                "applicationName": client.application_name,
                "address": str(client.origin),
                "inTransactionSeconds": round(_in_transaction(client, now), 3),
            }
            for client in found[:MAX_HOLDERS]
        ]

    def _target(self) -> dict[str, Any]:
        """Whether PostgreSQL answers, by the pools' last attempts; a login that it refused is an answer, too."""
        pools = list(self._service.pooler.pools.values())
        failed = [pool for pool in pools if pool.failed_at is not None]
        served = any(pool.server_count > len(pool.logging_in) for pool in pools)
        if failed:
            last = max(failed, key=lambda pool: pool.failed_at or 0.0)
            answered = not last.failure_sqlstate.startswith(("08", "57P"))
            return {"reachable": served or answered, "lastError": f"{last.failure} ({last.failure_sqlstate})"}
        proven = served or any(pool.proven for pool in pools)
        return {"reachable": True if proven else None, "lastError": None}


def _same_files(bundle: Bundle, other: Bundle) -> bool:
    """Whether two bundles differ in revision and pause alone."""
    return {**bundle.files, MANIFEST: b""} == {**other.files, MANIFEST: b""}


def _in_transaction(client: ClientSession, now: float) -> float:
    server = client.server
    return now - server.transaction_started if server is not None and server.transaction_started else 0.0


def bundle_of(body: object) -> Bundle:
    """The bundle in a request. ValueError (BundleError among them) says what is wrong with it; no content is quoted."""
    if not isinstance(body, dict) or not isinstance(body.get("files"), dict):
        raise ValueError("write a JSON object with revision, paused, catalogueVersion and files")
    manifest = bundle_manifest(
        revision=body.get("revision"),  # type: ignore[arg-type]  # `read_bundle` looks at all three
        paused=body.get("paused"),  # type: ignore[arg-type]
        catalogue_version=body.get("catalogueVersion"),  # type: ignore[arg-type]
    )
    return read_bundle({**_decoded(body["files"]), MANIFEST: manifest})


def _decoded(files: Mapping[str, object]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for name, text in files.items():
        if name == MANIFEST:
            raise BundleError(MANIFEST, "leave this file out; revision, paused and catalogueVersion stand beside files")
        try:
            contents[name] = base64.b64decode(text, validate=True)  # type: ignore[arg-type]
        except (binascii.Error, TypeError, ValueError):
            raise BundleError(name[:80], "write its content as base64") from None
    return contents


def _revision_of(body: object) -> int:
    revision = body.get("revision") if isinstance(body, dict) else None
    if not isinstance(revision, int) or isinstance(revision, bool):
        raise ValueError("write a JSON object with revision, an integer")
    return revision


def _conflict(sentence: str, revision: int) -> web.Response:
    return web.json_response({"error": sentence, "revision": revision}, status=409)


@web.middleware
async def _operator_only(request: web.Request, handler: Any) -> web.StreamResponse:
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    if names != [OPERATOR]:
        log.warning("control endpoint: %s is not the operator", names or "somebody without a certificate")
        return web.json_response({"error": f"only {OPERATOR} may ask here"}, status=403)
    answer: web.StreamResponse = await handler(request)
    return answer
