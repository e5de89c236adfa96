"""The door to TLS for clients: what is asked there, in which order, and what a RELOAD may change about it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.pooler.process import SECRETS, PoolerProcess
from tests.pooler.wire import WireClient, gssenc_request, ssl_request, startup
from tests.postgres.certificates import Certificates

MakePooler = Callable[..., PoolerProcess]


def client_tls(certificates: Certificates, mode: str = "prefer", **more: Any) -> dict[str, Any]:
    pair = certificates.server
    return {
        "client_tls_sslmode": mode,
        "client_tls_cert_file": pair.certificate,
        "client_tls_key_file": pair.key,
        **more,
    }


def all_that_comes(client: WireClient) -> bytes:
    heard = b""
    try:
        while data := client.socket.recv(1000):
            heard += data
    except (ConnectionResetError, ssl.SSLError):
        pass
    return heard


def test_hostssl_and_hostnossl_lines_see_which_way_a_client_came(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(
        hba=[
            "hostssl app alice 127.0.0.1/32 md5",
            "hostnossl app bob 127.0.0.1/32 md5",
            "host pgbouncer all 127.0.0.1/32 md5",
        ],
        **client_tls(certificates),
    )
    for user, good, bad in (("alice", "require", "disable"), ("bob", "disable", "require")):
        with pooler.connect(user, sslmode=good) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            pooler.connect(user, sslmode=bad)


def test_bytes_behind_a_gss_request_are_refused_and_a_second_tls_inside_tls_too(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(**client_tls(certificates))
    with WireClient(pooler.port) as client:
        client.say(gssenc_request(), startup(user="alice", database="app"))
        assert b"unencrypted data" in all_that_comes(client)
    with WireClient(pooler.port) as client:
        client.say(gssenc_request())
        assert client.read(1) == b"N"
        client.start_tls()
        client.say(ssl_request())
        assert b"R" not in all_that_comes(client)[:1]
    with WireClient(pooler.port) as client:
        client.say(gssenc_request())
        assert client.read(1) == b"N"
        client.start_tls()
        client.log_in("alice", "app", SECRETS["alice"])
        assert client.ask("SELECT 1") == [[b"1"]]


def test_the_unix_socket_has_no_tls_and_is_exempt_where_it_is_required(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(**client_tls(certificates, "require"))
    with psycopg.connect(pooler.conninfo(host=str(pooler.directory), sslmode="disable")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(10)
        plain.connect(f"{pooler.directory}/.s.PGSQL.{pooler.port}")
        plain.sendall(ssl_request())
        assert plain.recv(10) == b"N"


@pytest.mark.parametrize("protocols", [None, ["http/1.1"]])
def test_direct_tls_without_the_right_protocol_name_is_refused(
    make_pooler: MakePooler, certificates: Certificates, protocols: list[str] | None
) -> None:
    pooler = make_pooler(**client_tls(certificates))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    with socket.create_connection(("127.0.0.1", pooler.port), timeout=10) as raw:
        heard = b""
        try:
            with context.wrap_socket(raw) as wrapped:
                wrapped.sendall(startup(user="alice", database="app"))
                heard = wrapped.recv(100)
        except (ssl.SSLError, ConnectionResetError):
            pass
    assert heard == b""
    pooler.connect(sslmode="require", sslnegotiation="direct").close()


def test_a_direct_hello_may_come_in_any_number_of_packets(make_pooler: MakePooler, certificates: Certificates) -> None:
    pooler = make_pooler(**client_tls(certificates))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    for cut in (1, 5, 100) * 5:
        with WireClient(pooler.port) as client:
            heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
            inside = context.wrap_bio(heard, said)
            with pytest.raises(ssl.SSLWantReadError):
                inside.do_handshake()
            hello = said.read()
            client.say(hello[:cut])
            client.say(hello[cut:])
            agreed = False
            while not agreed:
                data = client.socket.recv(10_000)
                assert data, "the pooler hung up"
                heard.write(data)
                with contextlib.suppress(ssl.SSLWantReadError):
                    inside.do_handshake()
                    agreed = True
            assert inside.selected_alpn_protocol() == "postgresql"


def test_a_wrong_certificate_at_reload_is_refused_and_the_old_one_goes_on(
    make_pooler: MakePooler, certificates: Certificates, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.crt"
    broken.write_text("this is no certificate")
    pooler = make_pooler(**client_tls(certificates, "require"))
    pooler.wait_for_log("process up")
    verified: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": certificates.ca, "host": "localhost"}
    for settings in (
        {"client_tls_cert_file": broken},
        {"client_tls_cert_file": tmp_path / "missing"},
        {"client_tls_cert_file": certificates.server.certificate, "client_tls_key_file": certificates.stranger.key},
        {"client_tls_key_file": certificates.server.key, "client_tls_ciphers": "no-such-cipher"},
    ):
        pooler.settings.update(settings)
        pooler.write_files()
        pooler.hang_up()
        pooler.wait_for_log("RELOAD failed: ")
        pooler.connect(**verified).close()
        pooler.log_file.write_text("")
    pooler.settings.update(client_tls_ciphers="default", **client_tls(certificates, "require"))
    pooler.write_files()
    pooler.hang_up()
    pooler.connect(**verified).close()


def test_old_versions_and_other_ciphers_are_refused_in_the_handshake(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
    pooler = make_pooler(**client_tls(certificates, client_tls_protocols="tlsv1.2", client_tls_ciphers=cipher))
    with pooler.connect(sslmode="require") as connection:
        assert connection.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError):
        pooler.connect(sslmode="require", ssl_min_protocol_version="TLSv1.3")

    def handshake(offered: str) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(offered)
        with socket.create_connection(("127.0.0.1", pooler.port), timeout=10) as raw:
            raw.sendall(ssl_request())
            assert raw.recv(1) == b"S"
            with context.wrap_socket(raw) as wrapped:
                found = wrapped.cipher()
                return found[0] if found else ""

    assert handshake("HIGH") == cipher
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake("ECDHE-ECDSA-AES128-GCM-SHA256")


def test_a_client_that_insists_on_channel_binding_is_told_by_its_own_library(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    """SCRAM-SHA-256-PLUS is never offered; libpq then refuses, instead of going on with less."""
    pooler = make_pooler(**client_tls(certificates, "require"))
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        pooler.connect(sslmode="require", channel_binding="require")
    pooler.connect(sslmode="require", channel_binding="prefer").close()
