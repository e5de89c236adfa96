"""Whatever is wrong gets a sentence that says so, heals when it is mended, and harms nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e.kubernetes_access import CommandFailed
from e2e.scenarios.shop import CLUSTER, POOLER, Shop

pytestmark = pytest.mark.cluster

# Speaks to HOST:5432 from the client's pod: sends bytes in hexadecimal, then prints what comes until the other side
# closes, and how long that took.
TALK = """
import socket, sys, time
host, sent = sys.argv[1], bytes.fromhex(sys.argv[2])
began = time.monotonic()
with socket.create_connection((host, 5432), 10) as s:
    s.settimeout(30)
    s.sendall(sent)
    heard = b""
    try:
        while more := s.recv(65536):
            heard += more
    except ConnectionResetError:
        pass
print(round(time.monotonic() - began, 1), heard.decode("latin-1").replace(chr(0), " "))
"""

FLOOD = """
import socket, sys
for _ in range(300):
    socket.create_connection((sys.argv[1], 5432), 10).close()
print("done")
"""


@contextmanager
def a_neighbour_works(shop: Shop) -> Iterator[None]:
    """Clients of the same pods, who must not notice."""
    shop.at_rest()
    shop.initialise()
    lives = shop.lives()
    with shop.load("-c", "6") as load:
        yield
        done = load.finish()
    shop.books_balance(done)
    assert shop.lives() == lives


def test_an_unknown_parameter_is_refused_by_its_name_at_the_door(shop: Shop) -> None:
    with pytest.raises(CommandFailed, match="unknown or reserved parameters: pool_size_of_mine"):
        shop.pooler(pgbouncer={"parameters": {"pool_size_of_mine": "3"}})
    assert shop.kubernetes.find("pooler", POOLER, namespace=shop.namespace) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("default_pool_size", "-1"), ("max_client_conn", "many"), ("auth_type", "kerberos"), ("query_wait_timeout", "1h")],
)
def test_a_value_that_cannot_be_is_refused_with_the_parameters_name(shop: Shop, name: str, value: str) -> None:
    with pytest.raises(CommandFailed, match=rf"(?s)spec\.pgbouncer\.parameters.*{name}"):
        shop.pooler(pgbouncer={"parameters": {name: value}})


def test_a_wrong_superuser_password_is_a_condition_and_heals_when_it_is_right(shop: Shop) -> None:
    right = shop.secret("superuser", "password")
    shop.change_secret("superuser", password="not this one")
    shop.pooler()
    message = shop.until_condition("Integrated", "False", "AdminLoginFailed", words="password")
    assert "not this one" not in message
    assert shop.condition("Ready")["status"] == "False"
    shop.change_secret("superuser", password=right)
    shop.ready()
    assert shop.psql("select 1") == "1"


@pytest.mark.parametrize("which", ["superuser", "ca"])
def test_a_missing_secret_of_the_cluster_is_named_while_the_pods_serve_on_and_heals(shop: Shop, which: str) -> None:
    name = f"{CLUSTER}-{which}"
    secret = shop.kubernetes.get("secret", name, namespace=shop.namespace)
    kept = {"apiVersion": "v1", "kind": "Secret", "type": secret["type"], "data": secret["data"]}
    with a_neighbour_works(shop):
        shop.kubernetes.kubectl("delete", "secret", name, namespace=shop.namespace)
        try:
            shop.until_condition("Ready", "False", words=name)
        finally:
            shop.kubernetes.apply([{**kept, "metadata": {"name": name, "namespace": shop.namespace}}])
        shop.ready()


def test_a_missing_secret_that_the_spec_names_is_named_in_the_condition_and_heals(shop: Shop) -> None:
    reference = {"pgbouncer": {"clientCASecret": {"name": "my-authority"}}}
    with a_neighbour_works(shop):
        shop.patch(reference)
        shop.until_condition("Ready", "False", "MissingSecret", words="my-authority")
        data = {"stringData": {"ca.crt": shop.secret("ca", "ca.crt")}}
        metadata = {"name": "my-authority", "namespace": shop.namespace}
        shop.kubernetes.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **data}])
        shop.ready()


def test_a_second_pooler_with_an_impossible_cluster_says_so_and_harms_none(shop: Shop) -> None:
    shop.pooler("pooler-lost", cluster={"name": "no-such-cluster"})
    try:
        shop.until_condition("Ready", "False", "TargetNotFound", "pooler-lost", words="no-such-cluster")
        assert shop.psql("select 1") == "1"
    finally:
        shop.remove("pooler-lost")


def test_garbage_and_silence_at_the_port_are_ended_with_a_word_and_harm_none(shop: Shop) -> None:
    shop.proved(shop.parameters(client_login_timeout="3"))
    address = shop.addresses()[0]
    half_a_startup = "00000029" + "00030000" + b"user\0app".hex()
    too_long = "7fffffff" + "00030000"
    version_nine = "00000008" + "00090000"
    with a_neighbour_works(shop):
        for what, sent in {
            "garbage": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".hex(),
            "a packet that is too long": too_long,
            "a protocol of the future": version_nine,
        }.items():
            seconds, heard = shop.python(TALK, address, sent).split(" ", 1)
            print(f"{what}: {heard.strip()!r} after {seconds} s")
            assert "client_login_timeout" not in heard, what
        for what, sent in {"silence": "", "half a startup packet": half_a_startup}.items():
            seconds, heard = shop.python(TALK, address, sent).split(" ", 1)
            print(f"{what}: {heard.strip()!r} after {seconds} s")
            assert 2 < float(seconds) < 20, what
            assert "client_login_timeout" in heard
        assert shop.python(FLOOD, address).strip() == "done"
        assert shop.psql("select 1", f"host={address}") == "1"


def test_a_bundle_that_somebody_tampers_with_is_written_again(shop: Shop) -> None:
    patch = json.dumps({"stringData": {"pgbouncer.ini": "[pgbouncer]\nno_such_setting = 1\n"}})
    shop.kubernetes.kubectl("patch", "secret", POOLER, "--type=merge", "-p", patch, namespace=shop.namespace)
    generation = shop.parameters(default_pool_size="17")
    shop.proved(generation)
    shop.at_rest()
    assert shop.psql("select 1") == "1"
