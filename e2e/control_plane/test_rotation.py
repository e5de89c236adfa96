"""Live configuration: a rotated Secret of every kind reaches every pod within seconds, and nothing takes a revision back."""

from __future__ import annotations

import time

import pytest
from e2e.control_plane.harness import wait
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)

from pgweir_operator.integration.certificates import authority, client_certificate, server_certificate

SECONDS = 5.0
QUERY = "SELECT usename, passwd FROM pgweir.user_search($1)"


def text(pair):
    return {"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()}


def certificate(name):
    return text(client_certificate(authority("theirs", now=time.time()), name, now=time.time()))


# The field that names it, and what makes a fresh version of it.
KINDS = {
    "authQuerySecret": lambda: {"username": "me", "password": f"secret-{time.monotonic_ns()}"},
    "serverTLSSecret": lambda: certificate("me"),
    "serverCASecret": lambda: {"ca.crt": authority("server", now=time.time()).certificate.decode()},
    "clientTLSSecret": lambda: certificate("shown"),
    "clientCASecret": lambda: {"ca.crt": authority("client", now=time.time()).certificate.decode()},
}


def everywhere(world, data):
    """Each value (but names) is in a file of every pod, byte for byte."""
    values = [value.encode() for key, value in data.items() if key != "username"]
    return all(any(value in content for content in fake.files.values()) for fake in world.fakes() for value in values)


@pytest.mark.parametrize("field", KINDS)
def test_a_secret_that_the_spec_names_reaches_every_pod_when_it_is_rotated(world, field):
    world.has_cluster()
    world.secret("login", username="me", password="first")
    world.start_operator(recheck=60.0)
    data = KINDS[field]()
    world.secret("mine", data=data)
    lookup = {"authQuery": QUERY, "authQuerySecret": {"name": "login"}}
    world.pooler(**{**lookup, field: {"name": "mine"}})
    world.until("ConfigurationApplied", "True")
    assert everywhere(world, data)
    pods = set(world.kubelet.pods)
    for _ in range(2):
        data = KINDS[field]()
        world.secret("mine", data=data)
        wait(lambda: everywhere(world, data), f"{field} is everywhere", SECONDS)  # noqa: B023 (waited for here)
    world.until("ConfigurationApplied", "True")
    assert set(world.kubelet.pods) == pods, "no pod was replaced"


def test_the_clusters_own_certificates_reach_every_pod_when_they_are_rotated(world):
    world.has_cluster(ca_key=False)
    world.secret("shop-server", data=certificate("shop-rw"))
    world.secret("login", username="me", password="first")
    world.start_operator(recheck=60.0)
    world.pooler(authQuery=QUERY, authQuerySecret={"name": "login"})
    world.until("ConfigurationApplied", "True")
    now = time.time()
    renewed = authority("shop's next CA", now=now)
    shown = text(server_certificate(renewed, ["shop-rw"], now=now))
    world.secret("shop-server", data=shown)
    wait(lambda: everywhere(world, shown), "the server's certificate is everywhere", SECONDS)
    chain = {"ca.crt": renewed.certificate.decode()}
    world.secret("shop-ca", data=chain)
    wait(lambda: everywhere(world, chain), "the authority is everywhere", SECONDS)


def test_a_mounted_secret_that_somebody_takes_back_is_overtaken_and_no_pod_goes_back(ready):  # noqa: F811
    old = ready.get("Secret", "pooler")
    ready.pooler(parameters={"default_pool_size": "7"})
    wait(lambda: all(b"= 7" in fake.files["pgbouncer.ini"] for fake in ready.fakes()), "the push")
    ready.until("Ready", "True")
    revision = ready.revision()
    # A stale leader, or a backup that is restored: the Secret of yesterday.
    current = ready.get("Secret", "pooler")
    stale = {**old, "metadata": {**old["metadata"], "resourceVersion": current["metadata"]["resourceVersion"]}}
    stale["metadata"].pop("managedFields", None)
    ready.run(ready.kube.replace({"apiVersion": "v1", "kind": "Secret", **stale}))
    wait(lambda: ready.revision() >= revision, "the bundle is written again")
    wait(lambda: b"= 7" in ready.files()["pgbouncer.ini"], "with what the spec says")
    ready.until("Ready", "True")
    assert all(fake.revision >= revision and b"= 7" in fake.files["pgbouncer.ini"] for fake in ready.fakes())
