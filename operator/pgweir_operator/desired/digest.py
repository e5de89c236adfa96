"""The restart digest: equal for two configurations that a running process can go between by a reload. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pgweir.settings import SETTINGS, ReloadClass


def restart_digest(settings: Mapping[str, str]) -> str:
    """Over the settings that are fixed when a process starts; a change of it rolls the Deployment.

    What else makes pods roll (image, template, volumes) stands in the pod template and needs no digest.
    """
    fixed = {
        name: value
        for name, value in settings.items()
        if name in SETTINGS and SETTINGS[name].reload is ReloadClass.RESTART
    }
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:32]
