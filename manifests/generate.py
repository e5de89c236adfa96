"""Makes manifests/install.yaml of what `helm template` prints: for those who apply without Helm.

Reads standard input, writes standard output; `make manifests` calls it. It adds the namespace and takes away what only
means something to Helm.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

HEAD = (
    "# Generated from charts/pgweir by `make manifests`; do not edit.\n# kubectl apply --server-side -f install.yaml\n"
)
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "pgweir-system", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
MANAGED_BY = "app.kubernetes.io/managed-by"


def is_hook(document: dict[str, Any]) -> bool:
    """What Helm runs at certain moments is nothing to apply."""
    return "helm.sh/hook" in (document["metadata"].get("annotations") or {})


def without_helm(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: without_helm(item) for key, item in value.items() if not key.startswith("helm.sh/")}
        if kept.get(MANAGED_BY) == "Helm":
            del kept[MANAGED_BY]
        return {key: item for key, item in kept.items() if not (key == "annotations" and not item)}
    if isinstance(value, list):
        return [without_helm(item) for item in value]
    return value


def main() -> None:
    printed = [document for document in yaml.safe_load_all(sys.stdin) if document and not is_hook(document)]
    documents = [without_helm(document) for document in printed]
    if not documents:
        sys.exit("nothing to read: helm template printed no manifest")
    sys.stdout.write(HEAD)
    yaml.safe_dump_all([NAMESPACE, *documents], sys.stdout, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    main()
