"""Conversations with the console: what is said, what comes back. No network, no clock."""

from __future__ import annotations

import gc
import struct
import weakref

import pytest
from tests.pgweir.admin.world import ConsoleTalk, HandService
from tests.pooler.wire import bind, close, describe, execute, message, parse, query, sync

from pgweir import VERSION_LINE
from pgweir.admin.encoding import numeric

MUTATING = (
    "PAUSE", "PAUSE app", "RESUME", "KILL", "KILL app", "KILL_CLIENT 1", "RECONNECT", "WAIT_CLOSE", "DISABLE app",
    "ENABLE app", "RELOAD", "SET verbose=1", "SHUTDOWN", "SHUTDOWN WAIT_FOR_CLIENTS", "SUSPEND",
)  # fmt: skip


def types(messages: list[object]) -> str:
    return "".join(each.type for each in messages)  # type: ignore[attr-defined]


def test_the_greeting_is_that_of_a_pooler_which_drivers_know(console: ConsoleTalk) -> None:
    assert types(console.greeting) == "R" + "S" * 8 + "KZ"
    assert b"server_version\x001.25.2/bouncer\0" in [each.body for each in console.greeting]


def test_show_brings_columns_rows_and_the_tag(console: ConsoleTalk) -> None:
    found = console.ask("show version;")
    assert types(found) == "TDCZ"
    assert found[1].values == [VERSION_LINE.encode()]
    assert found[2].body == b"SHOW\0"


def test_help_is_a_notice(console: ConsoleTalk) -> None:
    notice, tag, _ = console.ask("SHOW HELP")
    assert notice.fields["M"] == "Console usage"
    assert "SHOW WAITERS" in notice.fields["D"]
    assert tag.body == b"SHOW\0"


def test_several_statements_in_one_query_stop_at_the_first_error(console: ConsoleTalk) -> None:
    assert types(console.ask("SHOW STATE; SHOW VERSION")) == "TDDDCTDCZ"
    assert types(console.ask("SHOW VERSION; frob; SHOW VERSION")) == "TDCEZ"
    assert types(console.ask(" ; ")) == "IZ"


@pytest.mark.parametrize(
    ("text", "sqlstate", "words"),
    [
        ("frob", "42601", "invalid command 'frob', use SHOW HELP;"),
        ("SHOW", "42601", "invalid command 'SHOW', use SHOW HELP;"),
        ("SELECT ;", "42601", "invalid command 'SELECT', use SHOW HELP;"),
        ("SHOW nosuch", "42601", "invalid command 'SHOW nosuch', use SHOW HELP;"),
        ("SHUTDOWN foo", "42601", "invalid command 'SHUTDOWN foo', use SHOW HELP;"),
        ("RELOAD x", "42601", "invalid command 'RELOAD x', use SHOW HELP;"),
        ("RESUME", "55000", "pooler is not paused/suspended"),
        ("RESUME app", "55000", "database app is not paused"),
        ("RESUME nosuch", "3D000", "no such database: nosuch"),
        ("RESUME pgbouncer", "55000", "database pgbouncer is not paused"),
        ("PAUSE pgbouncer", "55000", "cannot pause admin db: pgbouncer"),
        ("PAUSE app 5", "42601", "invalid command 'PAUSE app 5', use SHOW HELP;"),
        ("PAUSE app TIMEOUT soon", "42601", "invalid command 'PAUSE app TIMEOUT soon', use SHOW HELP;"),
        ("PAUSE TIMEOUT -1", "42601", "invalid command 'PAUSE TIMEOUT -1', use SHOW HELP;"),
        ("PAUSE TIMEOUT nan", "42601", "invalid command 'PAUSE TIMEOUT nan', use SHOW HELP;"),
        ("PAUSE a TIMEOUT 5 x", "42601", "invalid command 'PAUSE a TIMEOUT 5 x', use SHOW HELP;"),
        ("PAUSE TIMEOUT", "3D000", "no such database: TIMEOUT"),
        ("DISABLE", "42601", "a database is required"),
        ("DISABLE pgbouncer", "55000", "cannot disable admin db: pgbouncer"),
        ("KILL_CLIENT abc", "22023", "invalid client pointer supplied"),
        ("SET nosuch = 1", "42704", "SET failed"),
        ("SET listen_port = 1", "55P02", "SET failed"),
        ("SET pool_mode = everything", "22023", "SET failed"),
        ("SET auth_type = hba", "22023", "SET failed"),
        ("SUSPEND", "0A000", "SUSPEND is not supported: it serves PgBouncer's online restart alone"),
    ],
)
def test_errors_say_what_is_wrong(console: ConsoleTalk, text: str, sqlstate: str, words: str) -> None:
    assert console.error(text) == (sqlstate, words)
    assert types(console.ask("SHOW VERSION")) == "TDCZ"


