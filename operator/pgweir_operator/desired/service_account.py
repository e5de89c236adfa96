"""The pods' ServiceAccount: it exists to be theirs alone, and has no token, since pods never talk to the API server."""

from __future__ import annotations

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata


def service_account(pooler: Pooler) -> Manifest | None:
    """None where the user names an account of their own."""
    if pooler.spec.service_account_name is not None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(pooler, names.service_account_name(pooler.name)),
        "automountServiceAccountToken": False,
    }
