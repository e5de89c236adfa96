"""Versions of the catalogue: what a pod of an older image knows is written down, and never changes afterwards."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from pgweir.settings import CATALOGUE_VERSION, SETTINGS

HERE = Path(__file__).parent


def current() -> dict[str, list[str]]:
    spec = importlib.util.spec_from_file_location("versions", HERE / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, list[str]] = module.versions()
    return found


def test_what_is_new_says_since_when_and_what_was_there_stays() -> None:
    stored = json.loads((HERE / "versions.json").read_text())
    assert current() == stored, (
        "a new setting or word needs since= or words_since= and, once an image with the last version was handed out, a"
        " higher CATALOGUE_VERSION; then run versions.py. What an older version has must stay"
    )


def test_the_version_is_that_of_the_newest_setting() -> None:
    assert max(int(version) for version in current()) == CATALOGUE_VERSION


def test_a_setting_and_a_word_are_known_from_their_version_on() -> None:
    assert not SETTINGS["client_overflow"].known_to(1, "wait")
    assert SETTINGS["client_overflow"].known_to(2, "wait")
    assert SETTINGS["auth_type"].known_to(1, "hba")
    assert not SETTINGS["auth_type"].known_to(1, " LDAP ")
    assert SETTINGS["auth_type"].known_to(2, "ldap")
