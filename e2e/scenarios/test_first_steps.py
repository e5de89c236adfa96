"""What a user does first: is it there, does it answer, how fast, and does it hold under load; seed by seed of a
troubleshooting guide, from a pod, through the Service.

E2E_PGBENCH_SECONDS makes the runs of pgbench longer than their 5 seconds.
"""

from __future__ import annotations

import json
import os
import re

import pytest
from e2e.scenarios.release import Operator
from e2e.scenarios.shop import CA_FILE, POOLER, ROLE, Shop
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.cluster

SECONDS = float(os.environ.get("E2E_PGBENCH_SECONDS", "5"))
SESSION = "pooler-example-session"

LISTS = (
    "databases dns_names dns_pending dns_queries dns_zones free_clients free_servers login_clients pools used_clients "
    "used_servers users"
)
POOLS = "cl_active cl_cancel_req cl_waiting maxwait maxwait_us pool_mode sv_active sv_idle sv_login sv_tested sv_used"
STATS = (
    "avg_query_count avg_query_time avg_recv avg_sent avg_wait_time avg_xact_count avg_xact_time total_query_count "
    "total_query_time total_received total_sent total_wait_time total_xact_count total_xact_time"
)


@pytest.fixture(scope="module")
def poolers(shop: Shop) -> Shop:
    """One Pooler in each mode, on one cluster."""
    shop.pooler(POOLER, pool_mode="transaction")
    shop.pooler(SESSION, pool_mode="session", instances=2)
    shop.at_rest(POOLER)
    shop.at_rest(SESSION)
    return shop


def test_the_port_of_the_service_answers_under_its_full_name(poolers: Shop) -> None:
    name = f"{POOLER}.{poolers.namespace}.svc.cluster.local"
    said = poolers.execute("bash", "-c", f"exec 3<>/dev/tcp/{name}/5432 && echo $?")
    assert said.strip() == "0"


def test_psql_connects_and_leaves(poolers: Shop) -> None:
    host = f"{POOLER}.{poolers.namespace}"
    assert poolers.execute("psql", "-h", host, "-p", "5432", "-U", "app", "-d", "app", "-c", r"\q") == ""


def test_a_query_takes_milliseconds(poolers: Shop) -> None:
    said = poolers.execute("psql", "-c", r"\timing", "-c", "SELECT 1")
    found = re.search(r"Time: ([\d.]+) ms", said)
    assert found, said
    print(f"SELECT 1: {found[1]} ms")
    assert float(found[1]) < 3000  # 300 ms is called bad; ten times that fails


def test_environment_variables_are_enough_for_pgbench_to_fill_its_tables(poolers: Shop) -> None:
    poolers.execute("pgbench", "-i", "-s", "1")
    assert poolers.psql("select count(*) from pgbench_accounts") == "100000"


@pytest.mark.parametrize(
    ("host", "protocol"),
    [(SESSION, "simple"), (SESSION, "prepared"), (POOLER, "simple"), (POOLER, "extended"), (POOLER, "prepared")],
)
def test_ten_clients_of_pgbench_lose_nothing(poolers: Shop, host: str, protocol: str) -> None:
    poolers.initialise(host)
    done = poolers.bench("-c", "10", "-M", protocol, seconds=SECONDS, host=host)
    print(done.said)
    poolers.books_balance(done)


def test_pgbench_with_a_connection_for_each_transaction_loses_nothing(poolers: Shop) -> None:
    poolers.initialise()
    poolers.books_balance(poolers.bench("-c", "10", "-C", seconds=min(SECONDS, 15)))


def test_applications_get_tls_and_a_certificate_for_the_services_names(poolers: Shop) -> None:
    assert "SSL connection" in poolers.execute("psql", "sslmode=require", "-c", r"\conninfo")
    for name in (POOLER, f"{POOLER}.{poolers.namespace}", f"{POOLER}.{poolers.namespace}.svc.cluster.local"):
        conninfo = f"host={name} sslmode=verify-full sslrootcert={CA_FILE}"
        assert poolers.psql("select 1", conninfo) == "1"


def test_the_way_to_postgresql_is_tls_with_the_poolers_certificate(poolers: Shop) -> None:
    poolers.psql("select 1")
    # The application's user is known from its Secret; anybody else has to be looked up.
    poolers.execute("sh", "-c", "psql 'user=somebody password=else' -c 'select 1' 2>&1 || true")
    seen = poolers.administrator(
        "select distinct usename, ssl, client_dn from pg_stat_ssl join pg_stat_activity using (pid) "
        f"where usename in ('app', '{ROLE}') order by 1"
    )
    assert seen.splitlines() == [f"app|t|/CN={ROLE}", f"{ROLE}|t|/CN={ROLE}"]


def test_a_wrong_password_and_an_unknown_user_get_postgresqls_own_sentence(poolers: Shop) -> None:
    program = "psql 'user={} password=wrong' -c 'select 1' 2>&1 || true"
    for user in ("app", "nobody_has_this_name"):
        said = poolers.execute("sh", "-c", program.format(user))
        assert f'password authentication failed for user "{user}"' in said


def test_the_console_answers_in_every_pod(poolers: Shop) -> None:
    for pod in poolers.pods():
        said = poolers.kubernetes.execute(
            pod["metadata"]["name"], "pgweir-console", "-c", "SHOW POOLS", namespace=poolers.namespace
        )
        assert said.split()[0] == "database"
        assert "pgbouncer" in said


def test_the_metrics_of_a_pod_are_the_forty_that_dashboards_know(poolers: Shop) -> None:
    poolers.psql("select 1")
    fetch = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=10).read().decode())"
    labels: dict[str, set[str]] = {}
    for address in poolers.addresses():
        for family in text_string_to_metric_families(poolers.python(fetch, f"http://{address}:9127/metrics")):
            for sample in family.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
    prefix = "cnp_pgbouncer_"
    wanted = {prefix + "collection_duration_seconds": {"collector"}, prefix + "last_collection_error": set()}
    wanted[prefix + "collections_total"] = set()
    wanted |= {f"{prefix}lists_{name}": set() for name in LISTS.split()}
    wanted |= {f"{prefix}pools_{name}": {"database", "user"} for name in POOLS.split()}
    wanted |= {f"{prefix}stats_{name}": {"database"} for name in STATS.split()}
    assert len(wanted) == 40
    assert {name: labels.get(name) for name in wanted} == wanted


def test_every_line_that_a_pooler_logs_is_json(poolers: Shop) -> None:
    for pod in poolers.pods() + poolers.pods(SESSION):
        lines = poolers.kubernetes.kubectl("logs", pod["metadata"]["name"], namespace=poolers.namespace).splitlines()
        assert lines
        for line in lines:
            assert {"timestamp", "pid", "level", "msg"} <= set(json.loads(line)["record"]), line


def test_the_operator_logs_json_and_no_secret(poolers: Shop, operator: Operator) -> None:
    logs = operator.logs()
    for line in logs.splitlines():
        json.loads(line)
    for secret in ("superuser", "app"):
        assert poolers.secret(secret, "password") not in logs
    assert "PRIVATE KEY" not in logs


def test_the_operators_pod_passes_pod_security_restricted(poolers: Shop, operator: Operator) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    try_it = ["label", "--dry-run=server", "--overwrite", "--warnings-as-errors", "namespace", operator.namespace]
    poolers.kubernetes.kubectl(*try_it, label)
