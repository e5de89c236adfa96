"""The metrics over TLS: the certificate that clients are shown, renewed while the process runs."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from tests.pooler.process import PoolerProcess
from tests.postgres.certificates import Certificates, Pair

MakePooler = Callable[..., PoolerProcess]


def files(pair: Pair) -> dict[str, object]:
    return {"client_tls_cert_file": pair.certificate, "client_tls_key_file": pair.key}


def scrape(pooler: PoolerProcess, certificates: Certificates, name: str = "localhost") -> str:
    context = ssl.create_default_context(cafile=certificates.ca)
    url = f"https://{name}:{pooler.metrics_port}/metrics"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


def shown(pooler: PoolerProcess) -> bytes | None:
    """The certificate of a handshake, whoever it is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", pooler.metrics_port), timeout=10) as sock,
        context.wrap_socket(sock) as tls,
    ):
        assert tls.version() == "TLSv1.3"
        return tls.getpeercert(binary_form=True)


def test_metrics_are_served_under_the_certificate_that_clients_are_shown_and_in_no_other_way(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(options=["--metrics-tls"], **files(certificates.server))
    assert "cnp_pgbouncer_up" in scrape(pooler, certificates)
    with pytest.raises((urllib.error.URLError, OSError)):
        pooler.get(pooler.metrics_port, "/metrics")


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_bad_one_changes_nothing(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(options=["--metrics-tls"], **files(certificates.server))
    before, pid = shown(pooler), pooler.pid
    pooler.settings |= files(certificates.wrong_name)
    pooler.write_files()
    pooler.console("RELOAD")
    after = shown(pooler)
    assert after not in (None, before)
    pooler.settings |= {"client_tls_key_file": certificates.server.key}
    pooler.write_files()
    with pytest.raises(Exception, match="client_tls"):
        pooler.console("RELOAD")
    assert (shown(pooler), pooler.pid) == (after, pid)


def test_without_a_certificate_the_process_says_what_is_missing(make_pooler: MakePooler) -> None:
    with pytest.raises(Exception, match="client_tls_cert_file"):
        make_pooler(options=["--metrics-tls"])


def test_the_variable_does_what_the_option_does(
    make_pooler: MakePooler, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGWEIR_METRICS_TLS", "1")
    monkeypatch.setenv("PGWEIR_METRICS_PREFIX", "cnpg_pgbouncer")
    pooler = make_pooler(**files(certificates.server))
    assert "cnpg_pgbouncer_up" in scrape(pooler, certificates)
