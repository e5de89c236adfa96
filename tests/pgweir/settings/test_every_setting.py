"""No setting without a test: each one's effect is seen by the tests named here, or its sentence is.

`EFFECTS` names, for each setting that works, the tests that change its value and observe the difference. What is refused or has
no effect is tested here, by its sentence.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from pgweir.config import ConfigError, load
from pgweir.settings import DATABASE_SETTINGS, PEER_SETTINGS, SETTINGS, USER_SETTINGS, Kind, SettingInfo, Support

TESTS: Final = Path(__file__).parents[2]
AS_PGPOOL = "pgweir/session/test_as_pgpool.py::"
CONVERSATIONS = "pgweir/session/test_conversations.py::"
EFFECT = "pgweir/session/test_settings_take_effect.py::"
LEDGER = "pgweir/pool/test_ledger.py::"
LIMITS = "data_plane/test_limits.py::"
LISTENER = "pgweir/net/test_listener.py::"
LOADING = "pgweir/config/test_loading.py::"
LOGIN = "data_plane/test_login.py::"
MODES = "data_plane/test_modes.py::"
MOVES = "pgweir/session/test_moves.py::"
OPENING = "pgweir/session/test_opening.py::"
PROBES = "pgweir/net/test_sockets.py::test_the_probes_and_the_patience_are_as_set"
PROCESS = "data_plane/test_process.py::"
RESOLVER = "pgweir/net/test_resolver.py::"
STANDBY = "pgweir/session/test_standby.py::"
TLS = "data_plane/test_tls.py::"
TLS_CONTEXT = "pgweir/net/test_tls_contexts.py::"
UPKEEP = "pgweir/session/test_upkeep.py::"
PRECEDENCE = LOADING + "test_a_user_wins_over_a_database_and_a_database_over_the_global_value"
ONLY_A_DATABASE = LOADING + "test_what_only_a_database_may_say_wins_over_the_global_value"
ONLY_A_USER = LOADING + "test_what_only_a_user_may_say_wins_over_the_global_value"

EFFECTS: Final[Mapping[str, str]] = {
    # Process, log
    "pidfile": "data_plane/test_process_control.py::"
    "test_a_pidfile_of_a_living_process_is_respected_and_a_stale_one_is_not",
    "user": "pgweir/test_executable.py::test_root_becomes_the_user_that_is_named_and_its_groups_come_first",
    "log_connections": EFFECT + "test_logins_are_logged_as_log_connections_says",
    "log_disconnections": EFFECT + "test_ends_are_logged_as_log_disconnections_says",
    "log_pooler_errors": EFFECT + "test_errors_are_logged_as_log_pooler_errors_says",
    "log_stats": PROCESS + "test_totals_are_logged_every_stats_period_unless_log_stats_is_off",
    "logfile": PROCESS + "test_the_log_file_has_what_standard_error_has",
    "stats_period": PROCESS + "test_totals_are_logged_every_stats_period_unless_log_stats_is_off",
    "verbose": "pgweir/test_log.py::test_verbose_opens_debug_and_noise",
    # Sockets
    "listen_addr": LISTENER + "test_it_listens_on_each_address_of_listen_addr_and_on_listen_port",
    "listen_backlog": "data_plane/test_as_pgpool.py::"
    "test_the_kernels_queue_is_as_long_as_the_backlog_says_or_the_log_tells",
    "listen_port": LISTENER + "test_it_listens_on_each_address_of_listen_addr_and_on_listen_port",
    "max_packet_size": "data_plane/test_failures.py::test_a_message_larger_than_allowed_is_refused",
    "peer_id": "pgweir/session/test_peers.py::test_keys_bear_the_peer_id",
    "so_reuseport": LISTENER + "test_so_reuseport_lets_a_second_process_have_the_same_port",
    "tcp_defer_accept": LISTENER + "test_tcp_defer_accept_waits_for_the_first_byte",
    "tcp_keepalive": "pgweir/net/test_sockets.py::test_a_socket_is_probed_unless_tcp_keepalive_is_off",
    "tcp_keepcnt": PROBES,
    "tcp_keepidle": PROBES,
    "tcp_keepintvl": PROBES,
    "tcp_socket_buffer": "pgweir/net/test_sockets.py::test_tcp_socket_buffer_is_asked_of_the_kernel_both_ways",
    "tcp_user_timeout": PROBES,
    "unix_socket_dir": LISTENER + "test_the_unix_socket_lies_in_its_folder_with_its_mode_and_group",
    "unix_socket_group": LISTENER + "test_the_unix_socket_lies_in_its_folder_with_its_mode_and_group",
    "unix_socket_mode": LISTENER + "test_the_unix_socket_lies_in_its_folder_with_its_mode_and_group",
    # Pools
    "autodb_idle_timeout": CONVERSATIONS + "test_a_database_that_the_template_made_is_forgotten_when_nobody_uses_it",
    "client_overflow": AS_PGPOOL + "test_the_33rd_of_32_waits_and_comes_in_when_one_leaves",
    "default_pool_size": LIMITS + "test_no_more_servers_than_the_pool_size",
    "disable_pqexec": EFFECT + "test_simple_queries_are_refused_where_disable_pqexec_says_so",
    "target_session_attrs": STANDBY + "test_a_client_waits_until_there_is_a_primary_and_nothing_reaches_the_standby",
    "max_client_conn": LIMITS + "test_one_client_too_many_is_refused_by_name_and_the_others_stay",
    "reserved_connections": AS_PGPOOL + "test_of_32_places_with_one_reserved_the_31st_is_served_and_the_32nd_refused",
    "max_db_client_connections": CONVERSATIONS + "test_client_limits_refuse_the_one_too_many",
    "max_server_connections": OPENING + "test_a_process_has_no_more_servers_than_it_may_have_whoever_wants_them",
    "max_db_connections": LIMITS + "test_max_db_connections_holds_over_the_pools_of_a_database",
    "max_prepared_statements": "data_plane/test_prepared.py::"
    "test_the_oldest_statements_leave_the_server_but_not_the_client",
    "max_user_client_connections": CONVERSATIONS + "test_client_limits_refuse_the_one_too_many",
    "max_user_connections": LEDGER + "test_limits_of_the_database_and_the_user",
    "min_pool_size": LIMITS + "test_min_pool_size_is_kept_while_a_client_is_there",
    "pool_idle_timeout": UPKEEP + "test_a_pool_that_nobody_uses_is_forgotten_and_its_numbers_are_kept",
    "pool_mode": MODES + "test_transaction_mode_shares_one_server_among_many_clients",
    "reserve_pool_size": CONVERSATIONS + "test_the_reserve_opens_for_those_who_have_waited",
    "reserve_pool_timeout": OPENING + "test_reserve_pool_timeout_0_switches_the_reserve_off",
    "server_check_delay": CONVERSATIONS + "test_a_server_idle_for_long_is_checked_before_its_next_use",
    "server_check_query": CONVERSATIONS + "test_a_server_idle_for_long_is_checked_before_its_next_use",
    "server_connect_timeout": LIMITS + "test_a_server_that_never_answers_a_login_is_given_up",
    "server_fast_close": MOVES + "test_a_session_goes_on_with_its_server_unless_server_fast_close_says_otherwise",
    "server_idle_timeout": LIMITS + "test_an_idle_server_is_closed_in_time",
    "server_lifetime": LIMITS + "test_an_old_server_is_replaced_between_transactions",
    "server_login_retry": OPENING + "test_when_all_hosts_are_down_there_is_a_pause",
    "server_reset_query": MODES + "test_an_empty_reset_query_resets_nothing",
    "server_reset_query_always": EFFECT + "test_server_reset_query_always_resets_between_transactions",
    "server_round_robin": EFFECT + "test_server_round_robin_takes_idle_servers_in_turn",
    "keep_server_of_lost_client": AS_PGPOOL + "test_the_server_of_a_lost_client_is_kept_or_not_as_the_setting_says",
    "uncached_databases": AS_PGPOOL + "test_the_server_of_an_uncached_database_goes_and_others_stay",
    # Timeouts and notices
    "cancel_wait_timeout": "pgweir/session/test_peers.py::"
    "test_more_cancels_than_connections_wait_their_turn_and_not_for_ever",
    "client_idle_limit": AS_PGPOOL + "test_a_silent_client_is_told_so_with_pgpools_detail",
    "client_idle_timeout": LIMITS + "test_an_idle_client_is_sent_away",
    "client_login_timeout": LIMITS + "test_a_client_that_never_finishes_its_login_is_sent_away",
    "idle_transaction_timeout": LIMITS + "test_an_idle_transaction_is_ended",
    "login_notify_message": EFFECT + "test_login_notify_message_is_a_notice_in_the_greeting",
    "query_timeout": LIMITS + "test_a_query_that_runs_too_long_is_ended",
    "query_wait_notify": CONVERSATIONS + "test_a_queued_client_is_told_once",
    "query_wait_timeout": LIMITS + "test_a_client_that_waits_too_long_is_told_so",
    "transaction_timeout": EFFECT + "test_transaction_timeout_ends_a_transaction_that_goes_on_and_on",
    # Session parameters
    "application_name_add_host": "data_plane/test_variables.py::"
    "test_the_host_is_added_to_the_application_name_where_asked",
    "ignore_startup_parameters": LOGIN + "test_an_unknown_startup_parameter_is_refused_unless_ignored",
    "startup_parameters": "data_plane/test_as_pgpool.py::test_startup_parameters_and_options_reach_the_server",
    "track_extra_parameters": "data_plane/test_variables.py::test_extra_parameters_are_tracked_where_asked",
    # DNS
    "dns_max_ttl": RESOLVER + "test_dns_max_ttl_0_asks_each_time",
    "dns_nxdomain_ttl": RESOLVER + "test_a_failed_look_up_is_not_repeated_before_its_time",
    # Authentication
    "admin_users": "data_plane/test_console.py::test_who_is_no_admin_may_look_or_nothing",
    "auth_dbname": LOGIN + "test_auth_query_looks_up_who_is_not_in_the_userlist",
    "auth_file": LOGIN + "test_libpq_logs_in_with_a_plain_secret_in_the_userlist",
    "auth_hba_file": LOGIN + "test_hba_decides_by_user_and_database",
    "auth_ident_file": "data_plane/test_proof.py::test_a_certificate_logs_in_under_the_name_that_a_map_gives",
    "auth_ldap_options": "data_plane/test_proof.py::"
    "test_auth_type_ldap_and_a_directory_that_is_slow_delays_nobody_else",
    "auth_query": LOGIN + "test_auth_query_looks_up_who_is_not_in_the_userlist",
    "auth_query_cache_time": "pgweir/session/test_lookup.py::test_a_secret_is_kept_for_the_time_that_is_set",
    "auth_type": LOGIN + "test_trust_asks_no_password_but_knows_its_users",
    "auth_user": LOGIN + "test_auth_query_looks_up_who_is_not_in_the_userlist",
    "scram_iterations": EFFECT + "test_scram_iterations_are_those_of_verifiers_made_from_plain_passwords",
    "stats_users": "data_plane/test_console.py::test_who_is_no_admin_may_look_or_nothing",
    # TLS
    "client_tls_ca_file": TLS_CONTEXT + "test_the_authority_of_clients_is_client_tls_ca_file",
    "client_tls_cert_file": TLS + "test_a_client_that_trusts_another_authority_or_name_refuses_the_pooler",
    "client_tls_ciphers": TLS_CONTEXT + "test_the_ciphers_are_those_of_tls_ciphers",
    "client_tls_ecdhcurve": TLS_CONTEXT
    + "test_a_handshake_on_the_chosen_curve_alone_comes_about_with_a_client_that_has_it",
    "client_tls_key_file": TLS_CONTEXT + "test_a_key_that_is_anothers_is_refused",
    "client_tls_protocols": TLS_CONTEXT + "test_the_versions_are_those_of_tls_protocols",
    "client_tls_sslmode": TLS + "test_clear_text_is_refused_where_tls_is_required_and_taken_where_it_is_preferred",
    "server_tls_ca_file": TLS + "test_a_server_that_cannot_prove_itself_gets_no_password",
    "server_tls_cert_file": TLS + "test_the_pooler_shows_its_certificate_to_the_server",
    "server_tls_ciphers": TLS_CONTEXT + "test_the_ciphers_are_those_of_tls_ciphers",
    "server_tls_key_file": TLS_CONTEXT + "test_a_key_that_is_anothers_is_refused",
    "server_tls_protocols": TLS_CONTEXT + "test_the_versions_are_those_of_tls_protocols",
    "server_tls_sslmode": TLS + "test_every_server_mode_with_a_server_that_speaks_tls",
    "server_tls_sslnegotiation": TLS + "test_tls_begins_with_the_first_byte_where_the_negotiation_is_direct",
    # [databases]
    "databases.host": "pgweir/session/test_database.py::test_hosts_take_turns",
    "databases.port": "pgweir/net/test_edge.py::test_a_server_that_answers_joins_the_pool",
    "databases.dbname": EFFECT + "test_a_database_is_reached_at_its_host_and_port_under_its_dbname",
    "databases.user": MODES + "test_a_forced_user_makes_one_pool_for_everybody",
    "databases.password": MODES + "test_a_forced_user_makes_one_pool_for_everybody",
    "databases.auth_user": ONLY_A_DATABASE,
    "databases.auth_query": ONLY_A_DATABASE,
    "databases.auth_dbname": ONLY_A_DATABASE,
    "databases.pool_size": LIMITS + "test_the_size_of_a_database_beats_the_default",
    "databases.min_pool_size": ONLY_A_DATABASE,
    "databases.reserve_pool_size": PRECEDENCE,
    "databases.pool_mode": MODES + "test_the_mode_of_a_user_beats_that_of_the_database_and_that_beats_the_global_one",
    "databases.max_db_connections": ONLY_A_DATABASE,
    "databases.max_db_client_connections": ONLY_A_DATABASE,
    "databases.server_lifetime": ONLY_A_DATABASE,
    "databases.query_wait_timeout": PRECEDENCE,
    "databases.load_balance_hosts": "pgweir/session/test_database.py::test_disable_stays_with_one_until_it_fails",
    "databases.target_session_attrs": STANDBY + "test_of_several_hosts_the_next_one_is_tried_at_once",
    "databases.connect_query": EFFECT + "test_connect_query_runs_first_and_its_failure_is_no_reason_to_close",
    "databases.client_encoding": EFFECT + "test_a_database_starts_its_servers_with_its_own_variables",
    "databases.datestyle": EFFECT + "test_a_database_starts_its_servers_with_its_own_variables",
    "databases.timezone": EFFECT + "test_a_database_starts_its_servers_with_its_own_variables",
    "databases.application_name": EFFECT + "test_a_database_starts_its_servers_with_its_own_variables",
    # [users]
    "users.pool_size": PRECEDENCE,
    "users.reserve_pool_size": PRECEDENCE,
    "users.pool_mode": MODES + "test_the_mode_of_a_user_beats_that_of_the_database_and_that_beats_the_global_one",
    "users.max_user_connections": OPENING + "test_a_user_s_own_limit_is_told_from_the_global_one",
    "users.max_user_client_connections": ONLY_A_USER,
    "users.query_timeout": ONLY_A_USER,
    "users.query_wait_timeout": PRECEDENCE,
    "users.idle_transaction_timeout": ONLY_A_USER,
    "users.transaction_timeout": EFFECT + "test_a_user_of_its_own_time_limits",
    "users.client_idle_timeout": ONLY_A_USER,
    # [peers]
    "peers.host": "pgweir/session/test_peers.py::test_a_key_of_a_peer_goes_to_its_address_with_one_hop_less",
    "peers.port": "pgweir/session/test_peers.py::test_a_key_of_a_peer_goes_to_its_address_with_one_hop_less",
    "peers.pool_size": "pgweir/session/test_peers.py::"
    "test_more_cancels_than_connections_wait_their_turn_and_not_for_ever",
}

EVERY: Final[Mapping[str, SettingInfo]] = {
    prefix + name: info
    for prefix, catalogue in (
        ("", SETTINGS),
        ("databases.", DATABASE_SETTINGS),
        ("users.", USER_SETTINGS),
        ("peers.", PEER_SETTINGS),
    )
    for name, info in catalogue.items()
}
SENTENCES: Final = {name for name, info in EVERY.items() if info.support is not Support.WORKS}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions)


def test_every_setting_has_its_test_or_its_sentence_and_none_has_both():
    assert EFFECTS.keys() | SENTENCES == EVERY.keys()
    assert not EFFECTS.keys() & SENTENCES


@pytest.mark.parametrize("setting", EFFECTS)
def test_the_test_that_is_named_is_there(setting: str):
    path, _, name = EFFECTS[setting].partition("::")
    assert name in names_in(path), f"{setting}: {EFFECTS[setting]} is gone; name the test that took its place"


def another_value(info: SettingInfo) -> str:
    """A value that is not the default."""
    match info.kind:
        case Kind.BOOL:
            return "0" if info.default else "1"
        case Kind.INT | Kind.TIME:
            return f"{(info.default or 0) + 1:g}"
        case Kind.ENUM:
            return next(choice for choice in info.choices if choice != info.default)
    return "something_else"


@pytest.mark.parametrize("name", sorted(name for name in SENTENCES if SETTINGS[name].support is Support.NO_EFFECT))
def test_a_setting_without_effect_loads_with_a_warning_that_says_why(tmp_path: Path, name: str):
    info = SETTINGS[name]
    (tmp_path / "p.ini").write_text(f"[pgbouncer]\n{name} = {another_value(info)}\n")
    (warning,) = load(tmp_path / "p.ini").warnings
    assert warning == f"{tmp_path / 'p.ini'}:2: {name}: this has no effect here. {info.support_note}"
    (tmp_path / "p.ini").write_text(f"[pgbouncer]\n{name} = {info.default_text or ''}\n")
    assert info.default is None or load(tmp_path / "p.ini").warnings == ()


@pytest.mark.parametrize("name", sorted(name for name in SENTENCES if SETTINGS[name].support is Support.REFUSED))
def test_a_setting_that_is_refused_says_why_and_what_to_do(tmp_path: Path, name: str):
    (tmp_path / "p.ini").write_text(f"[pgbouncer]\n{name} = anything\n")
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "p.ini")
    assert (raised.value.line, raised.value.key, raised.value.value) == (2, name, "anything")
    assert raised.value.expected == SETTINGS[name].support_note
    assert raised.value.expected.startswith("remove this line: ")


@pytest.mark.parametrize("name", [name for name, info in SETTINGS.items() if info.refused_choices])
def test_a_word_that_is_refused_names_the_words_that_are_not(tmp_path: Path, name: str):
    for word in SETTINGS[name].refused_choices:
        (tmp_path / "p.ini").write_text(f"[pgbouncer]\n{name} = {word}\n")
        with pytest.raises(ConfigError, match=f"p.ini:2: {name} = '{word}': .*write one of"):
            load(tmp_path / "p.ini")