@pytest.mark.parametrize("text", MUTATING)
def test_who_is_no_admin_changes_nothing(service: HandService, text: str) -> None:
    console = service.console(user="stats", admin=False)
    assert console.error(text) == ("42501", "insufficient privilege")
    assert not service.pooler.paused
    assert not service.shutdowns
    assert types(console.ask("SHOW POOLS"))[0] == "T"


def test_set_takes_effect_under_the_rules_of_the_file(service: HandService, console: ConsoleTalk) -> None:
    assert console.tag("SET Default_Pool_Size = 7") == "SET default_pool_size=7"
    assert service.pooler.settings.default_pool_size == 7
    found = console.ask("SET client_tls_sslmode = require")
    assert "client_tls_cert_file" in found[0].fields["D"]
    assert service.pooler.settings.client_tls_sslmode == "disable"


def test_what_drivers_set_is_ignored_with_a_notice(console: ConsoleTalk) -> None:
    assert console.ask("SET extra_float_digits = 3")[0].fields["M"] == "SET ignored"
    console.ask("SET application_name = 'me'")
    assert console.session.application_name == "me"
    assert console.ask("SHOW timezone")[1].values == [b"GMT"]


def test_pause_answers_when_no_server_is_held(service: HandService, console: ConsoleTalk) -> None:
    server = service.server()
    holder = service.client()
    service.begin(holder)
    assert console.ask("PAUSE") == []
    assert console.ask("SHOW STATE") == []  # it waits behind
    server.query_open = False
    server.release(service.edge.now)
    assert types(console.wire.messages()) == "CZTDDDCZ"
    assert console.error("PAUSE") == ("55000", "already suspended/paused")
    assert console.tag("RESUME") == "RESUME"


@pytest.mark.parametrize(("text", "name"), [("PAUSE TIMEOUT 5", None), ("PAUSE app timeout 5.0", "app")])
def test_a_pause_with_a_deadline_is_taken_back_and_says_who_held(
    service: HandService, console: ConsoleTalk, text: str, name: str | None
) -> None:
    service.server(pid=77)
    holder, waiter = service.client(application_name="report"), service.client()
    service.begin(holder)
    service.edge.now += 10
    assert console.ask(text) == []
    service.edge.now += 4.9
    service.operations.tick()
    assert console.wire.messages() == []
    waiter.data_received(b"Q\0\0\0\x05\0")
    service.edge.now += 0.2
    service.operations.tick()
    error, _ready = console.wire.messages()
    assert (error.fields["C"], error.fields["M"]) == (
        "55P03",
        "PAUSE was not complete after 5 s; everything goes on as before",
    )
    held = f"client {holder.id} (alice, report, 10.9.9.9:4444) holds server pid 77 for 15 s"
    assert error.fields["D"] == held
    assert not any(pool.paused for pool in service.pooler.pools.values())
    assert service.edge.connects, "whoever came during the pause gets a server"
    assert not service.pooler.on_server_gone
    assert console.error("RESUME" if name is None else f"RESUME {name}")[0] == "55000"


