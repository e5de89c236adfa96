"""Session variables that follow a client."""

from hypothesis import given
from hypothesis import strategies as st

from pgweir.protocol.variables import Tracker, set_statement


def test_equal_values_are_one_object():
    tracker = Tracker()
    one = tracker.values({"TimeZone": "UTC", "server_version": "16"})
    assert one is tracker.values({"timezone": "UTC"})
    assert one is tracker.updated(tracker.values({"TimeZone": "CET"}), [("timezone", "UTC"), ("is_superuser", "on")])
    assert tracker.items(one) == [("TimeZone", "UTC")]


def test_names_compare_without_case_and_once():
    tracker = Tracker(["IntervalStyle", "timezone", "intervalstyle", ""])
    assert tracker.names[5:] == ("IntervalStyle",)
    assert "INTERVALSTYLE" in tracker
    assert "search_path" not in tracker
    assert tracker.slot("TimeZone") == tracker.slot("TIMEZONE")


def test_only_what_both_know_and_spell_differently_is_set():
    tracker = Tracker()
    server = tracker.values({"TimeZone": "UTC", "DateStyle": "ISO, MDY", "client_encoding": "UTF8"})
    client = tracker.values({"TimeZone": "utc", "DateStyle": "ISO, DMY", "application_name": "x"})
    assert tracker.difference(client, server) == [("DateStyle", "ISO, DMY")]
    assert tracker.difference(server, server) == []
    assert tracker.filled(client, server) is tracker.updated(client, [("client_encoding", "UTF8")])


def test_many_values_do_not_pile_up():
    tracker = Tracker()
    for number in range(25_000):
        tracker.values({"application_name": str(number)})
    assert len(tracker._interned) <= 10_001
    assert tracker.difference(tracker.values({}), tracker.nothing) == []


def test_long_values_do_not_pile_up_either():
    tracker = Tracker()
    for number in range(500):
        tracker.values({"application_name": f"{number}" + "x" * 60_000})
    assert sum(len(value) for values in tracker._interned for value in values if value) <= 4_000_000


def test_lists_are_set_as_they_are_reported():
    assert set_statement([("search_path", 'a, "B c"')]) == 'SET search_path=a, "B c";'
    for empty in ("", '""'):
        assert set_statement([("search_path", empty)]) == "SET search_path='';"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_a_quoted_value_reads_back_whatever_it_holds(value):
    sql = set_statement([("application_name", value)])
    head, escapes = ("SET application_name=E'", True) if "\\" in value else ("SET application_name='", False)
    assert sql.startswith(head)
    assert sql.endswith("';")
    quoted = sql[len(head) : -2].replace("''", "'")
    assert "'" not in sql[len(head) : -2].replace("''", "")
    assert (quoted.replace("\\\\", "\\") if escapes else quoted) == value
