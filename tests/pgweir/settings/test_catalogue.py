"""The catalogue of settings.

Plan: the catalogue is PgBouncer's, name by name; each default parses to itself; each edge of each range holds and
one step beyond is refused with a sentence; text becomes values as C would read it.
"""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.settings import (
    DATABASE_SETTINGS,
    PEER_SETTINGS,
    SETTINGS,
    USER_SETTINGS,
    DatabaseSettings,
    Kind,
    ReloadClass,
    SettingError,
    SettingInfo,
    Settings,
    Support,
    changed_settings,
    format_value,
    parse_value,
    show_order,
)
from pgweir.settings.reference import settings_reference

EVERY = [
    pytest.param(info, id=f"{section}-{info.name}")
    for section, catalogue in [
        ("pgbouncer", SETTINGS),
        ("databases", DATABASE_SETTINGS),
        ("users", USER_SETTINGS),
        ("peers", PEER_SETTINGS),
    ]
    for info in catalogue.values()
]
NUMBERS = [param for param in EVERY if param.values[0].kind in (Kind.INT, Kind.TIME)]  # type: ignore[union-attr]

RESTART = [
    "disable_pqexec",
    "job_name",
    "listen_addr",
    "listen_backlog",
    "listen_port",
    "pidfile",
    "pkt_buf",
    "resolv_conf",
    "service_name",
    "so_reuseport",
    "track_extra_parameters",
    "unix_socket_dir",
    "unix_socket_group",
    "unix_socket_mode",
    "user",
]


# Beside PgBouncer's: what clients' libraries and pgpool's users ask for.
OURS = {
    "auth_query_cache_time",
    "client_idle_limit",
    "client_overflow",
    "keep_server_of_lost_client",
    "max_server_connections",
    "reserved_connections",
    "server_tls_sslnegotiation",
    "startup_parameters",
    "target_session_attrs",
    "uncached_databases",
}


def test_there_are_the_101_settings_of_pgbouncer_and_a_few_of_ours():
    assert len(SETTINGS.keys() - OURS) == 101
    assert SETTINGS.keys() >= OURS


def test_what_needs_a_restart_is_what_needs_one_in_pgbouncer():
    assert sorted(name for name, info in SETTINGS.items() if info.reload is ReloadClass.RESTART) == RESTART


def test_show_config_is_alphabetical_but_for_pool_mode():
    names = [info.name for info in show_order()]
    assert names.index("pool_mode") == names.index("pool_idle_timeout") - 1
    names.remove("pool_mode")
    assert names == sorted(names)
    assert "service_name" not in names


@pytest.mark.parametrize("info", EVERY)
def test_every_setting_says_what_it_means(info: SettingInfo):
    assert info.meaning.endswith(".")
    assert info.expected
    assert (info.support is Support.WORKS) == (not info.support_note)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_written_out_is_the_default(name: str):
    info = SETTINGS[name]
    if info.support is not Support.REFUSED and info.default_text is not None:
        assert parse_value(info, info.default_text) == info.default == getattr(Settings(), name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_printed_value_reads_back_as_the_same_value(name: str):
    info = SETTINGS[name]
    printed = format_value(info, info.default)
    if info.support is not Support.REFUSED and printed is not None:
        assert parse_value(info, printed) == info.default


@pytest.mark.parametrize("info", NUMBERS)
def test_the_edges_of_a_range_hold_and_one_step_beyond_is_refused_with_a_sentence(info: SettingInfo):
    assert parse_value(info, str(info.maximum)) == info.maximum
    with pytest.raises(SettingError, match=rf"^{info.name} = .*from {info.minimum} to {info.maximum}"):
        parse_value(info, str(info.maximum + 1))
    if info.unset_below is None:
        assert parse_value(info, str(info.minimum)) == info.minimum
        with pytest.raises(SettingError, match=f"from {info.minimum} to {info.maximum}"):
            parse_value(info, str(info.minimum - 1))
    else:
        assert parse_value(info, str(info.unset_below - 1)) is None


@pytest.mark.parametrize("info", [param for param in EVERY if param.values[0].kind is Kind.ENUM])  # type: ignore[union-attr]
def test_a_word_is_read_in_any_case_and_an_unknown_one_names_the_known_ones(info: SettingInfo):
    for choice in set(info.choices) - set(info.refused_choices):
        assert parse_value(info, choice.upper()) == choice
    with pytest.raises(SettingError, match=f"write one of .*{info.choices[0]}"):
        parse_value(info, "sometimes")


@pytest.mark.parametrize(
    ("text", "number"),
    [("10", 10), ("+10", 10), ("0x1F", 31), ("0777", 511), ("0", 0), ("00", 0)],
)
def test_whole_numbers_are_read_as_c_reads_them(text: str, number: int):
    assert parse_value(SETTINGS["max_client_conn"], text) == number


@pytest.mark.parametrize("text", ["", "ten", "10s", "1.5", "08", "0x", "1_000", "१", "1e3", "--1", "9" * 5000])
def test_what_c_would_not_read_whole_is_no_number(text: str):
    with pytest.raises(SettingError, match="write a whole number"):
        parse_value(SETTINGS["max_client_conn"], text)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("1.5", 1.5), (".5", 0.5), ("3.", 3.0), ("1e2", 100.0)])