def test_a_pause_that_is_complete_forgets_its_deadline(service: HandService, console: ConsoleTalk) -> None:
    server = service.server()
    service.begin(service.client())
    console.ask("PAUSE TIMEOUT 5")
    server.query_open = False
    server.release(service.edge.now)
    assert types(console.wire.messages()) == "CZ"
    service.edge.now += 60
    service.operations.tick()
    assert service.pooler.paused


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_console_that_gives_up_takes_its_deadline_with_it(
    service: HandService, console: ConsoleTalk, how: str
) -> None:
    service.server()
    service.begin(service.client())
    console.ask("PAUSE TIMEOUT 5")
    if how == "cancel":
        console.session.cancel()
    else:
        console.session.connection_lost(None)
    assert service.pooler.paused is (how == "leave")
    paused = service.pooler.paused
    service.edge.now += 60
    service.operations.tick()
    assert service.pooler.paused is paused


def test_what_is_paused_by_name_is_resumed_by_name_alone(service: HandService, console: ConsoleTalk) -> None:
    """As in PgBouncer: a global RESUME undoes a global PAUSE, and no more."""
    pool = service.client().pool
    console.ask("PAUSE app; PAUSE; RESUME")
    assert pool.paused
    console.ask("PAUSE")
    assert console.tag("RESUME app") == "RESUME"
    assert pool.paused
    console.ask("RESUME")
    assert not pool.paused


@pytest.mark.parametrize("text", ["PAUSE", "PAUSE app", "KILL", "KILL app"])
def test_nothing_is_paused_or_killed_inside_a_pause(console: ConsoleTalk, text: str) -> None:
    console.ask("PAUSE")
    assert console.error(text) == ("55000", "already suspended/paused")


def test_kill_leaves_its_databases_paused(service: HandService, console: ConsoleTalk) -> None:
    client = service.client()
    assert console.tag("KILL") == "KILL"
    assert client not in service.pooler.clients
    assert console.error("RESUME")[0] == "55000"
    assert console.tag("RESUME app") == "RESUME"


def test_while_it_shuts_down_a_database_can_be_resumed_and_the_pooler_cannot(
    service: HandService, console: ConsoleTalk
) -> None:
    console.tag("PAUSE app")
    service.stopping = True
    assert console.error("RESUME") == ("55000", "pooler is shutting down")
    assert console.tag("RESUME app") == "RESUME", "its clients could never leave"


def test_who_comes_to_wait_while_the_pooler_waits_for_servers_is_refused(service: HandService) -> None:
    service.server()
    service.begin(service.client())
    service.operations.pause()
    service.operations.refuse_waiting()
    late = service.client()
    late.data_received(b"Q\0\0\0\x05\0")
    service.operations.tick()
    (goodbye,) = late.wire.messages()
    assert (goodbye.fields["C"], goodbye.fields["M"]) == ("57P01", "server shutting down")


def test_a_pause_ended_by_somebody_else_does_not_leave_its_caller_hanging(service: HandService) -> None:
    service.server()
    service.begin(service.client())
    first, second = service.console(), service.console()
    first.ask("PAUSE app")
    second.tag("RESUME app")
    (error, ready) = first.wire.messages()
    assert (error.fields["C"], ready.type) == ("57014", "Z")


