"""One shop of a scenario: a namespace with a PostgreSQL by the cluster contract, a client's pod and Poolers.

It is what a user has: it speaks to the API server, and through Services to the poolers, and looks at PostgreSQL from the
server's own side (`administrator`). Nothing here knows the operator or the pooler from inside.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from e2e import target
from e2e.api_server import path_of
from e2e.kubernetes_access import CommandFailed, Kubernetes

CLUSTER = "cluster-example"
POOLER = "pooler-example-rw"
ROLE = "cnp_pooler_pgbouncer"
CLIENT = "client"
CA_FILE = "/tmp/ca.crt"  # in the client's pod

# Where nobody comes through the Service while pods leave, none of them is waited for.
SHORT_DRAIN = {"acceptSeconds": 3, "timeoutSeconds": 20}
# Where somebody does, a pod takes new clients until they are led elsewhere. On two cores that are node, load and the rest of CI
# at once, kube-proxy was seen to need 3 to 4 s once in 150 times; the default is 10.
DRAIN_UNDER_LOAD = {"acceptSeconds": 8, "timeoutSeconds": 20}

# A statement that waits in PostgreSQL for as long as the test wants (`Shop.holding`).
WAIT = "select pg_advisory_xact_lock_shared(1)"

Manifest = dict[str, Any]
T = TypeVar("T")


def until(ask: Callable[[], T | None], what: str, *, seconds: float = 60.0, every: float = 0.2) -> T:
    """The first answer of `ask` that is true; AssertionError with the last one when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}; last answer {answer!r}"
        time.sleep(every)
    return answer


def is_ready(pod: Manifest) -> bool:
    """It is, and is to stay."""
    rows = {row["type"]: row["status"] for row in pod["status"].get("conditions", ())}
    return "deletionTimestamp" not in pod["metadata"] and rows.get("Ready") == "True" and "podIP" in pod["status"]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a pgbench said at its end."""

    said: str
    processed: int
    failed: int


def read_bench(said: str) -> Bench:
    def number(label: str) -> int:
        found = re.search(rf"^number of {label}: (\d+)", said, re.MULTILINE)
        assert found, said
        return int(found[1])

    return Bench(said, number("transactions actually processed"), number("failed transactions"))


class Load:
    """A pgbench that runs in the client's pod until it is told to finish."""

    def __init__(self, shop: Shop, name: str, options: tuple[str, ...], conninfo: str) -> None:
        self._shop = shop
        self._pid_file = f"/tmp/{name}.pid"
        run = 'echo $$ > "$0"; exec pgbench --no-vacuum --progress=1 --time=600 "$@"'
        self._process = shop.start("sh", "-c", run, self._pid_file, *options, conninfo)
        self._heard = ""

    def wait_for_progress(self) -> None:
        """Until it reports its first full second of work."""
        assert self._process.stdout is not None
        while "progress:" not in self._heard:
            line = self._process.stdout.readline()
            assert line, f"pgbench ended at its start: {self._heard}"
            self._heard += line

    def finish(self) -> Bench:
        """End it where its own time would, between two transactions, and take its report."""
        assert self._process.poll() is None, f"pgbench ended early: {self._heard}{self._process.stdout.read()}"  # type: ignore[union-attr]
        self._signal("ALRM")
        rest, _ = self._process.communicate(timeout=60)
        said = self._heard + rest
        assert self._process.returncode == 0, said
        return read_bench(said)

    def abandon(self) -> None:
        if self._process.poll() is None:
            try:
                self._signal("KILL")
            except CommandFailed:
                self._process.kill()
            self._process.communicate(timeout=60)

    def _signal(self, name: str) -> None:
        self._shop.execute("sh", "-c", f"kill -{name} $(cat {self._pid_file})")


