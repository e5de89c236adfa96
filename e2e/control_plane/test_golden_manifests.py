"""The golden manifests before a real API server: each is accepted as it stands, and the pods pass `restricted`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator

import pytest
from tests.pgweir_operator.desired import golden

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl) -> Iterator[str]:
    name = f"golden-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "--filename=-", stdin=json.dumps(namespace))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("name", golden.POOLERS)
def test_every_manifest_is_accepted_by_server_side_apply(kubectl: Kubectl, restricted: str, name: str) -> None:
    for manifest in golden.desired(name).manifests:
        if manifest["kind"] == "PodMonitor":
            continue  # its CRD is another project's
        manifest["metadata"]["namespace"] = restricted
        apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--output=json", "--filename=-"]
        accepted = json.loads(kubectl(*apply, stdin=json.dumps(manifest)))
        assert accepted["metadata"]["name"] == manifest["metadata"]["name"]


@pytest.mark.parametrize("name", [name for name in golden.POOLERS if name != "own-target"])
def test_a_pod_of_it_passes_pod_security_restricted(kubectl: Kubectl, restricted: str, name: str) -> None:
    (deployment,) = (manifest for manifest in golden.desired(name).manifests if manifest["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    template["spec"]["serviceAccountName"] = "default"
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "one", "namespace": restricted}
    kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
