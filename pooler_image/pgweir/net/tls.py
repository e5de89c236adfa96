"""TLS contexts from the settings of one side, and what a handshake agreed on.

Contexts are built whole before they are used, so that a bad certificate on RELOAD leaves the old ones in place.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pgweir.config import Config, ConfigError
from pgweir.session.wire import TlsInfo

ALPN: Final = "postgresql"  # SPEC: PostgreSQL's direct TLS negotiates this name

# PgBouncer's words for cipher lists, up to TLS 1.2. (TLS 1.3's suites are OpenSSL's own.)
_CIPHER_WORDS: Final = {
    "default": None,
    "secure": "HIGH:+3DES:!aNULL",
    "compat": "HIGH:+3DES:!aNULL",
    "fast": "HIGH:+3DES:!aNULL",
    "normal": "HIGH:+3DES:!aNULL",
    "legacy": "HIGH:MEDIUM:+3DES:!aNULL",
    "insecure": "ALL:!aNULL:!eNULL",
    "all": "ALL:!aNULL:!eNULL",
}
_VERSIONS: Final = {
    "tlsv1.0": ssl.TLSVersion.TLSv1,
    "tlsv1.1": ssl.TLSVersion.TLSv1_1,
    "tlsv1.2": ssl.TLSVersion.TLSv1_2,
    "tlsv1.3": ssl.TLSVersion.TLSv1_3,
}
_PROTOCOL_WORDS: Final = {
    "secure": ("tlsv1.2", "tlsv1.3"),
    "default": ("tlsv1.2", "tlsv1.3"),
    "legacy": ("tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3"),
    "all": ("tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3"),
}


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """None: that side does without TLS."""

    client: ssl.SSLContext | None
    server: ssl.SSLContext | None
    peer: ssl.SSLContext | None = None


def build_contexts(config: Config) -> TlsContexts:
    """Raises ConfigError with the setting to mend."""
    client = _client_context(config)
    return TlsContexts(
        client=client, server=_server_context(config), peer=None if client is None else _peer_context(config)
    )


def tls_info(transport: Any) -> TlsInfo:
    """What the handshake on this transport agreed on. Raises ConnectionError where the peer has left already."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        raise ConnectionError("the connection was lost right behind the handshake")
    cipher = ssl_object.cipher()
    certificate = ssl_object.getpeercert() or {}
    names = (pair for relative_name in certificate.get("subject", ()) for pair in relative_name)
    common_name = next((value for key, value in names if key == "commonName"), None)  # the first, as in PostgreSQL
    return TlsInfo(ssl_object.version() or "?", cipher[0] if cipher else "?", common_name, bool(certificate))


def speaks_postgresql(transport: Any) -> bool:
    """Whether the handshake agreed on PostgreSQL's name. (Python's ssl never refuses another one by itself.)"""
    return bool(transport.get_extra_info("ssl_object").selected_alpn_protocol() == ALPN)


def _client_context(config: Config) -> ssl.SSLContext | None:
    settings = config.settings
    mode = settings.client_tls_sslmode
    if mode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, config, "client")
    _choose_curve(context, config)
    _load_pair(context, config, "client")
    context.set_alpn_protocols([ALPN])
    context.num_tickets = 0  # nobody resumes a session: libpq does not, and PostgreSQL offers none either
    if settings.client_tls_ca_file:
        _load_authorities(context, config, "client")
        # WHY optional in every mode: peers hand on cancel requests and have no certificate to show. Where a client needs
        # one, its login says so; a certificate that is shown must be good in any case.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _server_context(config: Config) -> ssl.SSLContext | None:
    settings = config.settings
    mode = settings.server_tls_sslmode
    if mode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if mode in ("verify-ca", "verify-full") else ssl.CERT_NONE
    _restrict(context, config, "server")
    context.set_alpn_protocols([ALPN])
    if settings.server_tls_ca_file:
        _load_authorities(context, config, "server")
    elif context.verify_mode is ssl.CERT_REQUIRED:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.server_tls_cert_file:
        _load_pair(context, config, "server")
    return context


