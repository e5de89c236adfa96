"""A cancel request is a connection of its own, and a Service leads it to any of the pods: it still ends its query."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from e2e.measured import Measured
from e2e.scenarios.shop import CLIENT, WAIT, Shop, until

pytestmark = pytest.mark.cluster

GOAL = 0.1  # seconds from the cancel request to the query's error
PATIENCE = 10 * GOAL

# In the client's pod: a psql for each pair of pods, at the one, whose query is cancelled at the other once a line comes on
# stdin. Each speaks through a socket of this program, which reads its key from the greeting and sees the error (SQLSTATE
# 57014) come. Prints the seconds between request and error, for every pair.
PROGRAM = """
import contextlib, json, socket, struct, subprocess, sys, threading, time

class Session:
    def __init__(self, pod):
        self.pod, self.key, self.ended = pod, None, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()
        port = self.listener.getsockname()[1]
        self.psql = subprocess.Popen(
            ["psql", "-XAt", "-v", "VERBOSITY=sqlstate", f"host=127.0.0.1 port={port} sslmode=disable"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def serve(self):
        client, _ = self.listener.accept()
        server = socket.create_connection((self.pod, 5432))
        threading.Thread(target=self.pump, args=(client, server, False), daemon=True).start()
        self.pump(server, client, True)

    def pump(self, source, sink, watch):
        with contextlib.suppress(OSError):  # whichever end goes first ends it
            self.carry(source, sink, watch)

    def carry(self, source, sink, watch):
        seen = b""
        while data := source.recv(65536):
            if watch and self.key is None:
                seen += data
                at = seen.find(b"K" + struct.pack("!i", 12))
                if 0 <= at <= len(seen) - 13:
                    self.key = seen[at + 5 : at + 13]
            if watch and b"C57014" in data:
                self.ended = time.monotonic()
            sink.sendall(data)

    def say(self, sql):
        self.psql.stdin.write(sql)
        self.psql.stdin.flush()

results, sessions = [], []
for pair in sys.argv[2:]:
    here, there = pair.split("/")
    session = Session(here)
    session.say(sys.argv[1] + ";\\n")
    sessions.append((session, here, there))
sys.stdin.readline()
for session, here, there in sessions:
    with socket.create_connection((there, 5432)) as canceller:
        started = time.monotonic()
        canceller.sendall(struct.pack("!ii", 16, 80877102) + session.key)
        assert canceller.recv(1) == b""
    assert "57014" in session.psql.stdout.readline()
    results.append([here, there, session.ended - started])
    session.psql.stdin.close()
    session.psql.wait()
print(json.dumps(results))
"""


def cancelled(shop: Shop, pairs: Sequence[str], meanwhile: Callable[[], None] = lambda: None) -> list[list[Any]]:
    """Of every pair the two pods and the seconds; all queries wait in PostgreSQL before the first is cancelled."""
    with shop.holding():
        command = ["python3", "-c", PROGRAM, WAIT, *pairs]
        program = shop.kubernetes.start_execute(CLIENT, *command, namespace=shop.namespace, with_stdin=True)
        try:
            shop.until_held(len(pairs))
            meanwhile()
            said, _ = program.communicate("now\n", timeout=120)
        finally:
            program.kill()
    found: list[list[Any]] = json.loads(said)
    return found


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    shop.pooler()


@pytest.fixture(autouse=True)
def at_rest(shop: Shop) -> None:
    shop.at_rest()


def test_a_cancel_sent_to_any_of_three_pods_ends_the_query(shop: Shop, measured: Measured) -> None:
    addresses = shop.addresses()
    assert len(addresses) == 3
    pairs = [f"{here}/{there}" for here in addresses for there in addresses]
    results = cancelled(shop, pairs)
    assert len(results) == 9
    for here, there, seconds in results:
        print(f"query at {here}, cancel at {there}: {seconds * 1000:.1f} ms")
    slowest = max(seconds for here, there, seconds in results if here != there)
    measured.note(
        "Cancel request at each wrong pod of three → the query's error, slowest",
        f"{slowest * 1000:.0f} ms",
        f"{GOAL * 1000:.0f} ms",
    )
    assert slowest < PATIENCE


def test_a_pod_on_its_way_out_is_still_found(shop: Shop) -> None:
    """It takes no new clients any more; those that it has can still cancel, at whatever pod the Service gives them."""
    leaving, staying, _ = shop.pods()
    pair = f"{leaving['status']['podIP']}/{staying['status']['podIP']}"

    def it_leaves() -> None:
        name = leaving["metadata"]["name"]
        shop.kubernetes.kubectl("delete", "pod", name, "--wait=false", namespace=shop.namespace)
        until(lambda: "psql: error" in said_at(shop, leaving["status"]["podIP"]), "it takes no new clients")

    ((_, _, seconds),) = cancelled(shop, [pair], it_leaves)
    print(f"cancelled at a leaving pod: {seconds * 1000:.1f} ms")


def said_at(shop: Shop, address: str) -> str:
    return shop.execute("sh", "-c", f"psql -XAt -c 'select 1' host={address} 2>&1 || true")


def test_libpq_cancels_through_the_service(shop: Shop) -> None:
    """As a user does it: Ctrl-C in psql, whose cancel request the Service leads wherever it likes."""
    with shop.holding():
        for _ in range(6):
            assert "57014" in shop.interrupted()
