"""pgpool.conf and pgbalancer.conf, as a Pooler.

The old pooler has child processes, each with one client and a few cached connections; here are clients and pools. So the two
numbers that decide everything are read together: `num_init_children` clients are served at a time, and
`num_init_children * max_pool` server connections is what a database may ever see.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from pgweir_operator.importing import guc_file
from pgweir_operator.importing.guc_file import Assignment, Unreadable
from pgweir_operator.importing.outcome import NOT_SHOWN, Draft, Fate, Imported
from pgweir_operator.importing.statements import without_abort

# The old pooler's own defaults, where they decide what the new one must be told.
DEFAULTS: Final[Mapping[str, str]] = {
    "num_init_children": "32",
    "max_pool": "4",
    "child_life_time": "300",
    "connection_life_time": "0",
    "connection_cache": "on",
    "reset_query_list": "ABORT; DISCARD ALL",
    "listen_backlog_multiplier": "2",
    "reserved_connections": "0",
}
UNCACHED: Final = "template0,template1,postgres,regression"

_NO_CHILDREN: Final = "one process serves all clients, and there are no children to start, renew or count"
_OPERATOR: Final = "the operator sets it: applications connect to the Pooler's Service on port 5432"
_CERTIFICATES: Final = (
    "certificates come from Secrets: the cluster's are used as they are, spec.pgbouncer.clientTLSSecret names others"
)
_NO_FAILOVER: Final = (
    "the pooler decides no failover: it connects to the Service of the primary, waits while there is none, and goes on"
)
_NO_SPLIT: Final = (
    "queries are not parsed and sent here and there; a second Pooler with `type: ro` serves what may read from replicas"
)
_LOOKUP: Final = "users are looked up in PostgreSQL itself (spec.pgbouncer.authQuery)"
_NO_ADMIN_PORT: Final = "the console inside the pod does this work: `kubectl exec POD -- pgweir-console`"
_LOGS: Final = "log records are JSON lines on standard output"
_NO_PARSER: Final = "queries are passed on as they are, so nothing has to be looked up or rewritten"

# What is said about a setting that has no counterpart; the longest beginning that fits is the one that counts.
_DROPPED: Final[Mapping[str, str]] = {
    "child_max_connections": f"{_NO_CHILDREN}; server_lifetime (an hour) renews the server connections",
    "serialize_accept": "one process accepts, so no crowd wakes for one connection",
    "process_management": _NO_CHILDREN,
    "min_spare_children": _NO_CHILDREN,
    "max_spare_children": _NO_CHILDREN,
    "listen_addresses": _OPERATOR,
    "port": _OPERATOR,
    "unix_socket": _OPERATOR,
    "socket_dir": _OPERATOR,
    "pid_file_name": _OPERATOR,
    "logdir": _OPERATOR,
    "work_dir": _OPERATOR,
    "pcp_": _NO_ADMIN_PORT,
    "pool_passwd": _LOOKUP,
    "allow_clear_text_frontend_auth": _LOOKUP,
    "ssl": _CERTIFICATES,
    "backend_weight": _NO_SPLIT,
    "backend_flag": _NO_FAILOVER,
    "backend_data_directory": _NO_FAILOVER,
    "backend_application_name": _NO_FAILOVER,
    "backend_clustering_mode": _NO_FAILOVER,
    "master_slave": _NO_FAILOVER,
    "replication_mode": _NO_FAILOVER,
    "load_balance_mode": _NO_SPLIT,
    "ignore_leading_white_space": _NO_SPLIT,
    "statement_level_load_balance": _NO_SPLIT,
    "disable_load_balance_on_write": _NO_SPLIT,
    "allow_sql_comments": _NO_SPLIT,
    "primary_routing_query_pattern_list": _NO_SPLIT,
    "read_only_function_list": _NO_SPLIT,
    "write_function_list": _NO_SPLIT,
    "black_": _NO_SPLIT,
    "white_": _NO_SPLIT,
    "database_redirect_preference_list": _NO_SPLIT,
    "app_name_redirect_preference_list": _NO_SPLIT,
    "dml_adaptive_object_relationship_list": _NO_SPLIT,
    "prefer_lower_delay_standby": _NO_SPLIT,
    "delay_threshold": _NO_SPLIT,
    "sr_check_": _NO_FAILOVER,
    "health_check_": _NO_FAILOVER,
    "failover_": _NO_FAILOVER,
    "failback_": _NO_FAILOVER,
    "fail_over_": _NO_FAILOVER,
    "follow_": _NO_FAILOVER,
    "auto_failback": _NO_FAILOVER,
    "detach_false_primary": _NO_FAILOVER,
    "search_primary_node_timeout": _NO_FAILOVER,
    "recovery_": _NO_FAILOVER,
    "client_idle_limit_in_recovery": _NO_FAILOVER,
    "use_watchdog": "Kubernetes keeps the pods running; their Service is what clients know",
    "wd_": "Kubernetes keeps the pods running; their Service is what clients know",
    "heartbeat_": "Kubernetes keeps the pods running; their Service is what clients know",
    "hostname": "Kubernetes keeps the pods running; their Service is what clients know",
    "delegate_": "Kubernetes keeps the pods running; their Service is what clients know",
    "trusted_server": "Kubernetes keeps the pods running; their Service is what clients know",
    "if_": "Kubernetes keeps the pods running; their Service is what clients know",
    "arping_": "Kubernetes keeps the pods running; their Service is what clients know",
    "ping_path": "Kubernetes keeps the pods running; their Service is what clients know",
    "memqcache_": "results of queries are not kept",
    "memory_cache_enabled": "results of queries are not kept",
    "cache_": "results of queries are not kept",
    "log_": _LOGS,
    "logging_collector": _LOGS,
    "syslog_": _LOGS,
    "client_min_messages": _LOGS,
    "notice_per_node_statement": _LOGS,
    "relcache_": _NO_PARSER,
    "check_temp_table": _NO_PARSER,
    "check_unlogged_table": _NO_PARSER,
    "enable_shared_relcache": _NO_PARSER,
    "insert_lock": _NO_PARSER,
    "lobj_lock_table": _NO_PARSER,
    "replicate_select": _NO_PARSER,
    "replication_stop_on_mismatch": _NO_PARSER,
    "enable_consensus_with_half_votes": _NO_FAILOVER,
}
_HBA: Final = (
    "copy the lines of pool_hba.conf to spec.pgbouncer.pg_hba; without any, every user proves a password (md5 or SCRAM)"
)


def import_pgpool(text: str, *, name: str, cluster: str | None = None) -> Imported:
    """A Pooler that does what this file asked for, and what became of each line."""
    draft = Draft()
    said: dict[str, Assignment] = {}
    for item in guc_file.parse(text):
        if isinstance(item, Unreadable):
            draft.tell(item.number, "", item.text, Fate.REFUSED, "this line cannot be read; write name = value")
        else:
            value = NOT_SHOWN if "password" in item.name else item.value
            said[item.name] = replace(item, value=value)  # the last one counts, as it did there
    settings = {key: Assignment(0, key, value) for key, value in DEFAULTS.items()} | said
    _children(draft, settings)
    _cache(draft, settings)
    _overflow(draft, settings)
    for key, item in said.items():
        if key in DEFAULTS:
            continue
        translate = TRANSLATED.get(key)
        if translate is not None:
            translate(draft, item)
        elif key.startswith(("backend_hostname", "backend_port")):
            _backend(draft, item)
        else:
            _drop(draft, item)
    _conflicts(draft, said)
    return draft.finished(name, cluster)


def _number(draft: Draft, item: Assignment, *, least: int = 0) -> int:
    number = guc_file.whole_number(item.value)
    if number is not None and number >= least:
        return number
    _refuse_value(draft, item, f"write a whole number from {least}")
    return max(least, int(DEFAULTS.get(item.name, "0")))


def _refuse_value(draft: Draft, item: Assignment, expected: str) -> None:
    draft.tell(item.number, item.name, item.value, Fate.REFUSED, f"{expected}; the default is used")


def _children(draft: Draft, settings: Mapping[str, Assignment]) -> None:
    item, cached = settings["num_init_children"], settings["max_pool"]
    children, per_child = _number(draft, item, least=1), _number(draft, cached, least=1)
    draft.set(item.number, item.name, item.value, max_client_conn=str(children), default_pool_size=str(children))
    draft.set(cached.number, cached.name, cached.value, max_db_connections=str(children * per_child))
    backlog = settings["listen_backlog_multiplier"]
    queue = _number(draft, backlog, least=1) * children
    draft.set(backlog.number, backlog.name, backlog.value, listen_backlog=str(queue))


def _cache(draft: Draft, settings: Mapping[str, Assignment]) -> None:
    item = settings["connection_cache"]
    cached = guc_file.switch(item.value)
    if cached is None:
        _refuse_value(draft, item, "write on or off")
    if cached is False:
        draft.set(item.number, item.name, item.value, server_lifetime="0")
    else:
        draft.set(item.number, item.name, item.value, uncached_databases=UNCACHED)
    lives = {key: _seconds(draft, settings[key]) for key in ("child_life_time", "connection_life_time")}
    shortest = min((life for life in lives.values() if life), default=0.0)
    for key, life in lives.items():
        if life == shortest:  # both 0: unused connections stay
            draft.set(settings[key].number, key, settings[key].value, server_idle_timeout=_text(shortest))
        else:
            sentence = f"server_idle_timeout = {_text(shortest)} closes unused connections"
            _dropped(draft, settings[key], sentence)
    item = settings["reset_query_list"]
    reset = without_abort(item.value)
    draft.set(item.number, item.name, item.value, server_reset_query=reset, keep_server_of_lost_client="0")


def _overflow(draft: Draft, settings: Mapping[str, Assignment]) -> None:
    item = settings["reserved_connections"]
    reserved = _number(draft, item)
    children = int(draft.parameters["max_client_conn"])
    if reserved >= children:
        _refuse_value(draft, item, f"write less than num_init_children = {children}")
        reserved = 0
    if reserved:
        draft.set(item.number, item.name, item.value, reserved_connections=str(reserved))
    else:
        draft.set(item.number, item.name, item.value, client_overflow="wait")


def _seconds(draft: Draft, item: Assignment, unit: str = "s") -> float:
    found = guc_file.seconds(item.value, unit)
    if found is None:
        _refuse_value(draft, item, "write a time such as 300, 5min or 1h")
        found = guc_file.seconds(DEFAULTS.get(item.name, "0")) or 0.0
    return found


def _text(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _timeout(parameter: str, unit: str = "s") -> Callable[[Draft, Assignment], None]:
    def translate(draft: Draft, item: Assignment) -> None:
        draft.set(item.number, item.name, item.value, **{parameter: _text(_seconds(draft, item, unit))})

    return translate


def _logged(parameter: str) -> Callable[[Draft, Assignment], None]:
    def translate(draft: Draft, item: Assignment) -> None:
        wanted = guc_file.switch(item.value)
        if wanted is None:
            _refuse_value(draft, item, "write on or off")
        else:
            draft.set(item.number, item.name, item.value, **{parameter: str(int(wanted))})

    return translate


def _hba(draft: Draft, item: Assignment) -> None:
    if guc_file.switch(item.value):
        draft.tell(item.number, item.name, item.value, Fate.REFUSED, _HBA)
    else:
        _dropped(draft, item, "every user proves a password, as PostgreSQL has it (md5 or SCRAM)")


def _backend(draft: Draft, item: Assignment) -> None:
    """The first backend is the target; the others are for other Poolers."""
    index = item.name.removeprefix("backend_hostname").removeprefix("backend_port")
    if index not in ("0", ""):
        _dropped(draft, item, f"a Pooler has one target; {_NO_SPLIT}")
    elif item.name.startswith("backend_port"):
        port = _number(draft, item, least=1)
        draft.port = port if port <= 65535 else 5432
        draft.tell(item.number, item.name, item.value, Fate.MAPPED, f"spec.target.port: {draft.port}")
    else:
        draft.host = item.value
        draft.tell(item.number, item.name, item.value, Fate.MAPPED, f"spec.target.host: {item.value}")


def _drop(draft: Draft, item: Assignment) -> None:
    beginning = max((key for key in _DROPPED if item.name.startswith(key)), key=len, default="")
    if beginning:
        _dropped(draft, item, _DROPPED[beginning])
        return
    near = difflib.get_close_matches(item.name, [*DEFAULTS, *TRANSLATED], n=1)
    advice = f"did you mean {near[0]}?" if near else "it is not known here; remove it, or say what it should do"
    draft.tell(item.number, item.name, item.value, Fate.REFUSED, advice)


def _dropped(draft: Draft, item: Assignment, sentence: str) -> None:
    draft.tell(item.number, item.name, item.value, Fate.DROPPED, sentence)


def _conflicts(draft: Draft, said: Mapping[str, Assignment]) -> None:
    """child_life_time turns serialize_accept off without a word there; here is the word."""
    life, serialize = said.get("child_life_time"), said.get("serialize_accept")
    if life and serialize and guc_file.switch(serialize.value) and guc_file.seconds(life.value):
        draft.tell(
            serialize.number,
            serialize.name,
            serialize.value,
            Fate.WARNING,
            f"child_life_time = {life.value} has switched this off all along; here neither is needed",
        )


TRANSLATED: Final[Mapping[str, Callable[[Draft, Assignment], None]]] = {
    "client_idle_limit": _timeout("client_idle_limit"),
    "authentication_timeout": _timeout("client_login_timeout"),
    "connect_timeout": _timeout("server_connect_timeout", "ms"),
    "log_connections": _logged("log_connections"),
    "log_disconnections": _logged("log_disconnections"),
    "enable_pool_hba": _hba,
}
