"""Which certificates of a Pooler nobody has renewed in time: connections will fail the moment they expire. Pure.

The operator renews its own a month before; CloudNativePG renews a cluster's a week before; cert-manager, whose may live for
a day, when a third of their life is left. What is still there five days before its end, and in the last quarter of its life,
is one that a person, or something that stands still, has to renew. Called by reconcile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import configuration
from pgweir_operator.integration.certificates import DAY, terms

SOON: Final = 5 * DAY
LAST_OF_LIFE: Final = 1 / 4

_ROLES: Final = {
    configuration.CLIENT_CERTIFICATE_FILE: "The certificate that applications are shown",
    configuration.CLIENT_CA_FILE: "The CA that applications' certificates are checked with",
    configuration.SERVER_CERTIFICATE_FILE: "The certificate that the look-up role logs in with",
    configuration.SERVER_CA_FILE: "The CA that PostgreSQL is checked with",
}
_AUTHORITIES: Final = frozenset({configuration.CLIENT_CA_FILE, configuration.SERVER_CA_FILE})


def expiring(pooler: Pooler, files: Mapping[str, bytes], *, now: float) -> tuple[str, ...]:
    """A sentence for each file of the bundle that is about to be of no use, or is."""
    found = []
    for name, role in _ROLES.items():
        if name not in files:
            continue
        try:
            valid = terms(files[name])
        except ValueError:
            continue  # A pod refuses it, and says so.
        # A bundle of CAs is as good as its last; of a chain the first is the certificate itself.
        begin, end = max(valid, key=lambda term: term.ends) if name in _AUTHORITIES else valid[0]
        if end - now < min(SOON, LAST_OF_LIFE * (end - begin)):
            when = f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC"
            found.append(f"{role} ({_origin(pooler, name)}) expire{'d' if end < now else 's'} on {when}: renew it.")
    return tuple(found)


def _origin(pooler: Pooler, name: str) -> str:
    """Where a person finds it."""
    bouncer = pooler.spec.pgbouncer
    fields = {
        configuration.CLIENT_CERTIFICATE_FILE: {"clientTLSSecret": bouncer.client_tls_secret},
        configuration.CLIENT_CA_FILE: {"clientCASecret": bouncer.client_ca_secret},
        configuration.SERVER_CERTIFICATE_FILE: {
            "authQuerySecret": bouncer.auth_query_secret,
            "serverTLSSecret": bouncer.server_tls_secret,
        },
        configuration.SERVER_CA_FILE: {"serverCASecret": bouncer.server_ca_secret},
    }[name]
    given = [
        f"spec.pgbouncer.{field}: {reference.name}" for field, reference in fields.items() if reference is not None
    ]
    return given[0] if given else "the cluster's"
