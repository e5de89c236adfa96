"""`pgweir import` and `pgweir check` as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.pgweir_operator.importing.golden import DATA
from typer.testing import CliRunner

from pgweir_operator.cli.main import app

SAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "samples").glob("*.yaml"))


def pgweir(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_import_prints_the_manifest_and_says_beside_it_what_became_of_each_setting() -> None:
    code, manifest, told = pgweir("import", DATA / "pgbalancer-small.conf", "--name", "shop", "--cluster", "shop-db")
    assert code == 0
    spec = yaml.safe_load(manifest)
    assert (spec["metadata"]["name"], spec["spec"]["cluster"]["name"]) == ("shop", "shop-db")
    assert "line 2: num_init_children = 32: mapped: " in told


def test_import_proposes_what_fits_sessions_that_were_measured() -> None:
    file = DATA / "pgbalancer-small.conf"
    assert "many short connections (num_init_children = 64, max_pool = 2" in pgweir("import", file, "--session", 3)[2]
    told = pgweir("import", file, "--session", 3, "--session", 900, "--session", 1200)[2]
    assert "fewer long connections (num_init_children = 16, max_pool = 8, client_idle_limit = 600)" in told
    assert "proposes" not in pgweir("import", file)[2]


def test_import_says_by_its_exit_code_that_a_person_has_to_decide() -> None:
    code, manifest, told = pgweir("import", DATA / "pgpool.conf")
    assert (code, yaml.safe_load(manifest)["kind"]) == (1, "Pooler")
    assert "refused: did you mean num_init_children?" in told


@pytest.mark.parametrize("content", [None, "nothing here"])
def test_import_of_what_is_no_configuration_prints_no_manifest(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "file").write_text(content)
    code, manifest, told = pgweir("import", tmp_path / "file")
    assert (code, manifest) == (2, "")
    assert str(tmp_path / "file") in told


@pytest.mark.parametrize("example", ["pgpool.conf", "pgbouncer.ini", "pgbalancer-large.conf"])
def test_what_import_prints_passes_check(tmp_path: Path, example: str) -> None:
    (tmp_path / "pooler.yaml").write_text(pgweir("import", DATA / example)[1])
    assert pgweir("check", tmp_path / "pooler.yaml") == (0, f"{tmp_path}/pooler.yaml: nothing is wrong\n", "")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_check_has_nothing_against_our_own_samples(sample: Path) -> None:
    assert pgweir("check", sample) == (0, f"{sample}: nothing is wrong\n", "")


def test_check_finds_every_fault_of_an_ini_at_once(tmp_path: Path) -> None:
    (tmp_path / "p.ini").write_text(
        "[databases]\na = hots=1\n[pgbouncer]\nmax_client_con = 1\nlog_stats = 2\npkt_buf = 1\n"
    )
    code, printed, told = pgweir("check", tmp_path / "p.ini")
    assert (code, printed) == (1, "")
    assert "p.ini:2: a: hots" in told
    assert "p.ini:4: max_client_con: there is no such setting; did you mean max_client_conn?" in told
    assert "p.ini:5: log_stats = '2': write 0 or 1" in told
    assert "warning: " in told


def test_check_reads_the_files_that_an_ini_names_beside_it(tmp_path: Path) -> None:
    (tmp_path / "p.ini").write_text("[pgbouncer]\nauth_file = userlist.txt\n")
    assert pgweir("check", tmp_path / "p.ini")[0] == 1
    (tmp_path / "userlist.txt").write_text('"a" "b"\n')
    assert pgweir("check", tmp_path / "p.ini") == (0, f"{tmp_path}/p.ini: nothing is wrong\n", "")


def test_check_finds_every_problem_of_every_pooler_in_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "apiVersion: pgweir.io/v1\nkind: Pooler\nmetadata: {name: one}\nspec: {pgbouncer: {parameters: {pool_size: '1'}}}\n"
        "---\nkind: ConfigMap\n---\napiVersion: other/v1\nkind: Pooler\nmetadata: {name: two}\n"
    )
    code, _, told = pgweir("check", tmp_path / "p.yaml")
    assert code == 1
    assert "one: spec: give either cluster.name or target.host" in told
    assert "one: spec.pgbouncer.parameters.pool_size is '1': unknown or reserved parameter" in told
    assert "two: apiVersion is 'other/v1': write pgweir.io/v1" in told


@pytest.mark.parametrize("content", ["{", "kind: ConfigMap"])
def test_check_of_a_file_without_a_pooler_is_no_success(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.yaml").write_text(content)
    assert pgweir("check", tmp_path / "p.yaml")[0] == 2


@pytest.mark.parametrize("word", ["import", "check"])
def test_help_has_an_example_and_the_exit_codes(word: str) -> None:
    code, printed, _ = pgweir(word, "--help")
    assert code == 0
    assert f"Example:\n    pgweir {word}" in printed
    assert "Exit codes: 0" in printed
