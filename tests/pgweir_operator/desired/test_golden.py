"""The golden files are what the builders build, and what they say loads in the data plane."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.pgweir_operator.desired import golden

from pgweir.bundle import read_bundle
from pgweir.config import load
from pgweir.settings import SETTINGS, parse_value
from pgweir_operator.validation import validate

every_pooler = pytest.mark.parametrize("name", golden.POOLERS)


@every_pooler
def test_the_golden_files_are_current(name: str) -> None:
    folder = golden.GOLDEN / name
    wanted = dict(golden.files(name))
    present = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != "pooler.yaml"}
    assert present == wanted.keys(), "run `make golden` and review what changed"
    for path, text in wanted.items():
        assert (folder / path).read_text() == text, f"{path}: run `make golden` and review what changed"


@every_pooler
def test_a_golden_pooler_is_valid(name: str) -> None:
    assert validate(golden.pooler(name)) == []


@every_pooler
def test_the_rendered_bundle_loads_in_the_data_plane_with_the_values_meant(name: str, tmp_path: Path) -> None:
    pooler = golden.pooler(name)
    files = golden.desired(name).bundle_files
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)

    config = load(tmp_path / "pgbouncer.ini", base_dir=tmp_path)

    shop = config.database("shop")
    assert shop is not None
    assert (shop.host, shop.port, shop.dbname) == (pooler.target_host, pooler.target_port, "shop")
    assert config.warnings == ()
    assert config.settings.pool_mode == pooler.spec.pgbouncer.pool_mode
    assert config.settings.unix_socket_dir == "/run/pgweir"
    for parameter, text in pooler.spec.pgbouncer.parameters.items():
        if parameter != "ignore_startup_parameters":
            assert getattr(config.settings, parameter) == parse_value(SETTINGS[parameter], text), parameter
    assert set(config.settings.ignore_startup_parameters) >= {"extra_float_digits", "options"}
    assert read_bundle(files).paused is pooler.wants_pause


@every_pooler
def test_the_secret_carries_the_bundle_byte_for_byte(name: str) -> None:
    state = golden.desired(name)
    (secret,) = (manifest for manifest in state.manifests if manifest["kind"] == "Secret")
    assert {key: base64.b64decode(value) for key, value in secret["data"].items()} == dict(state.bundle_files)


@every_pooler
def test_no_key_of_a_ca_reaches_a_pod(name: str) -> None:
    state = golden.desired(name)
    assert not [file for file, content in state.bundle_files.items() if b"CA KEY" in content or b"NEVER" in content]


def test_a_password_with_quotes_comes_back_from_the_userlist(tmp_path: Path) -> None:
    for file, content in golden.desired("own-target").bundle_files.items():
        (tmp_path / file).write_bytes(content)
    config = load(tmp_path / "pgbouncer.ini", base_dir=tmp_path)
    assert config.userlist == {"another_name": 'a "b"', "batch": "night", "quiet": "shh"}
    assert config.settings.auth_query == "SELECT usename, passwd FROM lookup($1) -- it's theirs"


@every_pooler
def test_every_pod_would_pass_pod_security_restricted(name: str) -> None:
    (deployment,) = (manifest for manifest in golden.desired(name).manifests if manifest["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["automountServiceAccountToken"] is False
    container = spec["containers"][0]
    assert container["name"] == "pgbouncer"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_golden_files_hold_nothing_of_this_machine() -> None:
    for path in golden.GOLDEN.rglob("*"):
        assert path.is_dir() or str(Path.home()) + "/" not in path.read_text()
