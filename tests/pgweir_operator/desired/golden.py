"""The golden files: every manifest and every text file of some Poolers, whole, for a person to review.

`make golden` runs this and writes them anew; test_golden.py compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests.pgweir_operator import worlds  # noqa: E402 - the line above makes it importable

from pgweir_operator.api.pooler import Pooler  # noqa: E402
from pgweir_operator.desired import Desired, desired_state  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
IMAGE = "pgweir-pooler:0.1.0"

# Name of the golden folder: the Pooler it is of.
POOLERS = {
    "pooler": ROOT / "manifests/samples/pooler.yaml",
    "pooler-anti-affinity": ROOT / "manifests/samples/pooler-anti-affinity.yaml",
    "pooler-resources": ROOT / "manifests/samples/pooler-resources.yaml",
    "own-target": GOLDEN / "own-target/pooler.yaml",
}
OWN_SECRETS = {
    "lookup-login": worlds.secret("lookup-login", type="kubernetes.io/basic-auth", username="looker", password='a "b"'),
    "batch-login": worlds.secret("batch-login", type="kubernetes.io/basic-auth", username="batch", password="night"),
    "quiet-login": worlds.secret("quiet-login", password="shh"),
    "database-ca": worlds.secret("database-ca", ca_crt="DATABASE CA\n"),
    "front-certificate": worlds.secret("front-certificate", tls_crt="FRONT CERTIFICATE\n", tls_key="FRONT KEY\n"),
    "front-ca": worlds.secret("front-ca", ca_crt="FRONT CA\n", ca_key="NEVER IN A POD\n"),
}


def pooler(name: str) -> Pooler:
    manifest = yaml.safe_load(POOLERS[name].read_text())
    manifest["metadata"] |= {"namespace": "default", "uid": worlds.UID, "generation": 1}
    return Pooler.from_manifest(manifest)


def desired(name: str) -> Desired:
    subject = pooler(name)
    seen = worlds.observed(subject, secrets=OWN_SECRETS, pod_monitors_known=True)
    return desired_state(subject, seen, worlds.provisioned(), image=IMAGE, operator_namespace="pgweir-system")


def files(name: str) -> Iterator[tuple[Path, str]]:
    """Every golden file of a Pooler, relative to its folder."""
    state = desired(name)
    for manifest in state.manifests:
        yield Path(f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"), _yaml(manifest)
    for file, content in state.bundle_files.items():
        yield Path("bundle") / file, content.decode()


def _yaml(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=120)


def main() -> None:
    for name in POOLERS:
        folder = GOLDEN / name
        wanted = dict(files(name))
        for old in [path for path in folder.rglob("*") if path.is_file() and path.name != "pooler.yaml"]:
            if old.relative_to(folder) not in wanted:
                old.unlink()
        for path, text in wanted.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        sys.stdout.write(f"{folder.relative_to(ROOT)}: {len(wanted)} files\n")


if __name__ == "__main__":
    main()
