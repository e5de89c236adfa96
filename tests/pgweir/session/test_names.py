"""What is known of host names: for how long, whose turn it is, and what a failure changes."""

from __future__ import annotations

from pgweir.session.names import Names


def test_an_answer_counts_for_its_time():
    names = Names()
    assert not names.is_fresh("db", 100.0)
    names.found("db", ["10.0.0.1"], 100.0, 15.0)
    assert names.is_fresh("db", 114.0)
    assert not names.is_fresh("db", 115.0)
    assert names.in_turn("db") == ["10.0.0.1"]  # old, and still the best there is


def test_addresses_take_turns_and_each_is_tried_in_the_end():
    names = Names()
    names.found("db", ["a", "b", "c", "a"], 0.0, 15.0)
    assert [names.in_turn("db") for _ in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_another_answer_is_noticed_and_another_order_is_not():
    names = Names()
    assert not names.found("db", ["a", "b"], 0.0, 15.0)
    assert not names.found("db", ["b", "a"], 15.0, 15.0)
    assert names.found("db", ["b", "c"], 30.0, 15.0)
    names.not_found("db", "try again", 45.0, 15.0, for_good=False)
    assert names.found("db", ["c"], 60.0, 15.0)


def test_a_resolver_that_is_down_changes_nothing_and_one_that_is_sure_does():
    names = Names()
    names.found("db", ["a"], 0.0, 15.0)
    names.not_found("db", "Temporary failure in name resolution", 15.0, 5.0, for_good=False)
    assert names.in_turn("db") == ["a"]
    assert names.is_fresh("db", 19.0)  # nor is the resolver asked again at once
    names.not_found("db", "Name or service not known", 20.0, 5.0, for_good=True)
    assert names.in_turn("db") == []
    assert names.failure("db") == "Name or service not known"


def test_names_in_use_are_asked_again_and_others_are_forgotten():
    names = Names()
    for host in ("db", "old", "young"):
        names.found(host, ["a"], 0.0, 30.0 if host == "young" else 15.0)
    assert names.keep({"db", "never-seen"}, 20.0) == ["db"]
    assert {name.host for name in names} == {"db", "young"}
