"""Session variables that the protocol reports belong to the client, whichever server it gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.pooler.process import SECRETS, PoolerProcess
from tests.pooler.wire import LoginRefused, WireClient

MakePooler = Callable[..., PoolerProcess]

VALUES = [
    ("application_name", 'first\'s "app"', "second"),
    ("TimeZone", "Europe/Vienna", "America/New_York"),
    ("DateStyle", "German, DMY", "SQL, MDY"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("standard_conforming_strings", "off", "on"),
]


@pytest.mark.parametrize(("name", "one", "two"), VALUES)
def test_a_value_set_by_a_client_is_kept_for_it_over_one_shared_server(
    make_pooler: MakePooler, name: str, one: str, two: str
) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as first, pooler.wire() as second:
        for client, value in ((first, one), (second, two)):
            client.ask(f"SET {name} = " + "'" + value.replace("'", "''") + "'")
        for _ in range(3):
            assert first.ask(f"SHOW {name}") == [[one.encode()]]
            assert second.ask(f"SHOW {name}") == [[two.encode()]]


@pytest.mark.parametrize(("name", "one", "two"), [item for item in VALUES if item[0] != "standard_conforming_strings"])
def test_a_value_from_the_startup_packet_is_kept_too(make_pooler: MakePooler, name: str, one: str, two: str) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire(**{name: one}) as first, pooler.wire(**{name: two}) as second:
        for _ in range(2):
            assert first.ask(f"SHOW {name}") == [[one.encode()]]
            assert second.ask(f"SHOW {name}") == [[two.encode()]]


def test_a_value_follows_its_client_to_another_server(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=2)
    with pooler.wire() as client, pooler.wire() as other:
        client.ask("SET application_name = 'mine'")
        other.ask("BEGIN")
        assert client.ask("SHOW application_name") == [[b"mine"]]
        other.ask("COMMIT")


def test_replaying_values_is_not_seen_by_the_client(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as first, pooler.wire(application_name="other") as second:
        first.ask("SET application_name = 'mine'")
        second.ask("SELECT 1")
        first.say(b"Q\0\0\0\x0dSELECT 1\0")
        heard = [item.type for item in first.until("Z")]
        assert [kind for kind in heard if kind != "S"] == ["T", "D", "C", "Z"]


def test_extra_parameters_are_tracked_where_asked(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1, track_extra_parameters="IntervalStyle")
    with pooler.wire() as first, pooler.wire() as second:
        first.ask("SET IntervalStyle = 'iso_8601'")
        assert second.ask("SHOW IntervalStyle") == [[b"postgres"]]
        assert first.ask("SHOW IntervalStyle") == [[b"iso_8601"]]


def test_search_path_is_tracked_where_the_server_reports_it(make_pooler: MakePooler) -> None:
    """PostgreSQL 18 reports it, as a list that must come back as one."""
    pooler = make_pooler(default_pool_size=1, track_extra_parameters="IntervalStyle, search_path")
    with pooler.wire() as first, pooler.wire() as second:
        if "search_path" not in first.parameters:
            pytest.skip("this PostgreSQL does not report search_path")
        second.ask("SET search_path = pg_catalog")
        for value in ('"$user", public', "pg_catalog, \"Odd, 'name'\"", "''", '"a""b"'):
            first.ask(f"SET search_path = {value}")
            assert second.ask("SHOW search_path") == [[b"pg_catalog"]]
            shown = value.encode().replace(b"''", b'""')
            assert first.ask("SHOW search_path") == [[shown]]


def test_the_host_is_added_to_the_application_name_where_asked(make_pooler: MakePooler) -> None:
    pooler = make_pooler(application_name_add_host=1)
    with pooler.wire(application_name="shop") as client:
        ((name,),) = client.ask("SHOW application_name")
        assert name is not None
        assert name.startswith(b"shop - 127.0.0.1:")


def test_options_are_read_as_postgresql_reads_them(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    options = r"-cTimeZone=Asia/Tokyo --application-name=a\ name\\ -c DateStyle=German"
    with pooler.wire(options=options, datestyle="SQL") as client:
        assert client.ask("SHOW TimeZone") == [[b"Asia/Tokyo"]]
        assert client.ask("SHOW application_name") == [[b"a name\\"]]
        assert client.ask("SHOW DateStyle") == [[b"SQL, MDY"]], "a parameter of its own beats the same one in options"
    for wrong, text in (("-c work_mem=1", "unsupported startup parameter in options: work_mem"), ("-x", "only '-c")):
        with pytest.raises(LoginRefused, match=text), WireClient(pooler.port) as client:
            client.log_in("alice", "app", SECRETS["alice"], options=wrong)


def test_options_with_a_tracked_variable_are_honoured(make_pooler: MakePooler) -> None:
    pooler = make_pooler(ignore_startup_parameters="geqo")
    with pooler.wire(options="-c TimeZone=Asia/Tokyo -c geqo=off") as client:
        assert client.ask("SHOW TimeZone") == [[b"Asia/Tokyo"]]
