"""A bundle: the flat set of files that the operator writes and a pod runs, and its digest.

Pure data, shared by the operator (which makes bundles) and the pod (which accepts, keeps and reports them).
It never looks inside the configuration; `config` does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

INI: Final = "pgbouncer.ini"
MANIFEST: Final = "bundle.json"

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}", re.ASCII)


class BundleError(ValueError):
    """A set of files that is no bundle: names the file, what is wrong with it, and what it should be."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Bundle:
    revision: int
    paused: bool
    catalogue_version: int
    files: Mapping[str, bytes] = field(repr=False)  # every file, bundle.json among them; they hold secrets

    @property
    def digest(self) -> str:
        return bundle_digest(self.files)


def bundle_manifest(*, revision: int, paused: bool, catalogue_version: int) -> bytes:
    """The bytes of bundle.json."""
    content = {"revision": revision, "paused": paused, "catalogueVersion": catalogue_version}
    return json.dumps(content, sort_keys=True).encode() + b"\n"


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over what decides how a pod behaves: every file, but of bundle.json only `paused`.

    WHY: two revisions with the same content have the same digest, so that a pod which runs the content
    of an older revision is seen to run the wanted one.
    """
    digest = hashlib.sha256()
    for name in sorted({*files, MANIFEST}):
        content = _paused_alone(files) if name == MANIFEST else files[name]
        digest.update(b"%s\0%d\0" % (name.encode("utf-8", "surrogateescape"), len(content)))
        digest.update(content)
    return digest.hexdigest()


def read_bundle(files: Mapping[str, bytes]) -> Bundle:
    """The bundle these files are, or BundleError."""
    for name in files:
        if not _NAME.fullmatch(name):
            raise BundleError(
                name[:80], "this is no name for a file of a bundle; use letters, digits, '.', '_' and '-'"
            )
    if INI not in files:
        raise BundleError(INI, "this file is missing; a bundle needs it")
    manifest = _manifest(files)
    return Bundle(
        revision=_whole_number(manifest, "revision", minimum=1),
        paused=_paused(manifest),
        catalogue_version=_whole_number(manifest, "catalogueVersion", minimum=1),
        files=dict(files),
    )


def _manifest(files: Mapping[str, bytes]) -> dict[str, object]:
    content = files.get(MANIFEST)
    if content is None:
        raise BundleError(MANIFEST, "this file is missing; a bundle needs it")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(MANIFEST, f"this is not JSON ({type(error).__name__})") from None
    if not isinstance(manifest, dict):
        raise BundleError(MANIFEST, "write a JSON object with revision, paused and catalogueVersion")
    return manifest


def _whole_number(manifest: Mapping[str, object], key: str, *, minimum: int) -> int:
    value = manifest.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BundleError(MANIFEST, f"{key} is {_short(value)}; write a whole number of at least {minimum}")
    return value


def _paused(manifest: Mapping[str, object]) -> bool:
    value = manifest.get("paused")
    if not isinstance(value, bool):
        raise BundleError(MANIFEST, f"paused is {_short(value)}; write true or false")
    return value


def _paused_alone(files: Mapping[str, bytes]) -> bytes:
    return b'{"paused": true}' if _paused(_manifest(files)) else b'{"paused": false}'


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:40]