@pytest.mark.parametrize("command", ["PAUSE", "PAUSE app", "PAUSE app TIMEOUT 5"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_console_that_paused_leaves_nothing_for_the_collector(
    service: HandService, command: str, waits: bool
) -> None:
    if waits:
        service.server()
        service.begin(service.client())
    gc.disable()
    try:
        talk = service.console()
        console = weakref.ref(talk.wire)
        talk.ask(command)
        if waits:
            service.console().ask("RESUME" if command == "PAUSE" else "RESUME app")
        talk.session.connection_lost(None)
        del talk
        assert console() is None
    finally:
        gc.enable()


def test_a_cancel_request_ends_the_wait_and_resumes(service: HandService, console: ConsoleTalk) -> None:
    service.server()
    service.begin(service.client())
    console.ask("PAUSE")
    told: list[bool] = []
    service.pooler.cancels.request(console.session.cancel_key, lambda: told.append(True))
    (error, _ready) = console.wire.messages()
    assert error.fields["C"] == "57014"
    assert told == [True]
    assert not service.pooler.paused


def test_a_console_that_goes_leaves_its_pause(service: HandService, console: ConsoleTalk) -> None:
    service.server()
    service.begin(service.client())
    console.ask("PAUSE")
    console.session.connection_lost(None)
    assert service.pooler.paused
    assert not service.pooler.on_server_gone
    assert not service.pooler.cancels.console_keys
    assert not service.consoles.sessions


def test_wait_close_answers_when_the_marked_servers_are_gone(service: HandService, console: ConsoleTalk) -> None:
    server = service.server()
    service.begin(service.client())
    assert console.tag("RECONNECT app") == "RECONNECT"
    assert console.ask("WAIT_CLOSE app") == []
    server.query_open = False
    server.release(service.edge.now)
    assert types(console.wire.messages()) == "CZ"


def test_reload_says_what_is_wrong_with_the_file(service: HandService, console: ConsoleTalk) -> None:
    service.config_path.write_text("[pgbouncer]\npool_mode = everything\n")
    error = console.ask("RELOAD")[0]
    assert error.fields["C"] == "F0000"
    assert error.fields["M"] == "RELOAD failed, see logs for additional details"
    assert "pool_mode" in error.fields["D"]


def test_kill_client_takes_the_id_that_show_clients_prints(service: HandService, console: ConsoleTalk) -> None:
    client = service.client()
    assert console.tag(f"KILL_CLIENT {client.id}") == "KILL_CLIENT"
    assert client not in service.pooler.clients
    assert console.error(f"KILL_CLIENT {client.id}") == ("42704", "client not found")


def test_a_console_can_be_killed_like_any_client(service: HandService, console: ConsoleTalk) -> None:
    other = service.console()
    assert console.tag(f"KILL_CLIENT {other.session.id}") == "KILL_CLIENT"
    (goodbye,) = other.wire.messages()
    assert (goodbye.fields["S"], goodbye.fields["C"]) == ("FATAL", "57P01")
    assert other.wire.closed
    assert service.consoles.sessions == {console.session}


def test_shutdown_without_a_word_answers_by_the_end_of_the_connection(
    service: HandService, console: ConsoleTalk
) -> None:
    assert console.ask("SHUTDOWN") == []
    assert service.shutdowns == ["immediate"]
    assert service.console().tag("SHUTDOWN WAIT_FOR_servers") == "SHUTDOWN"
    assert service.shutdowns == ["immediate", "wait_for_servers"]


def test_the_extended_protocol_describes_and_executes(console: ConsoleTalk) -> None:
    found = console.say(parse("s", "SHOW LISTS"), describe("s"), bind("s"), execute(), sync())
    assert types(found) == "1tT2" + "D" * 14 + "CZ"
    found = console.say(parse("", "RESUME"), describe(""), bind(""), execute(), execute(), sync())
    assert types(found) == "1tn2EZ"  # everything behind the error is dropped, up to Sync
    assert types(console.say(close("s"), sync())) == "3Z"
    assert types(console.say(bind("s"), sync())) == "EZ"


def test_results_come_in_binary_when_asked(service: HandService, console: ConsoleTalk) -> None:
    service.consoles.stats.query_count = 123_456_789
    binary = message("B", b"\0\0" + struct.pack("!hhhh", 0, 0, 1, 1))
    found = console.say(parse("", "SHOW LISTS"), binary, execute(), sync())
    assert found[2].values == [b"databases", struct.pack("!i", 3)]
    found = console.say(parse("", "SHOW STATS_TOTALS"), binary, execute(), sync())
    assert found[2].values[3] == numeric(123_456_791)


def test_numeric_is_postgresqls_own_form() -> None:
    assert numeric(0) == bytes(8)
    assert numeric(12_345_678) == struct.pack("!hhHhhh", 2, 1, 0, 0, 1234, 5678)
    assert numeric(-5) == struct.pack("!hhHhh", 1, 0, 0x4000, 0, 5)


def test_a_word_may_be_a_parameter(service: HandService, console: ConsoleTalk) -> None:
    client = service.client()
    found = console.say(parse("k", "KILL_CLIENT $1", [23]), describe("k"), sync())
    assert types(found) == "1tnZ"
    assert found[1].body == struct.pack("!HI", 1, 23)
    assert types(console.say(bind("k", [str(client.id)]), execute(), sync())) == "2CZ"
    assert client not in service.pooler.clients
    assert types(console.say(parse("", "SHOW $1"), bind("", ["version"]), execute(), sync())) == "12DCZ"
    console.say(parse("", "SET verbose = $1"), bind("", ["2"]), execute(), sync())
    assert service.pooler.settings.verbose == 2


def test_a_parameter_may_come_in_binary(service: HandService, console: ConsoleTalk) -> None:
    client = service.client()
    binary = message("B", b"\0\0" + struct.pack("!hhhihh", 1, 1, 1, 2, client.id, 0))
    assert types(console.say(parse("", "KILL_CLIENT $1", [21]), binary, execute(), sync())) == "12CZ"


@pytest.mark.parametrize(
    ("declared", "values", "sqlstate"),
    [([], [], "08P01"), ([25, 25], ["a", "b"], "42P02"), ([25], [None], "22004")],
)
def test_parameters_that_do_not_fit_are_an_error(
    console: ConsoleTalk, declared: list[int], values: list[str | None], sqlstate: str
) -> None:
    found = console.say(parse("", "PAUSE $1", declared), bind("", values), execute(), sync())
    assert [each.fields["C"] for each in found if each.type == "E"] == [sqlstate]


def test_a_simple_query_has_no_parameters(console: ConsoleTalk) -> None:
    assert console.error("PAUSE $1") == ("42P02", "there is no parameter $1")
    assert console.error('PAUSE "$1"') == ("3D000", "no such database: $1")


def test_a_driver_may_take_the_rows_a_few_at_a_time(console: ConsoleTalk) -> None:
    """What pgjdbc does with a fetch size."""
    console.ask("BEGIN")
    found = console.say(parse("", "SHOW LISTS"), bind(""), execute(limit=5), sync())
    assert types(found) == "12DDDDDsZ"
    assert types(console.say(execute(limit=5), sync())) == "DDDDDsZ"
    assert types(console.say(execute(limit=5), sync())) == "DDDDCZ"
    console.ask("COMMIT")


def test_several_statements_have_no_place_in_a_prepared_one(console: ConsoleTalk) -> None:
    assert console.say(parse("", "SHOW LISTS; RELOAD"), sync())[0].fields["C"] == "42601"


def test_begin_and_commit_are_kept_apart_for_drivers(console: ConsoleTalk) -> None:
    assert console.ask("BEGIN")[-1].body == b"T"
    assert console.ask("SHOW VERSION")[-1].body == b"T"
    assert console.ask("COMMIT")[-1].body == b"I"


def test_a_conversation_may_come_byte_by_byte(console: ConsoleTalk) -> None:
    data = query("SHOW STATE") + parse("", "SHOW VERSION") + bind("") + execute() + sync()
    assert types(console.say(*(data[at : at + 1] for at in range(len(data))))) == "TDDDCZ12DCZ"


def test_nonsense_closes_the_connection_with_a_sentence(console: ConsoleTalk) -> None:
    (error,) = console.say(message("?", b"x"))
    assert error.fields["S"] == "FATAL"
    assert console.wire.closed


def test_a_console_that_does_not_read_gets_nothing_more(console: ConsoleTalk) -> None:
    console.session.pause_writing()
    assert console.ask("SHOW VERSION") == []
    console.session.resume_writing()
    assert types(console.wire.messages()) == "TDCZ"
