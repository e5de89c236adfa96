"""Digests that say why pods roll: what needs a restart, the pod template, and what the user asked for in it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pgweir.settings import SETTINGS, ReloadClass
from pgweir_operator.api.pooler import Pooler


def restart_digest(settings: Mapping[str, str]) -> str:
    """Over the settings that are fixed when a process starts; a change of it rolls the Deployment.

    What else makes pods roll (image, template, volumes) stands in the pod template and needs no digest.
    """
    fixed = {
        name: value
        for name, value in settings.items()
        if name in SETTINGS and SETTINGS[name].reload is ReloadClass.RESTART
    }
    return of(fixed)


def asked(pooler: Pooler, restart_digest: str) -> str:
    """Over all of the spec that the pod template is made from: another template under the same digest is the operator's
    own doing. A field that is missing here only makes its change wait for its turn."""
    spec = pooler.spec.model_dump(
        mode="json",
        include={
            "template": True,
            "drain": True,
            "service_account_name": True,
            "pgbouncer": {"image"},
            "monitoring": {"metrics_prefix", "tls"},
        },
    )
    return of({**spec, "restart": restart_digest})


def of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