@dataclass(slots=True)
class Shop:
    kubernetes: Kubernetes
    namespace: str
    cluster: str = CLUSTER
    _loads: int = field(default=0, init=False)
    _background: list[subprocess.Popen[str]] = field(default_factory=list, init=False)

    # --- what stands here --------------------------------------------------------------------------------------------

    def open(self, *, instances: int = 1, max_connections: int = 100) -> None:
        """The target and the client's pod."""
        wanted = target.manifests(self.namespace, self.cluster, instances=instances, max_connections=max_connections)
        self.kubernetes.apply(wanted)
        self.kubernetes.client_pod(CLIENT, namespace=self.namespace, environment=self.account())
        self.kubernetes.rolled_out("statefulset", self.cluster, namespace=self.namespace)
        self.execute("sh", "-c", f"cat > {CA_FILE}", stdin=self.secret("ca", "ca.crt"))

    def psycopg_client(self, name: str) -> None:
        """A client's pod with psycopg, which no other image has but the operator's."""
        image = os.environ.get("E2E_OPERATOR_IMAGE", "localhost/pgweir-operator:dev")
        self.kubernetes.client_pod(name, namespace=self.namespace, environment=self.account(), image=image)

    def account(self) -> dict[str, str]:
        """The environment of the application's clients."""
        account = {"PGHOST": POOLER, "PGPORT": "5432", "PGDATABASE": "app", "PGUSER": "app"}
        return account | {"PGPASSWORD": self.secret("app", "password"), "PGCONNECT_TIMEOUT": "20"}

    def close(self) -> None:
        for process in self._background:
            process.kill()
            process.communicate()

    def secret(self, which: str, key: str) -> str:
        data = self.kubernetes.get("secret", f"{self.cluster}-{which}", namespace=self.namespace)["data"]
        return base64.b64decode(data[key]).decode()

    def change_secret(self, which: str, **values: str) -> None:
        patch = json.dumps({"stringData": values})
        name = f"{self.cluster}-{which}"
        self.kubernetes.kubectl("patch", "secret", name, "--type=merge", f"--patch={patch}", namespace=self.namespace)

    # --- Poolers -----------------------------------------------------------------------------------------------------

    def pooler(self, name: str = POOLER, *, pool_mode: str = "transaction", **spec: Any) -> None:
        """Apply a Pooler as a user does, and do not wait."""
        bouncer = {"poolMode": pool_mode} | spec.pop("pgbouncer", {})
        spec = {"cluster": {"name": self.cluster}, "instances": 3, "drain": SHORT_DRAIN, "pgbouncer": bouncer} | spec
        metadata = {"name": name, "namespace": self.namespace}
        self.kubernetes.apply([{"apiVersion": "pgweir.io/v1", "kind": "Pooler", "metadata": metadata, "spec": spec}])

    def ready(self, name: str = POOLER, *, timeout: float = 90.0) -> None:
        """Ready at its present generation, and a client's pod gets through."""
        self.until_condition("Ready", "True", name=name, seconds=timeout)
        self._knock(name)

    def _knock(self, name: str) -> None:
        """kube-proxy writes a node's rules once a second at most."""
        # One try is short: a first packet that met no rule is lost, and all that follow it.
        once = f"timeout 1 bash -c 'exec 3<>/dev/tcp/{name}/5432' 2> /dev/null"
        knock = f"for _ in $(seq 30); do {once} && exit; sleep 0.2; done; exit 1"
        self.execute("bash", "-c", knock)

    def at_rest(self, name: str = POOLER, *, timeout: float = 120.0) -> list[Manifest]:
        """Its pods, once there are as many as wanted, every one ready and proved and known to the Service, and none is on its
        way: from where a test begins, whatever the one before has left, and where it may read what it likes once."""
        last = ""

        def asked() -> list[Manifest] | None:
            nonlocal last
            last, pods = self._unrest(name)
            return None if last else pods

        try:
            found = until(asked, f"{name} is at rest", seconds=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None
        self._knock(name)
        return found

    def _unrest(self, name: str) -> tuple[str, list[Manifest]]:
        """What is still on its way, or nothing; and the pods, every one that there is."""
        pooler = self.kubernetes.get("pooler", name, namespace=self.namespace)
        selector = f"pgweir.io/poolerName={name}"
        pods = self.kubernetes.items("pod", namespace=self.namespace, selector=selector)
        status: Manifest = pooler.get("status", {})
        rows = {row["type"]: row for row in status.get("conditions", ())}
        for kind, wanted in (("Ready", "True"), ("Paused", str(bool(pooler["spec"].get("paused"))))):
            row = rows.get(kind, {})
            if (row.get("status"), row.get("observedGeneration")) != (wanted, pooler["metadata"]["generation"]):
                return f"{kind} is {row}", pods
            if row["reason"] == "Resuming":
                return f"{kind} is {row}", pods
        names = sorted(pod["metadata"]["name"] for pod in pods)
        if len(pods) != pooler["spec"]["instances"] or not all(is_ready(pod) for pod in pods):
            return f"the pods are {names}", pods
        # The rows may be of before: a container that was started again, a pod that went.
        proved = [
            row["name"] for row in status["pods"] if row["ready"] and row.get("configDigest") == status["configDigest"]
        ]
        if sorted(proved) != names or len(status["pods"]) != len(names):
            return f"the pods' rows are {status['pods']}", pods
        theirs = {row["ip"] for pod in pods for row in pod["status"]["podIPs"]}
        known = set(self.ready_addresses(name))
        if not known <= theirs or not {pod["status"]["podIP"] for pod in pods} <= known:
            return f"the Service leads to {known}, the pods are {theirs}", pods
        return "", pods

    def ready_addresses(self, name: str = POOLER) -> list[str]:
        """Those to which its Service leads."""
        selector = f"kubernetes.io/service-name={name}"
        return [
            endpoint["addresses"][0]
            for piece in self.kubernetes.items("endpointslice", namespace=self.namespace, selector=selector)
            for endpoint in piece.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        ]

    def patch(self, spec: Mapping[str, Any], name: str = POOLER) -> int:
        """Change the spec of a Pooler; the generation that this makes."""
        changed = self.kubernetes.api.request("PATCH", path_of("pooler", self.namespace, name), {"spec": spec})
        return int(changed["metadata"]["generation"])

    def parameters(self, name: str = POOLER, **values: str) -> int:
        return self.patch({"pgbouncer": {"parameters": values}}, name)

    def pause(self, paused: bool, name: str = POOLER) -> None:
        self.patch({"paused": paused}, name)

    def paused(self, answer: str = "True", name: str = POOLER, *, timeout: float = 60.0) -> None:
        self.until_condition("Paused", answer, name=name, seconds=timeout)

    def status(self, name: str = POOLER) -> Manifest:
        status: Manifest = self.kubernetes.get("pooler", name, namespace=self.namespace).get("status", {})
        return status

    def condition(self, kind: str, name: str = POOLER) -> Manifest:
        """The condition's row, or an empty one while there is none of the present generation."""
        pooler = self.kubernetes.get("pooler", name, namespace=self.namespace)
        rows: list[Manifest] = pooler.get("status", {}).get("conditions", [])
        generation = pooler["metadata"]["generation"]
        return next((row for row in rows if row["type"] == kind and row["observedGeneration"] == generation), {})

    def until_condition(
        self, kind: str, status: str, reason: str = "", name: str = POOLER, *, words: str = "", seconds: float = 60.0
    ) -> str:
        """The condition's message once it is so, and has these words."""
        last: Manifest = {}

        def asked() -> bool:
            nonlocal last
            last = self.condition(kind, name)
            return last.get("status") == status and reason in ("", last.get("reason")) and words in last["message"]

        try:
            until(asked, f"{kind}={status} {reason} {words}", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None
        return str(last["message"])

    def proved(self, generation: int, name: str = POOLER, *, seconds: float = 60.0) -> Manifest:
        """The status once every wanted pod runs the configuration of this generation."""

        def asked() -> Manifest | None:
            pooler = self.kubernetes.get("pooler", name, namespace=self.namespace)
            status: Manifest = pooler.get("status", {})
            rows, wanted = status.get("pods", []), pooler["spec"]["instances"]
            same = all(
                row.get("configDigest") == status["configDigest"]
                and row.get("configRevision") == status["configRevision"]
                for row in rows
            )
            current = status.get("observedGeneration", 0) >= generation
            return status if current and same and len(rows) == wanted else None

        return until(asked, f"every pod runs generation {generation}", seconds=seconds)

    def pods(self, name: str = POOLER) -> list[Manifest]:
        """Its pods that are not on their way out."""
        items = self.kubernetes.items("pod", namespace=self.namespace, selector=f"pgweir.io/poolerName={name}")
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def addresses(self, name: str = POOLER) -> list[str]:
        return [pod["status"]["podIP"] for pod in self.pods(name)]

    def lives(self, name: str = POOLER) -> dict[str, int]:
        """Uid of every pod, and how often its container was restarted: two equal answers mean that nothing restarted."""
        return {
            pod["metadata"]["uid"]: sum(row["restartCount"] for row in pod["status"].get("containerStatuses", ()))
            for pod in self.pods(name)
        }

    def remove(self, name: str = POOLER) -> None:
        self.kubernetes.kubectl("delete", "pooler", name, "--timeout=60s", namespace=self.namespace, timeout=70)

    # --- clients -----------------------------------------------------------------------------------------------------

    def execute(self, *command: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        return self.kubernetes.execute(CLIENT, *command, namespace=self.namespace, stdin=stdin, timeout=timeout)

    def python(self, program: str, *arguments: str, timeout: float = 60.0) -> str:
        """Run a program in the client's pod."""
        return self.execute("python3", "-c", program, *arguments, timeout=timeout)

    def psql(self, sql: str, conninfo: str = "", *, timeout: float = 60.0) -> str:
        """What psql printed, through the Pooler unless conninfo says another host."""
        return self.execute("psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-c", sql, conninfo, timeout=timeout).strip()

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the client's pod; it is ended with the shop at the latest."""
        made = self.kubernetes.start_execute(CLIENT, *command, namespace=self.namespace)
        self._background.append(made)
        return made

    def start_psql(self, sql: str, conninfo: str = "") -> subprocess.Popen[str]:
        return self.start("psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-c", sql, conninfo)

    def interrupted(self, conninfo: str = "") -> str:
        """What psql says of a Ctrl-C, as a user does it, while its query waits in PostgreSQL (within `holding`)."""
        run = f'echo $$ > /tmp/psql.pid; exec psql -XAt -v VERBOSITY=sqlstate -c "{WAIT}" "$0"'
        client = self.start("sh", "-c", run, conninfo)
        self.until_held()
        self.execute("sh", "-c", "kill -INT $(cat /tmp/psql.pid)")
        said, _ = client.communicate(timeout=40)
        return said

    @property
    def primary(self) -> str:
        """The pod of PostgreSQL that may be written to."""
        return f"{self.cluster}-0"

    def administrator(self, sql: str, *, database: str = "postgres") -> str:
        """From inside PostgreSQL's own pod, past every pooler."""
        command = ["psql", "-XAt", "-h", "/run/postgresql", "-U", "postgres", "-d", database, "-c", sql]
        return self.kubernetes.execute(self.primary, *command, namespace=self.namespace).strip()

    def server_connections(self, of: str = "") -> int:
        """Those that poolers hold (or this one), asked of PostgreSQL itself. The operator, too, logs in as the look-up role, to
        prove it."""
        sql = f"select count(*) from pg_stat_activity where usename in ('app', '{ROLE}')"
        sql += " and application_name <> 'pgweir-operator'"
        if of:
            sql += f" and host(client_addr) = any('{{{','.join(self.addresses(of))}}}')"
        return int(self.administrator(sql))

    @contextmanager
    def holding(self) -> Iterator[Callable[[], None]]:
        """Whoever says WAIT waits, until what is given here is called, or the block ends.

        WHY no pg_sleep: a test that has to look at what waits would have to be done in that time on any machine.
        """
        command = ["psql", "-XAtq", "-h", "/run/postgresql", "-U", "postgres", "-d", "app"]
        holder = self.kubernetes.start_execute(self.primary, *command, namespace=self.namespace, with_stdin=True)
        assert holder.stdin is not None
        assert holder.stdout is not None

        def release() -> None:
            if holder.poll() is None:
                holder.communicate()

        try:
            holder.stdin.write("select pg_advisory_lock(1);\n\\echo held\n")
            holder.stdin.flush()
            for line in holder.stdout:
                if line == "held\n":
                    break
            else:
                raise AssertionError(f"the lock's session ended: {holder.wait()}")
            yield release
        finally:
            release()

    def until_held(self, count: int = 1, sql: str = WAIT) -> None:
        """So many wait (with another statement: are at work on it). One that was said last by a server that is idle does not
        count."""
        asked = sql.replace("'", "''")
        active = f"select count(*) from pg_stat_activity where state = 'active' and position('{asked}' in query) > 0"
        until(lambda: int(self.administrator(f"{active} and pid <> pg_backend_pid()")) >= count, f"{count} wait")

    def logged(self, since: float, *texts: str, name: str = POOLER) -> dict[str, tuple[float, str]]:
        """Pod → seconds from then (unix time) until it first logged a line with all these texts, and the line's message."""
        found: dict[str, tuple[float, str]] = {}
        seconds = f"--since={time.time() - since + 5:.0f}s"
        for pod in self.pods(name):
            pod_name = pod["metadata"]["name"]
            for line in self.kubernetes.kubectl("logs", pod_name, seconds, namespace=self.namespace).splitlines():
                record = json.loads(line) if line.startswith("{") else {}
                message = str(record.get("record", {}).get("msg", ""))
                if not all(text in message for text in texts):
                    continue
                at = datetime.fromisoformat(record["ts"]).timestamp()
                if at > since:
                    found.setdefault(pod_name, (at - since, message))
        return found

    # --- load --------------------------------------------------------------------------------------------------------

    def initialise(self, host: str = POOLER) -> None:
        self.execute("pgbench", "-i", "-q", "-s", "1", f"host={host}")

    def bench(self, *options: str, seconds: float, host: str = POOLER) -> Bench:
        """A whole run of pgbench; another status than 0 fails."""
        time_option = f"--time={seconds:.0f}"
        said = self.execute("pgbench", *options, time_option, f"host={host}", timeout=seconds + 60)
        return read_bench(said)

    @contextmanager
    def load(self, *options: str, host: str = POOLER) -> Iterator[Load]:
        """pgbench in the background; within, `finish` takes its report. It works already when the block is entered."""
        self._loads += 1
        load = Load(self, f"load-{self._loads}", options, f"host={host}")
        try:
            load.wait_for_progress()
            yield load
        finally:
            load.abandon()

    def books_balance(self, bench: Bench) -> None:
        """Every transaction that pgbench counts is there exactly once (after `initialise` and one run)."""
        assert bench.failed == 0, bench.said
        assert bench.processed > 0, bench.said
        self.books_have(bench.processed)

    def books_have(self, transactions: int) -> None:
        """So many of pgbench's transactions since `initialise`, each whole."""
        sums = self.administrator(
            "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), "
            "(select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history), "
            "(select count(*) from pgbench_history)",
            database="app",
        ).split("|")
        assert len(set(sums[:4])) == 1, sums
        assert int(sums[4]) == transactions, (sums, transactions)
