"""What is known of host names: for how long, whose turn it is, and what a failure changes."""

from __future__ import annotations

from pgweir.session.names import Names


def test_an_answer_counts_for_its_time():
    names = Names()
    assert not names.is_fresh("db", 100.0)
    names.found("db", ["10.0.0.1"], 100.0, 15.0)
    assert names.is_fresh("db", 114.0)
    assert not names.is_fresh("db", 115.0)
    assert names.in_turn("db", 200.0) == ["10.0.0.1"]  # old, and still the best there is


def test_addresses_take_turns_and_each_is_tried_in_the_end():
    names = Names()
    names.found("db", ["a", "b", "c", "a"], 0.0, 15.0)
    assert [names.in_turn("db", 1.0) for _ in range(4)] == [
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
    assert names.in_turn("db", 30.0) == ["a"]
    assert names.is_fresh("db", 19.0)  # nor is the resolver asked again at once
    names.not_found("db", "Name or service not known", 20.0, 5.0, for_good=True)
    assert names.in_turn("db", 30.0) == []
    assert names.failure("db") == "Name or service not known"


def test_names_in_use_are_asked_again_and_others_are_forgotten():
    names = Names()
    for host in ("db", "old", "young"):
        names.found(host, ["a"], 0.0, 30.0 if host == "young" else 15.0)
    assert names.keep({"db", "never-seen"}, 20.0) == ["db"]
    assert {name.host for name in names} == {"db", "young"}


def test_a_pinned_name_leads_where_it_is_pinned_and_the_resolver_is_second():
    names = Names()
    names.found("db", ["a", "b"], 0.0, 15.0)
    assert names.pin("db", "new", 60.0, 0.0)
    assert not names.pin("db", "new", 61.0, 1.0), "the same again"
    assert [names.in_turn("db", 2.0) for _ in range(2)] == [["new", "a", "b"]] * 2
    names.connection_failed("db", "new")
    assert names.in_turn("db", 2.0) == ["a", "b", "new"]
    names.connection_failed("db", "a")
    assert names.in_turn("db", 60.9) == ["new", "a", "b"]
    assert (names.pinned("db", 60.9), names.pinned("db", 61.0)) == ("new", "")
    assert sorted(names.in_turn("db", 61.0)) == ["a", "b"], "the resolver's answers count again"


def test_a_name_can_be_pinned_before_the_resolver_was_asked_and_is_kept_until_its_time_is_over():
    names = Names()
    assert names.pin("db", "new", 60.0, 0.0)
    assert names.in_turn("db", 1.0) == ["new"]
    names.not_found("db", "Name or service not known", 2.0, 5.0, for_good=True)
    assert names.in_turn("db", 3.0) == ["new"]
    names.keep(set(), 59.0)
    assert names.pinned("db", 59.0) == "new"
    names.keep(set(), 60.0)
    assert not len(names)
