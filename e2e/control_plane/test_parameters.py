"""CloudNativePG's 58 parameters at the real API server: each is taken, each is held to its type, and no mistake moves a pod."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)

from pgweir.settings import Kind, SettingInfo, Support
from pgweir_operator.api.parameters import PARAMETERS
from pgweir_operator.kube import InvalidError

# As CloudNativePG's webhook lists them.
_NAMES = """
application_name_add_host auth_type auth_user autodb_idle_timeout cancel_wait_timeout client_idle_timeout
client_login_timeout client_tls_ciphers client_tls_sslmode client_tls13_ciphers default_pool_size disable_pqexec
dns_max_ttl dns_nxdomain_ttl idle_transaction_timeout ignore_startup_parameters listen_backlog log_connections
log_disconnections log_pooler_errors log_stats max_client_conn max_db_connections max_packet_size
max_prepared_statements max_user_connections min_pool_size pkt_buf query_timeout query_wait_timeout reserve_pool_size
reserve_pool_timeout sbuf_loopcnt server_check_delay server_check_query server_connect_timeout server_fast_close
server_idle_timeout server_lifetime server_login_retry server_reset_query server_reset_query_always server_round_robin
server_tls_ciphers server_tls13_ciphers server_tls_protocols server_tls_sslmode stats_period suspend_timeout
tcp_defer_accept tcp_socket_buffer tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl tcp_user_timeout
track_extra_parameters verbose
"""
COMPATIBLE = _NAMES.split()
# Python's ssl has no way to set them: refused with that sentence (docs/differences.md).
REFUSED = {"client_tls13_ciphers", "server_tls13_ciphers"}
FOREIGN = ["listen_addr", "listen_port", "auth_file", "logfile", "unix_socket_dir", "admin_users", "no_such_setting"]

GOOD = {Kind.INT: "2", Kind.TIME: "0.5", Kind.BOOL: "1", Kind.LIST: "DateStyle,TimeZone"}
OF_ITS_OWN = {"auth_type": "scram-sha-256", "client_tls_ciphers": "default", "server_tls_ciphers": "default"}
BAD = {Kind.INT: "many", Kind.TIME: "5s", Kind.BOOL: "yes", Kind.ENUM: "nonsense"}


def good(info: SettingInfo) -> str:
    return OF_ITS_OWN.get(info.name) or GOOD.get(info.kind) or (info.choices[0] if info.choices else "text")


def bad(info: SettingInfo) -> str:
    """Of another type; where any text will do, one of two lines."""
    return BAD.get(info.kind) or ("nonsense" if info.choices or info.support is Support.REFUSED else "a\nb")


def test_the_58_are_known_and_only_the_two_that_python_cannot_set_are_refused() -> None:
    assert len(COMPATIBLE) == 58
    assert [name for name in COMPATIBLE if name not in PARAMETERS] == []
    assert {name for name in COMPATIBLE if PARAMETERS[name].support is Support.REFUSED} == REFUSED


def test_each_of_the_58_is_accepted_and_all_of_them_together(ready: Any) -> None:  # noqa: F811
    taken = [name for name in COMPATIBLE if name not in REFUSED]
    for name in taken:
        ready.pooler(parameters={name: good(PARAMETERS[name])})
    parameters = {name: good(PARAMETERS[name]) for name in taken}
    ready.pooler(parameters=parameters)
    assert ready.get("Pooler", "pooler")["spec"]["pgbouncer"]["parameters"] == parameters
    assert ready.until("ConfigurationApplied", "True")
    assert ready.condition("Ready")[1] != "InvalidSpec"


def test_58_bad_values_are_refused_by_their_paths_and_the_running_fleet_hears_of_none(ready: Any) -> None:  # noqa: F811
    before = (ready.revision(), ready.files(), ready.get("Deployment", "pooler")["spec"])
    generation = ready.get("Pooler", "pooler")["metadata"]["generation"]
    pushes = {fake.name: fake.asked.count("PUT /v1/configuration") for fake in ready.fakes()}
    for name in COMPATIBLE:
        with pytest.raises(InvalidError) as caught:
            ready.pooler(parameters={name: bad(PARAMETERS[name])})
        message = caught.value.message
        assert f"spec.pgbouncer.parameters.{name}" in message or f"spec.pgbouncer.parameters.[{name}]" in message, name
    assert ready.get("Pooler", "pooler")["metadata"]["generation"] == generation
    assert (ready.revision(), ready.files(), ready.get("Deployment", "pooler")["spec"]) == before
    assert {fake.name: fake.asked.count("PUT /v1/configuration") for fake in ready.fakes()} == pushes
    assert ready.condition("Ready")[0] == "True"


def test_another_name_is_refused_by_name(world: Any) -> None:
    for name in FOREIGN:
        with pytest.raises(InvalidError, match=f"unknown or reserved parameters: {name}"):
            world.pooler(parameters={name: "1"})
