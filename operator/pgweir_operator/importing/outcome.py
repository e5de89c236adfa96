"""What an import answers: the manifest, and what became of each setting. Data, and the small steps that build it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pgweir.settings import SettingError, SettingInfo, Support, format_value, parse_value
from pgweir_operator.api import names
from pgweir_operator.api.parameters import PARAMETERS

PLACEHOLDER_CLUSTER: Final = "cluster-example"
NOT_SHOWN: Final = "(not shown)"
_NO_CLUSTER: Final = "the file names no server; put your cluster's name here, or say it with --cluster"
_NO_LOOKUP: Final = (
    "name the Secret of a superuser in spec.target.adminSecret, or give authQuery and authQuerySecret: until then no user"
    " can be looked up"
)


class Fate(StrEnum):
    """What became of one setting."""

    MAPPED = "mapped"  # it is in the manifest, under the name that the sentence says
    DROPPED = "dropped"  # nothing is lost, or something else does its work; the sentence says which
    REFUSED = "refused"  # it meant something that is missing now: a person has to decide
    WARNING = "warning"  # about settings that do not go together


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one setting; `number` is its line in the file, 0 where the old pooler's default was at work."""

    number: int
    key: str
    value: str
    fate: Fate
    sentence: str

    def __str__(self) -> str:
        place = f"line {self.number}" if self.number else "not in the file"
        said = f"{self.key} = {self.value}" if self.key else self.value
        return f"{place}: {said}: {self.fate}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Imported:
    manifest: Mapping[str, Any]
    lines: tuple[Line, ...]

    @property
    def refused(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.fate is Fate.REFUSED)


@dataclass(slots=True)
class Draft:
    """A manifest in the making."""

    pool_mode: str = "session"
    parameters: dict[str, str] = field(default_factory=dict)
    databases: dict[str, dict[str, str]] = field(default_factory=dict)
    users: dict[str, dict[str, str]] = field(default_factory=dict)
    host: str = ""
    port: int = 5432
    lines: list[Line] = field(default_factory=list)

    def tell(self, number: int, key: str, value: str, fate: Fate, sentence: str) -> None:
        self.lines.append(Line(number, key, value, fate, sentence))

    def set(self, number: int, key: str, value: str, **parameters: str) -> None:
        """One setting becomes these parameters. A value that no Pooler may have is refused, by its own sentence."""
        for name, text in parameters.items():
            problem = parameter_problem(name, text)
            if problem:
                self.tell(number, key, value, Fate.REFUSED, f"as {name} = {text} it cannot be: {problem}")
                return
        self.parameters |= parameters
        became = ", ".join(f"{name} = {text or '(empty)'}" for name, text in parameters.items())
        self.tell(number, key, value, Fate.MAPPED, f"spec.pgbouncer.parameters: {became}")

    def finished(self, name: str, cluster: str | None) -> Imported:
        """The manifest, and the lines in the order of the file; what no line said stands last."""
        manifest = self._manifest(name, cluster)
        return Imported(manifest, tuple(sorted(self.lines, key=lambda line: (not line.number, line.number))))

    def _manifest(self, name: str, cluster: str | None) -> dict[str, Any]:
        target: dict[str, Any]
        if cluster is not None:
            target = {"cluster": {"name": cluster}}
        elif self.host:
            target = {"target": {"host": self.host, "port": self.port}}
            self.tell(0, "spec.target", self.host, Fate.WARNING, _NO_LOOKUP)
        else:
            target = {"cluster": {"name": PLACEHOLDER_CLUSTER}}
            self.tell(0, "spec.cluster.name", PLACEHOLDER_CLUSTER, Fate.WARNING, _NO_CLUSTER)
        pgbouncer: dict[str, Any] = {"poolMode": self.pool_mode, "parameters": dict(sorted(self.parameters.items()))}
        for kind, entries in (("databases", self.databases), ("users", self.users)):
            if entries:
                pgbouncer[kind] = [{"name": entry, "parameters": given} for entry, given in entries.items()]
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name},
            "spec": {**target, "instances": 1, "pgbouncer": pgbouncer},
        }


def parameter_problem(name: str, text: str) -> str:
    """Why a Pooler's parameters cannot have this; empty when they can."""
    info = PARAMETERS.get(name)
    if info is None:
        return "a Pooler has no such parameter"
    if info.support is Support.REFUSED:
        return info.support_note
    try:
        parse_value(info, text)
    except SettingError as error:
        return error.expected
    return ""


def normal_form(name: str, text: str) -> str:
    """A value as a manifest wants it: numbers in decimal, switches 0 or 1. Raises SettingError."""
    return entry_form(PARAMETERS[name], text)


def entry_form(info: SettingInfo, text: str) -> str:
    """The same, of a setting that one database or user has."""
    printed = format_value(info, parse_value(info, text))
    return text if printed is None else printed
