"""One question to an LDAP directory: does it know this user by this password? Blocking; `workers` runs it in a thread.

`pgweir.ldap` says what to bind as and what to search for. TLS is always verified; LDAPTLS_CACERT and LDAPTLS_REQCERT in the
environment mean what they mean to OpenLDAP's own clients. Referrals are not followed: a password goes to the named servers
and nowhere else.
"""

from __future__ import annotations

import math
import os
import ssl
from typing import Any, Final

import ldap3
from ldap3.core.exceptions import LDAPCommunicationError, LDAPException, LDAPSocketOpenError

from pgweir.ldap import LdapAccepted, LdapFailed, LdapOptions, LdapOutcome, LdapRefused

_SCOPES: Final = {"base": ldap3.BASE, "one": ldap3.LEVEL, "sub": ldap3.SUBTREE}
# SPEC: RFC 4511, section 4.1.9. What a bind says about the user, and not about the directory.
_INVALID_CREDENTIALS: Final = (32, 34, 48, 49, 53)
_SIZE_LIMIT_EXCEEDED: Final = 4
_SUCCESS: Final = 0


def ask(options: LdapOptions, user: str, password: str, timeout: float) -> LdapOutcome:
    """Never raises. `timeout` is for each step (connect, TLS, bind, search), not for all of them."""
    if not password:  # SPEC: RFC 4513, section 5.1.2: a bind without a password succeeds and proves nothing
        return LdapRefused("empty password")
    problem = "no server"
    for host in options.servers:
        try:
            return _ask_one(options, host, user, password, timeout)
        except (LDAPSocketOpenError, LDAPCommunicationError, OSError, ssl.SSLError) as error:
            problem = f"{host}:{options.port}: {error}"  # the next one may be there
        except Exception as error:  # the library is large, and a login must get an answer
            return LdapFailed(f"{host}:{options.port}: {type(error).__name__}: {error}")
    return LdapFailed(problem)


def _ask_one(options: LdapOptions, host: str, user: str, password: str, timeout: float) -> LdapOutcome:
    tls = _tls() if options.scheme == "ldaps" or options.start_tls else None
    server = ldap3.Server(
        host,
        options.port,
        use_ssl=options.scheme == "ldaps",
        tls=tls,
        connect_timeout=timeout,
        get_info=ldap3.NONE,
    )
    if options.base_dn is None:
        name = options.bind_name(user)
    else:
        found = _search(server, options, user, timeout)
        if not isinstance(found, str):
            return found
        name = found
    return _bind(server, options, name, password, timeout)


def _search(server: Any, options: LdapOptions, user: str, timeout: float) -> str | LdapOutcome:
    """The distinguished name of the one entry that is this user."""
    connection = _connection(server, options, options.bind_dn, options.bind_password, timeout)
    try:
        if not connection.bind():
            who = options.bind_dn or "anonymous"
            return LdapFailed(f"{server.host}:{server.port}: bind as {who}: {_result(connection)}")
        connection.search(
            options.base_dn,
            options.filter_for(user),
            search_scope=_SCOPES[options.scope],
            attributes=ldap3.NO_ATTRIBUTES,
            size_limit=2,
        )
        code = connection.result["result"]
        entries = [entry["dn"] for entry in connection.response or () if entry["type"] == "searchResEntry"]
        if code not in (_SUCCESS, _SIZE_LIMIT_EXCEEDED):
            return LdapFailed(f"{server.host}:{server.port}: search: {_result(connection)}")
    finally:
        _close(connection)
    if not entries:
        return LdapRefused("no such user in the directory")
    if len(entries) > 1:
        return LdapRefused("the search finds more than one entry for this user")
    name = str(entries[0])
    # An empty name would be an anonymous bind, whatever the password.
    return name if name else LdapRefused("the entry found has no name")


def _bind(server: Any, options: LdapOptions, name: str, password: str, timeout: float) -> LdapOutcome:
    connection = _connection(server, options, name, password, timeout)
    try:
        if connection.bind():
            return LdapAccepted()
        text = f"bind as {name}: {_result(connection)}"
        if connection.result["result"] in _INVALID_CREDENTIALS:
            return LdapRefused(text)
        return LdapFailed(f"{server.host}:{server.port}: {text}")
    finally:
        _close(connection)


def _connection(server: Any, options: LdapOptions, name: str, password: str, timeout: float) -> Any:
    connection = ldap3.Connection(
        server,
        user=name or None,
        password=password or None,
        authentication=ldap3.SIMPLE if name else ldap3.ANONYMOUS,
        receive_timeout=math.ceil(timeout),  # it becomes a struct timeval: whole seconds
        auto_referrals=False,
        check_names=False,
        read_only=True,
        raise_exceptions=False,
    )
    try:
        connection.open(read_server_info=False)
        if options.start_tls and not connection.start_tls(read_server_info=False):
            raise LDAPSocketOpenError(f"StartTLS: {_result(connection)}")
    except BaseException:
        _close(connection)
        raise
    return connection


def _close(connection: Any) -> None:
    sock = connection.socket
    try:
        connection.unbind()
    except (LDAPException, OSError):
        pass  # it is gone already
    finally:
        if sock is not None:
            sock.close()  # the library sometimes leaves that to the collector


def _result(connection: Any) -> str:
    result = connection.result or {}
    return f"{result.get('description', 'no answer')} {result.get('message', '')}".strip()


def _tls() -> Any:
    asks = os.environ.get("LDAPTLS_REQCERT", "demand").lower() not in ("never", "allow")
    return ldap3.Tls(
        validate=ssl.CERT_REQUIRED if asks else ssl.CERT_NONE, ca_certs_file=os.environ.get("LDAPTLS_CACERT") or None
    )
