"""The [pgbouncer] section of a Pooler: what the operator insists on, what it presumes, and what the user says between.

Pure. Policy is data here: `ENFORCED` wins over everything, `DEFAULTS` yields to the user's parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from pgweir_operator.api import names
from pgweir_operator.api.observed import Provisioned
from pgweir_operator.api.parameters import PARAMETERS
from pgweir_operator.api.pooler import Pooler, ServiceType
from pgweir_operator.desired.deployment import RUN_DIR

HBA_FILE: Final = "pg_hba.conf"
USERLIST_FILE: Final = "userlist.txt"
SERVER_CA_FILE: Final = "server-ca.crt"
SERVER_CERTIFICATE_FILE: Final = "server.crt"
SERVER_KEY_FILE: Final = "server.key"
CLIENT_CERTIFICATE_FILE: Final = "client.crt"
CLIENT_KEY_FILE: Final = "client.key"
CLIENT_CA_FILE: Final = "client-ca.crt"

# WHY no admin_users: the console is for the pod's own user over the Unix socket, whatever auth_type lets in over TCP.
ENFORCED: Final[Mapping[str, str]] = {
    "auth_hba_file": HBA_FILE,
    "listen_addr": "*",
    "listen_port": str(names.PORT_POOLER),
    "unix_socket_dir": RUN_DIR,
}

DEFAULTS: Final[Mapping[str, str]] = {
    "auth_type": "hba",
    "log_stats": "0",
    # WHY 1 and not 15: after a failover a client would wait that long for a primary that has been back for seconds.
    "server_login_retry": "1",
    # What stands in a connection string reaches PostgreSQL, `options` included; it is part of the pool's key.
    "startup_parameters": "relay",
    # In the middle of a switchover the name of the primary leads to a standby for a moment.
    "target_session_attrs": "primary",
}

# Presumed only where the primary of a cluster is pooled.
OF_PRIMARIES: Final = frozenset({"target_session_attrs"})

# The user's value is appended to this one: drivers send these two without being asked. `options` stands for text that
# cannot be read as settings; what can be read is relayed.
IGNORED_STARTUP_PARAMETERS: Final = "extra_float_digits,options"

# The entry of [databases] that stands for every name without one.
TEMPLATE: Final = "*"

# Settings that are written only where the file they name is in the bundle.
_FILE_SETTINGS: Final[Mapping[str, str]] = {
    "auth_file": USERLIST_FILE,
    "server_tls_ca_file": SERVER_CA_FILE,
    "server_tls_cert_file": SERVER_CERTIFICATE_FILE,
    "server_tls_key_file": SERVER_KEY_FILE,
    "client_tls_cert_file": CLIENT_CERTIFICATE_FILE,
    "client_tls_key_file": CLIENT_KEY_FILE,
    "client_tls_ca_file": CLIENT_CA_FILE,
}


def settings(
    pooler: Pooler,
    credentials: Provisioned | None,
    files: Collection[str],
    share: int | None = None,
    *,
    in_recovery: bool = False,
) -> dict[str, str]:
    """Every line of the [pgbouncer] section; `files` are the names of the other files of the bundle, `share` is the
    pod's part of the connection budget; `in_recovery`: even the first of the cluster is a standby."""
    given = {
        name: value.strip()
        for name, value in pooler.spec.pgbouncer.parameters.items()
        if name in PARAMETERS and name not in {"auth_user", "ignore_startup_parameters"}
    }
    return {
        **_defaults(pooler, in_recovery),
        "client_tls_sslmode": "prefer" if CLIENT_CERTIFICATE_FILE in files else "disable",
        "server_tls_sslmode": "verify-ca" if SERVER_CA_FILE in files else "prefer",
        **given,
        **_share(given, share),
        "ignore_startup_parameters": _ignored_startup_parameters(pooler),
        "pool_mode": pooler.spec.pgbouncer.pool_mode.value,
        **_lookup(pooler, credentials),
        **{setting: file for setting, file in _FILE_SETTINGS.items() if file in files},
        **ENFORCED,
    }


def _defaults(pooler: Pooler, in_recovery: bool) -> dict[str, str]:
    wants_primary = pooler.spec.type is ServiceType.RW and pooler.cluster_name is not None and not in_recovery
    return {name: value for name, value in DEFAULTS.items() if wants_primary or name not in OF_PRIMARIES}


def _share(given: Mapping[str, str], share: int | None) -> dict[str, str]:
    """The limit that holds for all servers of a pod. The user's own stays where it is the lower one."""
    if share is None:
        return {}
    own = int(given.get("max_server_connections", "0"))
    return {"max_server_connections": str(min(share, own) if own else share)}


def databases(pooler: Pooler) -> dict[str, dict[str, str]]:
    """The [databases] section: `*` for whatever has no entry of its own, and the Pooler's entries."""
    where = {"host": pooler.target_host, "port": str(pooler.target_port)}
    found = {entry.name: {**where, **entry.parameters} for entry in pooler.spec.pgbouncer.databases}
    everybody = found.pop(TEMPLATE, where)
    if {"dbname", "user"} & everybody.keys():
        # Look-ups are not sent elsewhere, nor made somebody else's, with the rest.
        found.setdefault(names.AUTH_DATABASE, where)
    return {**dict(sorted(found.items())), TEMPLATE: everybody}


def users(pooler: Pooler) -> dict[str, dict[str, str]]:
    """The [users] section: who has settings of their own."""
    return {user.name: dict(user.parameters) for user in pooler.spec.pgbouncer.users if user.parameters}


def _ignored_startup_parameters(pooler: Pooler) -> str:
    given = pooler.spec.pgbouncer.parameters.get("ignore_startup_parameters", "")
    words = [word.strip() for word in f"{IGNORED_STARTUP_PARAMETERS},{given}".split(",")]
    return ",".join(dict.fromkeys(word for word in words if word))


def _lookup(pooler: Pooler, credentials: Provisioned | None) -> dict[str, str]:
    """How users are looked up. A Pooler that nothing was provisioned for yet has no lookup: it refuses every user."""
    named = pooler.spec.pgbouncer.parameters.get("auth_user", "").strip()
    if credentials is None:
        return {"auth_user": named} if named else {}
    return {
        "auth_user": named or credentials.auth_user,
        "auth_query": credentials.auth_query,
        "auth_dbname": credentials.auth_dbname,
    }
