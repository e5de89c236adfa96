#!/usr/bin/env python3
"""archive.py REFERENCE FOLDER < DIGESTS > ARCHIVE: an image for `ctr images import`, less what is there already.

FOLDER is what `buildah push dir:FOLDER` wrote; DIGESTS are those that containerd holds. Of an image of 400 MB, a change
of our code is a layer of one: the rest is neither written nor read again. Called by images.sh.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path


def main(reference: str, folder: Path, present: set[str]) -> None:
    manifest_bytes = (folder / "manifest.json").read_bytes()
    manifest = json.loads(manifest_bytes)
    digest = "sha256:" + hashlib.sha256(manifest_bytes).hexdigest()
    entry = {
        "mediaType": manifest["mediaType"],
        "digest": digest,
        "size": len(manifest_bytes),
        "annotations": {"io.containerd.image.name": reference},
    }
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        add(archive, blob(digest), manifest_bytes)
        for part in (manifest["config"], *manifest["layers"]):
            if part["digest"] not in present:
                archive.add(folder / part["digest"].removeprefix("sha256:"), blob(part["digest"]))


def blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), set(sys.stdin.read().split()))
