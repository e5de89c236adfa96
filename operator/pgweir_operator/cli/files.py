"""`pgweir import` and `pgweir check`: a file in, an answer on the terminal. No cluster and no database is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
import yaml

from pgweir.config import ConfigError, find_faults
from pgweir_operator import validation
from pgweir_operator.api import names
from pgweir_operator.importing import NotRecognised, import_configuration
from pgweir_operator.importing.profiles import proposed_profile

DONE, ATTENTION, UNUSABLE = 0, 1, 2


def run_import(file: Path, *, name: str, cluster: str | None, sessions: Sequence[float] = ()) -> int:
    """The manifest goes to standard output, what became of each setting to standard error; then what fits such sessions."""
    text = _text(file)
    if text is None:
        return UNUSABLE
    try:
        imported = import_configuration(text, name=name, cluster=cluster)
    except NotRecognised as error:
        typer.echo(f"{file}: {error}", err=True)
        return UNUSABLE
    typer.echo(yaml.safe_dump(dict(imported.manifest), sort_keys=False), nl=False)
    for line in imported.lines:
        typer.echo(f"{file}: {line}", err=True)
    if sessions:
        typer.echo(f"for sessions of such a length pgpool's manual proposes {proposed_profile(sessions)}", err=True)
    return ATTENTION if imported.refused else DONE


def run_check(file: Path) -> int:
    """All faults of a pgbouncer.ini, or all problems of the Poolers in a manifest, one a line."""
    text = _text(file)
    if text is None:
        return UNUSABLE
    if file.suffix not in (".yaml", ".yml", ".json"):
        return _check_ini(file)
    try:
        documents = [document for document in yaml.safe_load_all(text) if document]
    except yaml.YAMLError as error:
        typer.echo(f"{file}: this is no YAML: {' '.join(str(error).split())}", err=True)
        return UNUSABLE
    poolers = [document for document in documents if isinstance(document, dict) and document.get("kind") == names.KIND]
    if not poolers:
        typer.echo(f"{file}: there is no object of kind {names.KIND} in this file", err=True)
        return UNUSABLE
    found = [problem for document in poolers for problem in _problems(document)]
    for problem in found:
        typer.echo(f"{file}: {problem}", err=True)
    return _judged(file, is_well=not found)


def _check_ini(file: Path) -> int:
    faults, warnings = find_faults(file, base_dir=file.parent)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    for fault in faults:
        typer.echo(str(fault), err=True)
    return _judged(file, is_well=not faults)


def _judged(file: Path, *, is_well: bool) -> int:
    if is_well:
        typer.echo(f"{file}: nothing is wrong")
    return DONE if is_well else ATTENTION


def _problems(document: dict[str, object]) -> list[str]:
    metadata = document.get("metadata")
    name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
    if document.get("apiVersion") != names.API_VERSION:
        return [f"{name}: apiVersion is {document.get('apiVersion')!r}: write {names.API_VERSION}"]
    given = dict(metadata) if isinstance(metadata, dict) else {}
    whole = {"spec": {}, **document, "metadata": {"name": "", "uid": "", "generation": 1, **given}}
    pooler = validation.parse(whole)
    problems = pooler if isinstance(pooler, list) else validation.validate(pooler)
    return [f"{name}: {problem}" for problem in problems]


def _why(error: OSError | ConfigError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ConfigError) as error:
        typer.echo(f"{file}: name a file that can be read ({_why(error)})", err=True)
        return None
