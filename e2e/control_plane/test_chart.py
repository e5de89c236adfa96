"""The chart at a real API server, by Helm itself: a CRD that is there already, an older chart, uninstalling, few namespaces.

Without a kubelet no Job runs: the uninstall hook's program is run here under the rights that its templates give, and the
operator of the release is the test's own process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from e2e.control_plane.harness import wait

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "pgweir"
CRD = "poolers.pgweir.io"
# The first chart that was ever there.
OLDEST_CHART = "41f72ba"


@pytest.fixture
def helm(kubeconfig, kubectl, operator_kubeconfig, world):
    """Helm in the test's namespace; the CRD is there, from `kubectl apply`, and is so again afterwards."""
    binary = Path(kubeconfig).parents[1] / "bin" / "helm"

    def run(*arguments: str) -> str:
        command = [str(binary), f"--kubeconfig={kubeconfig}", f"--namespace={world.namespace}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout

    if not binary.exists():
        pytest.skip(f"there is no {binary}")
    yield run
    for release in run("list", "--short").split():
        run("uninstall", release, "--no-hooks")
    kubectl("annotate", "crd", CRD, "meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-")
    kubectl("label", "crd", CRD, "app.kubernetes.io/managed-by-")
    kubectl("apply", "--server-side", "--force-conflicts", f"--filename={ROOT / 'crds' / 'poolers.pgweir.io.yaml'}")


def hand_over(kubectl, notes: str) -> None:
    """Run the very commands that the notes print."""
    commands = [line.split() for line in notes.splitlines() if line.startswith("  kubectl ") and f"crd {CRD}" in line]
    assert [command[1] for command in commands] == ["label", "annotate"]
    for command in commands:
        kubectl(*command[1:])


def owner(kubectl) -> str:
    found = yaml.safe_load(kubectl("get", "crd", CRD, "--output=yaml"))
    return (found["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name", "")


def test_a_crd_that_is_there_is_left_alone_and_the_notes_say_how_to_hand_it_over(helm, kubectl):
    notes = helm("install", "first", str(CHART))
    assert owner(kubectl) == ""
    assert "left AS IT IS" in notes
    hand_over(kubectl, notes)
    assert "left AS IT IS" not in helm("upgrade", "first", str(CHART))
    assert owner(kubectl) == "first"
    assert f"name: {CRD}" in helm("get", "manifest", "first")


def test_after_uninstalling_the_crd_stays_and_another_release_may_come(helm, kubectl):
    hand_over(kubectl, helm("install", "first", str(CHART)))
    helm("upgrade", "first", str(CHART))
    helm("uninstall", "first", "--no-hooks")
    assert owner(kubectl) == "first", "kept, with the marks of the release that is gone"
    notes = helm("install", "second", str(CHART))
    hand_over(kubectl, notes)
    helm("upgrade", "second", str(CHART))
    assert owner(kubectl) == "second"


def test_an_upgrade_from_the_oldest_chart_touches_no_running_pooler(helm, kubectl, world, tmp_path):
    made = subprocess.run(["git", "archive", OLDEST_CHART, "charts"], cwd=ROOT, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"the history has no {OLDEST_CHART}")
    # WHY not tarfile: before Python 3.11.4 it knows no `filter`, and later ones ask for it.
    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=made.stdout, check=True)
    hand_over(kubectl, helm("install", "shop", str(CHART)))
    helm("upgrade", "shop", str(tmp_path / "charts" / "pgweir"))
    world.has_cluster()
    world.start_operator()
    world.pooler()
    world.until("Ready", "True")
    before, pods = world.get("Pooler", "pooler"), set(world.kubelet.pods)
    helm("upgrade", "shop", str(CHART))
    after = world.get("Pooler", "pooler")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    world.pooler(connectionBudget=40)
    wait(lambda: "connectionBudget" in world.condition("WithinConnectionBudget")[2], "a field that is new works")
    world.until("Ready", "True")
    assert set(world.kubelet.pods) == pods


def hooks(helm, *arguments: str) -> list[dict]:
    text = helm(
        "template", "shop", str(CHART), "--show-only=templates/uninstall.yaml", "--kube-version=1.35.0", *arguments
    )
    return [document for document in yaml.safe_load_all(text) if document]


def as_the_hook(kubeconfig, kubectl, documents, namespace, folder) -> Path:
    """A kubeconfig of the hook's own account, with no right but those that the chart gives it."""
    kept = [document for document in documents if document["kind"] != "Job"]
    kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(kept))
    account = next(document["metadata"]["name"] for document in kept if document["kind"] == "ServiceAccount")
    token = kubectl("create", "token", account, f"--namespace={namespace}").strip()
    config = yaml.safe_load(Path(kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    target = folder / "hook.kubeconfig"
    target.write_text(yaml.safe_dump(config))
    return target


def run_hook(config: Path, documents, *more: str) -> str:
    (job,) = (document for document in documents if document["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "pgweir_operator.uninstall"]
    command = [sys.executable, *container["command"][1:], *container["args"], f"--kubeconfig={config}", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def ready(world):
    world.has_cluster()
    operator = world.start_operator()
    world.pooler()
    world.until("Ready", "True")
    return operator


def test_the_hook_lets_poolers_go_prints_what_remains_and_leaves_them_serving(
    helm, kubectl, kubeconfig, world, ready, tmp_path
):
    documents = hooks(helm, f"--set=watchNamespaces={{{world.namespace}}}")
    config = as_the_hook(kubeconfig, kubectl, documents, world.namespace, tmp_path)
    said = run_hook(config, documents, "--patience=3")
    assert "still holds Lease" in said
    assert world.get("Pooler", "pooler")["metadata"]["finalizers"], "nothing is touched while an operator leads"
    ready.stop()
    deployment, files = world.get("Deployment", "pooler"), world.files()
    said = run_hook(config, documents)
    assert f"* Pooler {world.namespace}/pooler: 2 pods serve on" in said
    assert "What remains" in said
    assert "DROP SCHEMA pgweir CASCADE" in said
    assert not world.get("Pooler", "pooler")["metadata"].get("finalizers")
    assert world.get("Deployment", "pooler")["spec"] == deployment["spec"]
    assert world.files() == files
    assert f"  Pooler {world.namespace}/pooler" in run_hook(config, documents), "a second time there is nothing to do"
    world.start_operator()
    wait(
        lambda: world.get("Pooler", "pooler")["metadata"].get("finalizers"),
        "an operator that comes back holds it again",
    )


def test_without_an_operator_a_pooler_and_its_namespace_can_be_deleted_after_the_hook(
    helm, kubectl, kubeconfig, world, ready, tmp_path
):
    ready.kill()
    documents = hooks(helm, f"--set=watchNamespaces={{{world.namespace}}}")
    config = as_the_hook(kubeconfig, kubectl, documents, world.namespace, tmp_path)
    run_hook(config, documents)
    world.delete("Pooler", "pooler")
    wait(lambda: world.get("Pooler", "pooler") is None, "it goes")


def test_for_a_list_of_namespaces_every_right_is_bound_in_these_alone(helm, kubectl, world):
    other = f"{world.namespace}-more"
    kubectl("create", "namespace", other)
    try:
        helm("install", "few", str(CHART), f"--set=watchNamespaces={{{world.namespace},{other}}}")
        account = f"--as=system:serviceaccount:{world.namespace}:few-pgweir"
        for namespace, answer in ((world.namespace, "yes"), (other, "yes"), ("default", "no")):
            assert may(kubectl, account, namespace) == answer, namespace
        text = helm("get", "manifest", "few")
        assert "kind: ClusterRoleBinding" not in text
        assert f"--namespace={other}" in text
    finally:
        kubectl("delete", "namespace", other, "--wait=false")


def may(kubectl, account: str, namespace: str) -> str:
    try:
        return kubectl("auth", "can-i", "patch", CRD, account, f"--namespace={namespace}").strip()
    except AssertionError:
        return "no"
