"""Every finding, both ways: provoked by the smallest facts it comes exactly, and a healthy pooler has none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pgweir_operator.doctor.diagnosis import FAR, NEAR, diagnose
from pgweir_operator.doctor.facts import (
    Backend,
    Burst,
    Facts,
    Kubernetes,
    Login,
    Name,
    Pod,
    Policy,
    Port,
    Queue,
    Tables,
    Timing,
)
from pgweir_operator.doctor.findings import Class

WAITER = {
    "database": "app",
    "user": "alice",
    "application_name": "shop",
    "wait": 4,
    "wait_us": 0,
    "limit": "pool_size",
    "reason": "pool_size=1: all 1 servers are taken",
    "holder": "bob",
    "holder_addr": "10.0.0.9:1",
    "holder_application_name": "month_end",
    "holder_state": "active",
    "holder_client_id": 3,
    "holder_pid": 77,
    "holder_seconds": 9,
}
CLIENT = {
    "user": "alice",
    "addr": "10.0.0.7",
    "port": 5000,
    "application_name": "shop",
    "state": "active",
    "wait": 0,
    "wait_us": 0,
    "transaction_seconds": 0,
    "ptr": "0x1",
    "id": 1,
    "pod": "p1",
}
SESSION = {
    "pid": "77",
    "datname": "app",
    "usename": "alice",
    "application_name": "shop",
    "client_addr": "10.0.0.1",
    "state": "idle",
    "wait_event": None,
    "query": "COMMIT",
    "transaction_seconds": None,
    "state_seconds": "400",
}
POD = Pod("p1", "10.0.0.1", "Running", True)
TRUE = [
    {"type": kind, "status": "True", "reason": "Fine", "message": ""}
    for kind in (
        "Ready",
        "Available",
        "ConfigurationApplied",
        "Integrated",
        "TargetAvailable",
        "WithinConnectionBudget",
    )
]
FALSE = [{**row, "status": "False"} for row in TRUE]
KUBERNETES = Kubernetes(
    "shop-rw",
    "shop",
    service="shop-rw",
    endpoints_ready=("10.0.0.1",),
    pods=(POD,),
    policies=(Policy("ours", True, True, True), Policy("deny-all", False, False, False)),
    conditions=(*TRUE, {"type": "Paused", "status": "False", "reason": "NotAsked", "message": ""}),
    revision=3,
    revisions={"p1": 3},
    switchover={"phase": "Done"},
)
TABLES = Tables(
    pools=({"database": "app"}, {"database": "pgbouncer"}),
    waiters=({**WAITER, "wait": 0, "wait_us": 900}, {**WAITER, "limit": "login"}),
    clients=(CLIENT, {**CLIENT, "transaction_seconds": 900, "wait": 900}),  # a long query is no leak
    servers=({"remote_pid": 77, "link": "0x1", "pod": "p1"},),
    databases=({"name": "app", "paused": 0, "pool_size": 20, "reserve_pool_size": 0},),
    config=({"key": "listen_backlog", "value": "128"}, {"key": "max_client_conn", "value": "100"}),
    state=({"key": "active", "value": "yes"}, {"key": "paused", "value": "no"}),
)
STAGES = ("dns", "tcp", "tls", "auth", "queue", "backend")
HEALTHY = Facts(
    names=(
        Name("target", "db", ("10.0.1.1", "10.0.1.2")),
        Name("service", "shop-rw", ("10.1.0.1",), expected=frozenset({"10.1.0.1"})),
    ),
    ports=(
        Port("pod", "10.0.0.1", 5432),
        Port("target", "10.0.1.1", 5432),
        Port("target", "10.0.1.2", 5432, "no answer", "timeout"),  # one address of two is enough
    ),
    login=Login("alice@app", tls="TLSv1.3", certificate_days=60),
    timing=Timing(20, {stage: [0.001] * 19 + [0.9] for stage in STAGES}),  # one late try in twenty is no rule
    backend=Backend(
        "db:5432",
        activity=(SESSION, {**SESSION, "state": "idle in transaction", "state_seconds": "2"}),
        capacity={"max_connections": "100", "reserved": "3", "used": "40"},
    ),
    burst=Burst(8, 1.0, 900, 0.01, {}),
    queue=Queue(0, 0),
    tables=TABLES,
    kubernetes=KUBERNETES,
    closed={"client_close": 900, "server_lifetime": 3, "query_wait_timeout": 0},
)
PLAIN = dataclasses.replace(HEALTHY, kubernetes=None)
WITHOUT_BACKEND = dataclasses.replace(HEALTHY, backend=None)


def kubernetes(**changes: Any) -> Facts:
    return dataclasses.replace(HEALTHY, kubernetes=dataclasses.replace(KUBERNETES, **changes))


def shown(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    return dataclasses.replace(facts, tables=dataclasses.replace(TABLES, **changes))


def healthy(**changes: Any) -> Facts:
    return dataclasses.replace(HEALTHY, **changes)


def slow(stage: str) -> Facts:
    return healthy(timing=dataclasses.replace(HEALTHY.timing, stages={**HEALTHY.timing.stages, stage: [0.4] * 20}))  # type: ignore[type-var, union-attr]


def refused(message: str = "no", sqlstate: str = "28P01", stage: str = "", **more: Any) -> Facts:
    login = Login("alice@app", "auth", message, "refused", sqlstate, stage)
    return healthy(login=login, timing=None, burst=None, **more)


HUNG = {"stage": "query", "kind": "timeout", "error": "no answer", "sqlstate": "", "stages": {"backend": 5.0}}
SHUT = Port("pod", "10.0.0.1", 5432, "no answer within 3 s", "timeout")
CLOSED_PORT = dataclasses.replace(SHUT, error="Connection refused", kind="refused")

CASES: list[tuple[str, Facts, Class]] = [
    ("service-missing", kubernetes(service=""), Class.NETWORK),
    ("no-endpoints", kubernetes(endpoints_ready=(), endpoints_unready=("10.0.0.1",)), Class.NETWORK),
    ("no-endpoints", kubernetes(endpoints_ready=(), pods=()), Class.NETWORK),
    ("no-endpoints", kubernetes(endpoints_ready=(), selector_matches=False), Class.NETWORK),
    ("no-endpoints", kubernetes(endpoints_ready=(), pods=(POD,)), Class.NETWORK),
    ("pods-not-ready", kubernetes(pods=(POD, Pod("p2", "", "Pending", False, "ImagePullBackOff"))), Class.NETWORK),
    ("dns", healthy(names=(Name("target", "nowhere", error="Name or service not known"),)), Class.NETWORK),
    ("dns-elsewhere", healthy(names=(Name("service", "s", ("9.9.9.9",), expected=frozenset({"10.1.0.1"})),)), Class.NETWORK),
    ("policy-denies", kubernetes(policies=(Policy("deny-all", False, None, None),)), Class.NETWORK),
    ("policy-denies", kubernetes(policies=(Policy("deny-egress", None, False, True),)), Class.NETWORK),
    ("tcp-timeout", healthy(ports=(SHUT,), login=None, timing=None), Class.NETWORK),
    ("tcp-refused", healthy(ports=(CLOSED_PORT,), login=None, timing=None), Class.NETWORK),
    ("target-unreachable", healthy(ports=(dataclasses.replace(SHUT, role="target"),)), Class.POSTGRESQL),
    ("limit-backlog", healthy(ports=(SHUT,), queue=Queue(3, 0), tables=None), Class.POOL),
    ("limit-backlog", healthy(queue=Queue(128, 0)), Class.POOL),
    ("limit-backlog", healthy(queue=Queue(5, 2)), Class.POOL),
    ("tls-failed", healthy(login=Login("a", "tls", "it does not offer TLS"), timing=None), Class.TLS),
    ("certificate-expired", healthy(login=Login("a", "tls", "expired", certificate_days=-1.0), timing=None), Class.TLS),
    ("certificate-expires", healthy(login=Login("a", tls="TLSv1.3", certificate_days=1.0)), Class.TLS),
    ("login-refused", refused(), Class.LOGIN),
    *(
        (f"login-refused-{stage.replace('_', '-')}", refused(stage=stage), Class.LOGIN)
        for stage in ("hba", "password", "auth_query", "server", "ldap", "tls", "console", "startup")
    ),
    ("limit-max-client-conn", refused("no more connections allowed (max_client_conn)", "53300", "limits"), Class.POOL),
    ("limit-max-client-conn", shown(waiters=({**WAITER, "limit": "max_client_conn"},)), Class.POOL),
    (
        "limit-max-db-client-connections",
        refused("client connections exceeded (max_db_client_connections)", "53300", "limits"),
        Class.POOL,
    ),
    ("console-unreachable", healthy(tables=None, console_error="no such socket"), Class.LOGIN),
    ("paused", kubernetes(paused=True), Class.POOL),
    ("paused", shown(state=({"key": "paused", "value": "yes"},)), Class.POOL),
    ("paused", shown(databases=({**TABLES.databases[0], "paused": 1},)), Class.POOL),
    ("paused", shown(waiters=({**WAITER, "limit": "paused"},)), Class.POOL),
    ("held", shown(waiters=({**WAITER, "limit": "hold"},)), Class.POOL),
    ("held", kubernetes(switchover={"phase": "Held", "message": "…"}), Class.POOL),
    *(
        (f"queue-{limit.replace('_', '-')}", shown(waiters=({**WAITER, "limit": limit},)), kind)
        for limit, kind in (
            ("pool_size", Class.POOL),
            ("max_db_connections", Class.POOL),
            ("max_user_connections", Class.POOL),
            ("max_server_connections", Class.POOL),
            ("max_connections", Class.POSTGRESQL),
            ("target", Class.POSTGRESQL),
            ("password", Class.LOGIN),
        )
    ),
    ("queue-pool-size", healthy(timing=Timing(0, failures=(HUNG,), waiter=WAITER)), Class.POOL),
    ("leaks", shown(WITHOUT_BACKEND, clients=({**CLIENT, "transaction_seconds": 60},)), Class.POOL),
    *((f"slow-{stage}", slow(stage), Class.SLOW) for stage in STAGES),
    ("slow-answer", healthy(timing=Timing(20, {"answer": [0.5] * 20}), tables=None), Class.SLOW),
    ("slow-backend", healthy(timing=Timing(0, failures=(HUNG,))), Class.SLOW),
    ("slow-answer", healthy(timing=Timing(0, failures=({**HUNG, "stages": {"answer": 5.0}},))), Class.SLOW),
    ("query-fails", healthy(timing=Timing(0, failures=({**HUNG, "kind": "refused"},))), Class.ENDED),
    ("burst-fails", healthy(burst=Burst(8, 1.0, 9, 0.1, {"query: the other side closed the connection": 2})), Class.ENDED),
    ("limit-max-connections", refused("sorry, too many clients already", "53300", "server"), Class.POSTGRESQL),
    (
        "limit-max-connections",
        healthy(backend=Backend("db", capacity={"max_connections": "100", "reserved": "3", "used": "97"})),
        Class.POSTGRESQL,
    ),
    ("limit-max-connections", healthy(backend=Backend("db", {**HUNG, "sqlstate": "53300"})), Class.POSTGRESQL),
    ("backend-login", healthy(backend=Backend("db", {**HUNG, "stage": "auth"})), Class.POSTGRESQL),
    (
        "idle-in-transaction",
        healthy(backend=Backend("db", activity=(SESSION, {**SESSION, "state": "idle in transaction (aborted)"}))),
        Class.POSTGRESQL,
    ),
    (
        "budget",
        shown(PLAIN, pools=tuple({"database": "app", "user": str(n)} for n in range(5))),
        Class.POSTGRESQL,
    ),
    ("old-configuration", kubernetes(revisions={"p1": 2}), Class.OPERATOR),
    ("condition-integrated", kubernetes(conditions=(FALSE[0], FALSE[3])), Class.OPERATOR),
    ("ended", healthy(closed={"query_wait_timeout": 3}), Class.ENDED),
]  # fmt: skip


@pytest.mark.parametrize(("code", "facts", "kind"), CASES, ids=[f"{at}-{case[0]}" for at, case in enumerate(CASES)])
def test_what_is_provoked_is_found_and_nothing_else(code: str, facts: Facts, kind: Class) -> None:
    (finding,) = diagnose(facts)
    assert (finding.code, finding.kind) == (code, kind)
    assert finding.what
    assert all(finding.evidence)
    assert finding.fix
    assert finding.fix == finding.fix.strip(), "a sentence that was cut off"


@pytest.mark.parametrize(
    "facts", [HEALTHY, PLAIN, WITHOUT_BACKEND, Facts()], ids=["all", "plain", "no backend", "none"]
)
def test_a_healthy_pooler_has_no_finding_and_what_was_not_looked_at_is_none(facts: Facts) -> None:
    assert diagnose(facts) == []


def test_every_rule_has_been_provoked() -> None:
    """A new rule without a case of its own fails here."""
    fired = {rule for _, facts, _ in CASES for rule in (*NEAR, *FAR) if rule(facts) is not None}
    assert [rule.__name__ for rule in (*NEAR, *FAR) if rule not in fired] == []


def test_the_client_behind_an_idle_transaction_and_its_pod_are_named() -> None:
    idle = {**SESSION, "state": "idle in transaction", "state_seconds": "61"}
    (finding,) = diagnose(healthy(backend=Backend("db", activity=(idle, SESSION))))
    assert finding.what.startswith("1 of 2 sessions")
    assert finding.evidence == (
        "ages from 61 to 61 s; 50% of all sessions; by pod: p1 1",
        "pid 77: 61 s, client alice@10.0.0.7:5000 (shop, id 1)",
    )


def test_leaks_are_listed_by_who_left_them_the_oldest_first() -> None:
    """T02."""
    rows = [
        {**CLIENT, "application_name": name, "transaction_seconds": age}
        for name, age in (("b", 40), ("a", 90), ("b", 50))
    ]
    (finding,) = diagnose(shown(WITHOUT_BACKEND, clients=tuple(rows)))
    assert finding.evidence == (
        "a at 10.0.0.7: 1 clients, the oldest for 90 s",
        "b at 10.0.0.7: 2 clients, the oldest for 50 s",
    )


def test_a_consequence_is_left_out_beside_its_cause() -> None:
    """A host name that is none: PostgreSQL cannot be reached, clients queue, conditions are False. One finding."""
    facts = shown(kubernetes(conditions=(FALSE[4],)), waiters=({**WAITER, "limit": "target"},))
    facts = dataclasses.replace(facts, names=(Name("target", "nowhere", error="Name or service not known"),))
    assert [finding.code for finding in diagnose(facts)] == ["dns"]


def test_postgresql_may_refuse_the_login_only_when_a_query_needs_a_server() -> None:
    refused = {"stage": "query", "kind": "refused", "error": "no entry in pg_hba.conf", "sqlstate": "28000"}
    (finding,) = diagnose(Facts(login=Login("alice@app"), timing=Timing(failures=(refused,))))
    assert finding.code == "login-refused-server"
    assert finding.evidence == ("no entry in pg_hba.conf (28000)", "auth_stage: server")


def test_packets_that_are_dropped_are_one_finding_which_names_the_pod() -> None:
    """Our own login goes the way that is shut, and says no more than that."""
    shut = Port("pod", "10.0.0.1", 5432, "no answer within 1 s", "timeout")
    stuck = {"stage": "tcp", "kind": "timeout", "error": "no answer within 2 s", "sqlstate": ""}
    (finding,) = diagnose(Facts(ports=(shut,), timing=Timing(failures=(stuck,)), kubernetes=KUBERNETES))
    assert finding.code == "tcp-timeout"
    assert finding.evidence[0] == "connect to 10.0.0.1:5432 (pod p1): no answer within 1 s"


def test_who_took_max_connections_and_in_which_pod_clients_wait_for_it_is_said() -> None:
    backend = Backend(
        "pg", activity=[SESSION, SESSION], capacity={"used": "2", "max_connections": "5", "reserved": "3"}
    )
    waiter = {**WAITER, "limit": "max_connections", "reason": "sorry", "holder": "", "pod": "p1"}
    (finding,) = diagnose(Facts(backend=backend, timing=Timing(waiter=waiter), kubernetes=KUBERNETES))
    assert finding.code == "queue-max-connections"
    assert finding.evidence[0] == "max_connections: sorry (pod p1)"
    assert finding.evidence[-2:] == (
        "2 of 2 connections are taken (max_connections less the superuser's)",
        "2 of alice@10.0.0.1 (shop)",
    )


def test_the_policies_that_select_the_pods_stand_beside_a_port_that_is_shut() -> None:
    (finding,) = diagnose(healthy(ports=(SHUT,), login=None, timing=None))
    assert "NetworkPolicy deny-all selects the pods" in finding.evidence


def test_exit_codes_are_one_to_a_class() -> None:
    numbers = [kind.exit_code for kind in Class]
    assert numbers == sorted(set(numbers))
    assert min(numbers) > 4  # those below mean the same for every command