def test_times_are_seconds_with_decimals(text: str, seconds: float):
    value = parse_value(SETTINGS["query_timeout"], text)
    assert value == seconds
    assert isinstance(value, float)


@pytest.mark.parametrize("text", ["", "5s", "1,5", "-1", "nan", "inf", "1e999", "1_0", "5 m"])
def test_what_is_no_time_says_how_to_write_one(text: str):
    with pytest.raises(SettingError, match="write seconds as a number"):
        parse_value(SETTINGS["query_timeout"], text)


@pytest.mark.parametrize("text", ["2", "-1", "on", "true", ""])
def test_a_switch_is_0_or_1(text: str):
    with pytest.raises(SettingError, match="write 0 or 1"):
        parse_value(SETTINGS["log_stats"], text)


def test_lists_are_split_at_commas():
    assert parse_value(SETTINGS["admin_users"], " a, b ,,c") == ("a", "b", "c")
    assert parse_value(SETTINGS["admin_users"], "") == ()


def test_tls_versions_are_known_words():
    assert parse_value(SETTINGS["client_tls_protocols"], "tlsv1.2, tlsv1.3") == "tlsv1.2, tlsv1.3"
    with pytest.raises(SettingError, match=r"write one or more of tlsv1\.0"):
        parse_value(SETTINGS["client_tls_protocols"], "ssl3")


def test_what_is_refused_says_why():
    with pytest.raises(SettingError, match=r"TLS 1\.3 cipher suites cannot be chosen"):
        parse_value(SETTINGS["client_tls13_ciphers"], "TLS_AES_128_GCM_SHA256")
    with pytest.raises(SettingError, match="pam is not supported here: write one of any, trust"):
        parse_value(SETTINGS["auth_type"], "pam")


@pytest.mark.parametrize(
    ("name", "value", "printed"),
    [
        ("unix_socket_mode", 0o777, "511"),
        ("query_wait_timeout", 120.0, "120"),
        ("query_wait_timeout", 0.25, "0.25"),
        ("log_stats", True, "1"),
        ("auth_user", None, None),
        ("admin_users", ("a", "b"), "a,b"),
    ],
)
def test_values_print_as_show_config_prints_them(name: str, value: object, printed: str | None):
    assert format_value(SETTINGS[name], value) == printed


def test_a_password_is_never_part_of_a_repr():
    assert "hunter2" not in repr(DatabaseSettings(name="app", password="hunter2"))


def test_changes_are_split_by_what_it_takes_to_apply_them():
    old = Settings()
    new = dataclasses.replace(old, listen_port=5432, pool_mode="transaction", default_pool_size=5)
    changed = changed_settings(old, new)
    assert changed.reload == ("default_pool_size", "pool_mode")
    assert changed.restart == ("listen_port",)
    assert changed_settings(old, Settings()) == changed_settings(new, new)


@given(st.sampled_from(sorted(SETTINGS)), st.text())
def test_noise_gets_a_setting_error_and_nothing_else(name: str, text: str):
    with contextlib.suppress(SettingError):
        parse_value(SETTINGS[name], text)


def test_the_reference_page_is_what_the_catalogue_says():
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_reference(), (
        "write it anew: python -m pgweir.settings > docs/settings.md"
    )
