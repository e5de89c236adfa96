"""Two versions at once, with real processes: the oldest data plane under today's operator, today's under the oldest operator.

The oldest comes from this repository's own history; a shallow clone skips what needs it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.pgweir_operator.worlds import observed, pooler, provisioned
from tests.pooler.process import eventually
from tests.postgres.certificates import Certificates

from pgweir.bundle import INI, bundle_digest, bundle_manifest
from pgweir.settings import CATALOGUE_VERSION
from pgweir_operator.api.observed import PodReport
from pgweir_operator.cli.local_pod import ADDRESS, LocalPod
from pgweir_operator.desired import desired_state
from pgweir_operator.desired.deployment import CONFIG_DIR, CONTROL_DIR, STATE_DIR
from pgweir_operator.fleet import Push
from pgweir_operator.integration.control import renewed

ROOT = Path(__file__).parents[2]
# The last commit whose pods knew neither --peers-host nor --metrics-prefix: version 1 of the catalogue.
FIRST_VERSION = "b96183c"
PARAMETERS = {"client_overflow": "wait", "reserved_connections": "3", "default_pool_size": "7"}


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the first version."""
    paths = ["pooler_image", "tests/golden/pooler/bundle"]
    made = subprocess.run(["git", "archive", FIRST_VERSION, *paths], cwd=ROOT, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"the history has no {FIRST_VERSION}: {made.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("oldest")
    # WHY not tarfile: before Python 3.11.4 it knows no `filter`, and later ones ask for it.
    subprocess.run(["tar", "--extract", "--directory", folder], input=made.stdout, check=True)
    return folder


class Pod(LocalPod):
    """A pod that is started as the Deployment says, by the image whose source is at `tree` (None: today's)."""

    tree: Path | None = None

    def mount(self, files: dict[str, bytes]) -> None:
        for directory in ("config", "control", "state"):
            (self.folder / directory).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "config")
        (self.folder / "config").mkdir()
        pair = {"tls.crt": self.control.pod.certificate, "tls.key": self.control.pod.key}
        for name, content in files.items():
            (self.folder / "config" / name).write_bytes(content)
        for name, content in {"ca.crt": self.control.trusted, **pair}.items():
            (self.folder / "control" / name).write_bytes(content)

    def boot(self, files: dict[str, bytes]) -> None:
        """The arguments and variables of today's Deployment, with this machine's folders and ports."""
        self.mount(files)
        (deployment,) = (one for one in wanted().manifests if one["kind"] == "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        places = {CONFIG_DIR: "config", CONTROL_DIR: "control", STATE_DIR: "state"}
        ports = {"*:8443": self.control_port, "*:8080": self.http_port, "*:9127": self.metrics_port}
        arguments = [f"{ADDRESS}:{ports[word]}" if word in ports else word for word in container["args"]]
        for place, folder in places.items():
            arguments = [word.replace(place, str(self.folder / folder)) for word in arguments]
        variables = {
            row["name"]: row.get("value", "10.1.2.3").replace("$(POD_IP)", "10.1.2.3") for row in container["env"]
        }
        if self.tree is not None:
            variables["PYTHONPATH"] = str(self.tree / "pooler_image")
        user = ["-u", "root"] if os.geteuid() == 0 else []
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pgweir.executable", *user, *arguments],
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )

    @property
    def exit_status(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def ready(self) -> None:
        eventually(lambda: self._is_ready() or self.exit_status is not None)
        assert self.exit_status is None, self.log_tail()

    def push(self, files: dict[str, bytes]) -> PodReport:
        async def tell() -> Any:
            async with self.fleet() as fleet:
                return (await fleet.push([self.member], Push(files)))[self.name]

        answer = asyncio.run(tell())
        assert isinstance(answer, PodReport), answer
        return answer

    def report(self) -> PodReport:
        async def ask() -> Any:
            async with self.fleet() as fleet:
                return (await fleet.poll([self.member]))[self.name]

        answer = asyncio.run(ask())
        assert isinstance(answer, PodReport), answer
        return answer


@pytest.fixture
def pod(tmp_path: Path) -> Any:
    made = Pod("pod", tmp_path, renewed(None, pooler="shop", now=time.time()))
    yield made
    made.stop()


def wanted(**more: Any) -> Any:
    subject = pooler(
        pgbouncer={"parameters": {**PARAMETERS, "server_tls_sslmode": "prefer", "client_tls_sslmode": "disable"}}
    )
    return desired_state(subject, observed(subject), provisioned(), image="pgweir-pooler:1", **more)


def bundle(
    pod: Pod, certificates: Certificates, *, revision: int, catalogue_version: int = CATALOGUE_VERSION
) -> dict[str, bytes]:
    rendered = wanted(revision_floor=revision - 1, catalogue_version=catalogue_version)
    assert rendered.revision == revision
    return with_certificates(pod.localized(rendered.bundle_files, 1), certificates)


def with_certificates(files: dict[str, bytes], certificates: Certificates) -> dict[str, bytes]:
    """The worlds of the tests have words where certificates should be."""
    authority, shown = certificates.ca.read_bytes(), certificates.server
    places = {"ca.crt": authority, "client-ca.crt": authority, "server-ca.crt": authority}
    for side in ("client", "server"):
        places |= {f"{side}.crt": shown.certificate.read_bytes(), f"{side}.key": shown.key.read_bytes()}
    return {name: places.get(name, content) for name, content in files.items()}


def test_the_oldest_pod_starts_under_todays_deployment_and_runs_what_is_rendered_for_it(
    oldest: Path, pod: Pod, certificates: Certificates
) -> None:
    pod.tree = oldest
    pod.boot(bundle(pod, certificates, revision=1, catalogue_version=1))
    pod.ready()
    assert pod.report().catalogue_version == 1

    files = bundle(pod, certificates, revision=2, catalogue_version=1)
    applied = pod.push(files)
    assert (applied.revision, applied.digest) == (2, bundle_digest(files))

    refused = pod.push(bundle(pod, certificates, revision=3))
    assert (refused.revision, refused.rejected_revision) == (2, 3)
    assert "client_overflow" in refused.rejected_error


def test_the_oldest_pod_ends_at_once_when_it_boots_with_what_it_does_not_know(
    oldest: Path, pod: Pod, certificates: Certificates
) -> None:
    pod.tree = oldest
    pod.boot(bundle(pod, certificates, revision=1))
    eventually(lambda: pod.exit_status is not None)
    assert pod.exit_status == 1, "this is why a pod that cannot start is taken for the first version"
    assert "client_overflow" in pod.log_tail()


def test_todays_pod_runs_what_the_oldest_operator_rendered(oldest: Path, pod: Pod, certificates: Certificates) -> None:
    golden = {file.name: file.read_bytes() for file in (oldest / "tests/golden/pooler/bundle").iterdir()}
    files = with_certificates(pod.localized(golden, 1), certificates)
    pod.boot(files)
    pod.ready()
    report = pod.report()
    assert (report.digest, report.catalogue_version) == (bundle_digest(files), CATALOGUE_VERSION)


def test_todays_pod_boots_with_what_a_later_operator_rendered_and_leaves_out_what_it_does_not_know(
    pod: Pod, certificates: Certificates
) -> None:
    files = bundle(pod, certificates, revision=1)
    later = bundle_manifest(revision=1, paused=False, catalogue_version=CATALOGUE_VERSION + 1)
    files |= {INI: files[INI] + b"\nread_minds = 1\n", "bundle.json": later}
    pod.boot(files)
    pod.ready()
    assert pod.report().digest == bundle_digest(files)
    assert "read_minds" in pod.log_tail(50)


def test_of_its_own_version_a_pod_takes_no_name_that_it_does_not_know(pod: Pod, certificates: Certificates) -> None:
    files = bundle(pod, certificates, revision=1)
    pod.boot({**files, INI: files[INI] + b"\nread_minds = 1\n"})
    eventually(lambda: pod.exit_status is not None)
    assert pod.exit_status == 1
