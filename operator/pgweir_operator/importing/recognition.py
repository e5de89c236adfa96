"""Whose configuration a text is. Pure."""

from __future__ import annotations

import re

from pgweir_operator.importing.outcome import Imported
from pgweir_operator.importing.pgbouncer import import_pgbouncer
from pgweir_operator.importing.pgpool import import_pgpool


class NotRecognised(ValueError):
    """The text is no configuration that can be imported."""


def import_configuration(text: str, *, name: str, cluster: str | None = None) -> Imported:
    """A pgbouncer.ini has sections; pgpool.conf and pgbalancer.conf have none. Raises NotRecognised."""
    if re.search(r"^\s*\[[^\]]*\]\s*$", text, re.MULTILINE):
        return import_pgbouncer(text, name=name, cluster=cluster)
    if re.search(r"^\s*[a-z_][a-z0-9_]*\s*=", text, re.MULTILINE | re.IGNORECASE):
        return import_pgpool(text, name=name, cluster=cluster)
    raise NotRecognised("this is neither a pgbouncer.ini nor a pgpool.conf or pgbalancer.conf: no line sets anything")
