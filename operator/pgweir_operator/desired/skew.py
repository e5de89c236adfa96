"""Pods of an older image: which version of the catalogue they speak, and what a configuration for them must leave out.

Pure. One configuration is rendered for all pods of a Pooler, so the oldest decides. A pod that says nothing is taken for
what it last said, or for what the others of its image said; one that cannot even start, and whose image nobody knows, for
the very first version, since an unknown setting may be what stops it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgweir.settings import CATALOGUE_VERSION, SettingInfo
from pgweir_operator.api.observed import Observed, PodAnswer, PodFacts, PodReport
from pgweir_operator.api.pooler import Pooler

FIRST_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Oldest:
    """The version that a configuration is rendered for, and the pods that ask for it (none: it is our own)."""

    version: int = CATALOGUE_VERSION
    pods: tuple[str, ...] = ()


def oldest(pooler: Pooler, observed: Observed, answers: Mapping[str, PodAnswer]) -> Oldest:
    """A pod that is newer than this operator is given what the operator knows."""
    versions = _versions(pooler, observed, answers)
    version = min(versions.values(), default=CATALOGUE_VERSION)
    if version >= CATALOGUE_VERSION:
        return Oldest()
    return Oldest(version, tuple(sorted(name for name, one in versions.items() if one == version)))


def known(
    catalogue: Mapping[str, SettingInfo], values: Mapping[str, str], version: int
) -> tuple[dict[str, str], list[str]]:
    """The values that this version takes, and the names of the others. What is no setting of ours is handed on."""
    kept = {name: text for name, text in values.items() if _takes(catalogue.get(name), version, text)}
    return kept, [name for name in values if name not in kept]


def _takes(info: SettingInfo | None, version: int, text: str) -> bool:
    return info is None or info.known_to(version, text)


def _versions(pooler: Pooler, observed: Observed, answers: Mapping[str, PodAnswer]) -> dict[str, int]:
    """By pod; of one that may as well be ours, nothing."""
    there = [pod for pod in observed.pods if not pod.ended]
    said = {
        pod.name: answer.catalogue_version for pod in there if isinstance(answer := answers.get(pod.name), PodReport)
    }
    said = {**_remembered(pooler.status.get("pods") or (), {pod.name for pod in there}), **said}
    by_image = {pod.image: said[pod.name] for pod in there if pod.name in said}
    return {**said, **{pod.name: _assumed(pod, by_image) for pod in there if pod.name not in said}}


def _remembered(rows: Iterable[Mapping[str, Any]], names: set[str]) -> dict[str, int]:
    return {
        row["name"]: int(row["catalogueVersion"])
        for row in rows
        if row["name"] in names and row.get("catalogueVersion")
    }


def _assumed(pod: PodFacts, by_image: Mapping[str, int]) -> int:
    if pod.image in by_image:
        return by_image[pod.image]
    return FIRST_VERSION if pod.crashing else CATALOGUE_VERSION
