"""First bytes: TLS, cancel, startup or noise; then the parameters, each with someone who answers for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pgweir.protocol.three_ways import three_ways

from pgweir.protocol import messages
from pgweir.protocol.errors import ClientError, ProtocolError
from pgweir.protocol.startup import (
    CancelRequest,
    DirectTls,
    GssEncRequest,
    Replication,
    SslRequest,
    Startup,
    StartupEvent,
    StartupParameters,
    StartupPlan,
    StartupReader,
    application_name_with_host,
    negotiate,
    parse_options,
    split_parameters,
)

TRACKED = ("DateStyle", "client_encoding", "TimeZone", "standard_conforming_strings", "application_name")


def read(chunks: list[bytes]) -> tuple[StartupEvent, bytes]:
    reader = StartupReader()
    for chunk in chunks[:-1]:
        assert reader.feed(chunk) is None
    event = reader.feed(chunks[-1])
    assert event is not None
    rest = event.rest
    # Events are compared without what came behind them.
    match event:
        case SslRequest():
            return SslRequest(b""), rest
        case GssEncRequest():
            return GssEncRequest(b""), rest
        case CancelRequest(key, _):
            return CancelRequest(key, b""), rest
        case Startup(minor, parameters, _):
            return Startup(minor, parameters, b""), rest
    raise AssertionError(event)


class TestFirstBytes:
    @pytest.mark.parametrize(
        ("packet", "event"),
        [
            (messages.ssl_request(), SslRequest(b"")),
            (messages.gssenc_request(), GssEncRequest(b"")),
            (messages.cancel_request(b"12345678"), CancelRequest(b"12345678", b"")),
            (messages.cancel_request(b"1234" + b"k" * 32), CancelRequest(b"1234" + b"k" * 32, b"")),
            (messages.startup_message({"user": "u", "database": "d"}), Startup(0, {"user": "u", "database": "d"}, b"")),
            (messages.startup_message({}, messages.PROTOCOL_3_2), Startup(2, {}, b"")),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_each_kind_is_read_three_ways(self, packet: bytes, event: StartupEvent) -> None:
        assert three_ways(read, packet) == event

    def test_a_tls_hello_is_known_by_its_first_byte(self) -> None:
        assert StartupReader().feed(b"\x16") == DirectTls(b"\x16")
        assert StartupReader().feed(b"\x16\x03\x01hello") == DirectTls(b"\x16\x03\x01hello")

    def test_after_an_ssl_request_the_same_reader_reads_the_startup(self) -> None:
        reader = StartupReader()
        assert reader.feed(messages.ssl_request()) == SslRequest(b"")
        assert reader.feed(messages.startup_message({"user": "u"})) == Startup(0, {"user": "u"}, b"")

    def test_bytes_sent_in_clear_text_before_tls_are_shown_to_the_caller(self) -> None:
        assert StartupReader().feed(messages.ssl_request() + b"injected") == SslRequest(b"injected")

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"GET / HTTP/1.1\r\n", "bad packet header: '474554202f204854'"),
            (b"\0\0\0\x07\0\x03\0\0", "bad packet header: '0000000700030000'"),
            (b"\0\0\0\x08\0\x04\0\0", "bad packet header: '0000000800040000'"),
            (b"\0\0\0\x09\x04\xd2\x16\x2fx", "bad packet header: '0000000904d2162f'"),
            (b"\0\0\0\x0c\x04\xd2\x16\x2eabcd", "bad packet header: '0000000c04d2162e'"),
            (b"\0\x01\0\0\0\x03\0\0", "bad packet header: '0001000000030000'"),
            (b"\0\0\0\x10\0\x02\0\0", "old V2 protocol not supported"),
            (b"\0\0\0\x08\0\x03\0\0", "invalid startup packet layout: expected terminator as last byte"),
            (b"\0\0\0\x0a\0\x03\0\0\0x", "invalid startup packet layout: expected terminator as last byte"),
            (b"\0\0\0\x0e\0\x03\0\0user\0\0", "invalid startup packet layout: expected terminator as last byte"),
            (b"\0\0\0\x0c\0\x03\0\0user", "invalid startup packet layout: expected terminator as last byte"),
        ],
    )
    def test_what_is_no_startup_is_refused_in_the_known_words(self, data: bytes, text: str) -> None:
        with pytest.raises(ProtocolError) as raised:
            StartupReader().feed(data)
        assert raised.value.message == text

    @given(st.lists(st.binary(max_size=60), max_size=5))
    def test_noise_gets_a_protocol_error_and_nothing_else(self, chunks: list[bytes]) -> None:
        reader = StartupReader()
        try:
            for chunk in chunks:
                reader.feed(chunk)
        except ProtocolError:
            pass

    @given(st.binary(max_size=60))
    def test_noise_in_the_parameters_gets_a_protocol_error_and_nothing_else(self, noise: bytes) -> None:
        try:
            event = StartupReader().feed((len(noise) + 8).to_bytes(4, "big") + b"\0\x03\0\0" + noise)
        except ProtocolError:
            return
        assert isinstance(event, Startup)


class TestNegotiation:
    @pytest.mark.parametrize("minor", [0, 2])
    def test_what_we_speak_needs_none(self, minor: int) -> None:
        assert negotiate(Startup(minor, {"user": "u"}, b"")) == (minor, b"")

    @pytest.mark.parametrize(("asked", "spoken"), [(1, 0), (3, 2), (9999, 2), (65535, 2)])
    def test_any_other_version_is_brought_down_to_one_that_exists(self, asked: int, spoken: int) -> None:
        owed = messages.negotiate_protocol_version(spoken, [])
        assert negotiate(Startup(asked, {"user": "u"}, b"")) == (spoken, owed)

    @pytest.mark.parametrize(("asked", "spoken"), [(0, 0), (1, 0), (2, 2), (3, 2)])
    def test_protocol_options_are_named_as_unknown(self, asked: int, spoken: int) -> None:
        startup = Startup(asked, {"user": "u", "_pq_.a": "1", "_pq_.b": "2"}, b"")
        assert negotiate(startup) == (spoken, messages.negotiate_protocol_version(spoken, ["_pq_.a", "_pq_.b"]))


def plan(mode: StartupParameters = "reject", ignored: tuple[str, ...] = (), /, **parameters: str) -> StartupPlan:
    return split_parameters(Startup(0, {"user": "u", **parameters}, b""), TRACKED, ignored, mode)


def refusal(mode: StartupParameters = "reject", ignored: tuple[str, ...] = (), /, **parameters: str) -> str:
    with pytest.raises(ClientError) as raised:
        plan(mode, ignored, **parameters)
    return f"{raised.value.sqlstate} {raised.value.message}"


class TestParameters:
    def test_the_database_is_named_like_the_user_unless_given(self) -> None:
        assert (plan().user, plan().database, plan(database="").database) == ("u", "u", "u")
        assert plan(database="d").database == "d"

    def test_a_user_must_be_named_and_not_too_long(self) -> None:
        assert refusal(user="") == "28000 no username supplied"
        assert refusal(user="ü" * 64) == "28000 username too long"
        assert plan(user="u" * 127).user == "u" * 127

    def test_tracked_parameters_become_variables_under_their_proper_spelling(self) -> None:
        made = plan(datestyle="ISO", TIMEZONE="UTC", application_name="app")
        assert made.variables == {"DateStyle": "ISO", "TimeZone": "UTC", "application_name": "app"}
        assert made.application_name == "app"

    def test_an_unknown_parameter_is_refused_by_name(self) -> None:
        assert refusal(extra_float_digits="2") == "0A000 unsupported startup parameter: extra_float_digits"

    def test_an_ignored_parameter_is_dropped(self) -> None:
        assert plan("reject", ("extra_float_digits",), Extra_Float_Digits="2") == plan()

    def test_the_mode_decides_what_becomes_of_unknown_ones(self) -> None:
        assert plan("ignore", search_path="s") == plan()
        assert plan("relay", search_path="s", options="-c geqo=off").relayed == {"search_path": "s", "geqo": "off"}
        assert plan("relay", ("geqo",), options="-c geqo=off").relayed == {}

    def test_protocol_options_are_no_parameters(self) -> None:
        assert plan(**{"_pq_.x": "1"}) == plan()

    @pytest.mark.parametrize("options", ["-c TimeZone=UTC", "-cTimeZone=UTC", "--timezone=UTC", "  -c  timezone=UTC "])
    def test_options_set_variables_in_each_spelling(self, options: str) -> None:
        assert plan(options=options).variables == {"TimeZone": "UTC"}

    def test_a_parameter_by_itself_beats_the_same_one_in_options(self) -> None:
        assert plan(options="-c TimeZone=UTC", TimeZone="CET").variables == {"TimeZone": "CET"}

    def test_an_unknown_option_is_refused_unless_it_or_options_is_ignored(self) -> None:
        assert refusal(options="-c geqo=off") == "0A000 unsupported startup parameter in options: geqo"
        assert plan("reject", ("geqo",), options="-c geqo=off") == plan()
        made = plan("reject", ("options",), options="-c geqo=off -c DateStyle=ISO")
        assert made.variables == {"DateStyle": "ISO"}

    @pytest.mark.parametrize("options", ["-d", "x", "-c", "-c geqo", "--", "-c =1", "-c TimeZone=UTC -e"])
    def test_other_words_in_options_are_refused(self, options: str) -> None:
        text = "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed"
        assert refusal(options=options) == f"0A000 {text}"
        assert plan("reject", ("options",), options=options).user == "u"

    @pytest.mark.parametrize("value", ["on", "1", "true", "T", "yes", "y"])
    def test_physical_replication_is_a_boolean(self, value: str) -> None:
        assert plan(replication=value).replication is Replication.PHYSICAL

    def test_logical_replication_names_the_database(self) -> None:
        assert plan(replication="database").replication is Replication.LOGICAL

    @pytest.mark.parametrize("value", ["off", "0", "no", "f", ""])
    def test_no_replication_is_false(self, value: str) -> None:
        assert not plan(replication=value).replication

    def test_any_other_replication_is_refused(self) -> None:
        assert refusal(replication="maybe") == '28000 invalid value for parameter "replication": "maybe"'

    def test_options_of_a_replication_client_are_the_servers_to_read(self) -> None:
        made = plan(replication="database", options="-c wal_sender_timeout=0 -B 7")
        assert (made.options_verbatim, made.variables) == ("-c wal_sender_timeout=0 -B 7", {})

    def test_the_client_address_can_be_added_to_its_application_name(self) -> None:
        assert application_name_with_host("psql", "10.0.0.1:5000") == "psql - 10.0.0.1:5000"
        assert application_name_with_host(None, "unix(7@h):5432") == "app - unix(7@h):5432"

    @given(st.binary().map(messages.decode) | st.text("-c=\\ ab"), st.sampled_from(["reject", "ignore", "relay"]))
    def test_noise_in_options_gets_a_client_error_and_nothing_else(self, text: str, mode: StartupParameters) -> None:
        try:
            plan(mode, options=text)
        except ClientError:
            assert mode != "ignore"


class TestOptions:
    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            ("", []),
            (r"-c a=one\ two", [("a", "one two")]),
            (r"-c a=\\x --b=2", [("a", r"\x"), ("b", "2")]),
            ("--statement-timeout=5s", [("statement_timeout", "5s")]),
            ("-c a=b=c", [("a", "b=c")]),
            ("-c a=", [("a", "")]),
        ],
    )
    def test_words_and_escapes_are_postgresqls(self, text: str, settings: list[tuple[str, str]]) -> None:
        assert list(parse_options(text)) == settings