def _peer_context(config: Config) -> ssl.SSLContext:
    """Towards peers, where our own clients use TLS: a cancel key that came encrypted must not be read on its next hop.

    WHY nothing is verified: a peer is reached by an address out of our own configuration or the cluster's DNS, and no
    certificate need bear that. Who stands there instead learns how to cancel the queries of one client, and no more.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _restrict(context, config, "client")
    return context


def _restrict(context: ssl.SSLContext, config: Config, side: Literal["client", "server"]) -> None:
    """Protocol versions and ciphers. Python takes a range of versions: a list with a gap gets the range around it."""
    context.options |= ssl.OP_NO_RENEGOTIATION  # as PostgreSQL: one handshake, and then it is over
    key = f"{side}_tls_protocols"
    words = [word for word in getattr(config.settings, key).lower().replace(":", ",").split(",") if word.strip()]
    names: list[str] = []
    for word in words:
        names.extend(_PROTOCOL_WORDS.get(word.strip(), (word.strip(),)))
    versions = [_VERSIONS[name] for name in names if name in _VERSIONS]
    if not versions or len(versions) != len(names):
        raise _error(config, key, "a list of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3, or one of secure, legacy, all")
    context.minimum_version, context.maximum_version = min(versions), max(versions)
    key = f"{side}_tls_ciphers"
    ciphers = getattr(config.settings, key)
    ciphers = _CIPHER_WORDS.get(ciphers.lower(), ciphers)
    if ciphers:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError:
            raise _error(config, key, "an OpenSSL cipher list, or one of default, secure, fast, normal, all") from None


def _choose_curve(context: ssl.SSLContext, config: Config) -> None:
    curve = config.settings.client_tls_ecdhcurve
    if curve.lower() == "auto":
        return
    try:
        context.set_ecdh_curve(curve)
    except (ValueError, ssl.SSLError):  # "none" too: TLS 1.3 cannot do without
        raise _error(
            config, "client_tls_ecdhcurve", "auto, or a curve that OpenSSL knows, such as prime256v1"
        ) from None


def _load_pair(context: ssl.SSLContext, config: Config, side: Literal["client", "server"]) -> None:
    key = f"{side}_tls_cert_file"
    try:
        context.load_cert_chain(_path(config, key), _path(config, f"{side}_tls_key_file"))
    except (OSError, ssl.SSLError) as error:
        raise _error(config, key, f"a certificate (PEM) that belongs to {side}_tls_key_file ({error})") from None


def _load_authorities(context: ssl.SSLContext, config: Config, side: Literal["client", "server"]) -> None:
    key = f"{side}_tls_ca_file"
    try:
        context.load_verify_locations(_path(config, key))
    except (OSError, ssl.SSLError) as error:
        raise _error(config, key, f"a file of certificates (PEM) ({error})") from None


def _path(config: Config, key: str) -> Path:
    return config.file(getattr(config.settings, key))


def _error(config: Config, key: str, expected: str) -> ConfigError:
    return ConfigError(
        config.settings.conffile or "pgbouncer.ini", 0, key, str(getattr(config.settings, key)), expected
    )


_NO_AGREEMENT: Final = ("PROTOCOL", "VERSION", "CIPHER", "CURVE", "GROUP", "ALPN")


def failure_stage(error: BaseException) -> Literal["certificate", "agreement", "hung_up", "other"]:
    """Where a handshake ended; a closed list, for a metric's label."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "hung_up"
    reason = getattr(error, "reason", None) or ""  # (one that no OpenSSL raised has none)
    if isinstance(error, ssl.SSLCertVerificationError) or "CERT" in reason or "UNKNOWN_CA" in reason:
        return "certificate"
    return "agreement" if any(word in reason for word in _NO_AGREEMENT) else "other"
