"""docs/pooler.md and docs/conditions.md are what the models and the words of a status say."""

from __future__ import annotations

import re
from pathlib import Path

from pgweir_operator.api.conditions import ConditionType, Phase, Reason, SwitchoverPhase
from pgweir_operator.api.conditions_reference import EVENTS, PHASES, REASONS, SWITCHOVERS, TYPES, conditions_reference
from pgweir_operator.api.reference import pooler_reference

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def test_the_page_of_fields_is_what_the_models_say():
    page = (DOCS / "pooler.md").read_text()
    assert page == pooler_reference(), "write it anew: python -m pgweir_operator.api.reference > docs/pooler.md"


def test_every_field_has_its_line_down_to_the_entries_of_lists():
    page = pooler_reference()
    for path in (
        "cluster.name",
        "pgbouncer.users[].passwordSecret.name",
        "switchover.timeoutSeconds",
        "pods[].message",
    ):
        assert f"| `{path}` |" in page


def test_the_page_of_conditions_is_what_the_words_say():
    page = (DOCS / "conditions.md").read_text()
    assert page == conditions_reference(), (
        "write it anew: python -m pgweir_operator.api.conditions_reference > docs/conditions.md"
    )


def test_every_word_of_a_status_is_explained_once():
    explained = [reason for reasons in REASONS.values() for reason in reasons]
    assert sorted(explained) == sorted(Reason)
    assert set(TYPES) == set(ConditionType)
    assert set(PHASES) == set(Phase)
    assert set(SWITCHOVERS) == set(SwitchoverPhase)


def test_every_reason_and_every_event_is_brought_about_by_some_test():
    homes = (ROOT / "tests" / "pgweir_operator", ROOT / "e2e" / "control_plane", ROOT / "e2e" / "scenarios")
    told = "\n".join(path.read_text() for home in homes for path in home.rglob("test_*.py") if path != Path(__file__))
    events = [event for events in EVENTS for event in events.split(", ")]
    reasons = {reason.value: rf"\b({reason.value}|Reason\.{reason.name})\b" for reason in Reason}
    words = {**reasons, **{event: rf"\b{event}\b" for event in events}}
    assert [word for word, pattern in words.items() if not re.search(pattern, told)] == []
