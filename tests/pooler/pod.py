"""A pod of the pooler as a process, and the operator's orders to it: pushes, holds, routes, over the real control endpoint."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from tests.pooler.process import ADMIN, SECRETS
from tests.pooler.wire import WireClient

from pgweir.bundle import bundle_manifest
from pgweir_operator.api.names import CONTROL_DNS_NAME
from pgweir_operator.api.observed import PodReport
from pgweir_operator.cli.local_pod import ADDRESS, LocalPod
from pgweir_operator.fleet import Push
from pgweir_operator.integration.control import renewed

SETTINGS = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "scram-sha-256",
    "auth_file": "userlist.txt",
    "admin_users": ADMIN,
    "pool_mode": "transaction",
    "default_pool_size": "4",
    "server_login_retry": "1",
}


class Pod:
    """A pod, and the operator's verbs on it. `databases` are the lines of that section."""

    def __init__(self, folder: Path, databases: str, **settings: str) -> None:
        self.process = LocalPod("pod", folder, renewed(None, pooler="shop", now=time.time()))
        self._settings = {**SETTINGS, "listen_port": str(self.process.port), **settings}
        self._databases = databases
        self._context: ssl.SSLContext | None = None
        self.process.start(self.files(1, paused=False))

    def stop(self) -> None:
        self.process.stop()

    def files(self, revision: int, *, paused: bool, **settings: str) -> dict[str, bytes]:
        lines = "".join(f"{name} = {value}\n" for name, value in {**self._settings, **settings}.items())
        return {
            "pgbouncer.ini": f"[databases]\n{self._databases}\n[pgbouncer]\n{lines}".encode(),
            "userlist.txt": "".join(f'"{name}" "{secret}"\n' for name, secret in SECRETS.items()).encode(),
            "bundle.json": bundle_manifest(revision=revision, paused=paused, catalogue_version=1),
        }

    # --- through the operator's own client ---

    def push(self, revision: int, *, paused: bool, **settings: str) -> PodReport:
        files = self.files(revision, paused=paused, **settings)

        async def tell() -> PodReport:
            async with self.process.fleet() as fleet:
                answer = await fleet.push([self.process.member], Push(files))
                return _report(answer["pod"])

        return asyncio.run(tell())

    def terminate_holders(self, revision: int) -> PodReport:
        async def tell() -> PodReport:
            async with self.process.fleet() as fleet:
                return _report((await fleet.terminate_holders([self.process.member], revision))["pod"])

        return asyncio.run(tell())

    def report(self) -> PodReport:
        async def ask() -> PodReport:
            async with self.process.fleet() as fleet:
                return _report((await fleet.poll([self.process.member]))["pod"])

        return asyncio.run(ask())

    # --- as the contract has it, byte for byte ---

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The status document that a request is answered with."""
        plain = socket.create_connection((ADDRESS, self.process.control_port), timeout=60)
        connection = http.client.HTTPSConnection(ADDRESS, timeout=60)
        connection.sock = self._tls().wrap_socket(plain, server_hostname=CONTROL_DNS_NAME)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            document: dict[str, Any] = json.loads(answer.read())
            assert answer.status == 200, document
            return document
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        return self.ask("GET", "/v1/status")

    def hold(self, id_: str, ceiling: float = 60.0, release_when: str = "told") -> dict[str, Any]:
        return self.ask("PUT", "/v1/hold", {"id": id_, "ceilingSeconds": ceiling, "releaseWhen": release_when})

    def route(self, id_: str, address: str, host: str = "localhost", seconds: float = 60.0) -> dict[str, Any]:
        return self.ask("PUT", "/v1/route", {"id": id_, "host": host, "address": address, "seconds": seconds})

    def release(self, id_: str) -> dict[str, Any]:
        return self.ask("DELETE", "/v1/hold", {"id": id_})

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            control = self.process.control
            self._context = ssl.create_default_context(cadata=control.trusted.decode("ascii"))
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(control.operator.certificate + b"\n" + control.operator.key)
                pair.flush()
                self._context.load_cert_chain(pair.name)
        return self._context

    # --- its clients ---

    def client(self, database: str = "app", **parameters: str) -> WireClient:
        return WireClient(self.process.port).log_in("alice", database, SECRETS["alice"], **parameters)

    def connect(self, user: str = "alice", dbname: str = "app") -> psycopg.Connection[Any]:
        conninfo = make_conninfo(
            host=ADDRESS, port=self.process.port, user=user, dbname=dbname, password=SECRETS[user], connect_timeout=60
        )
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)

    def console(self, sql: str) -> list[dict[str, Any]]:
        with self.connect(ADMIN, "pgbouncer") as connection:
            cursor = connection.execute(sql.encode())
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _report(answer: object) -> PodReport:
    assert isinstance(answer, PodReport), answer
    return answer
