"""Reading the world: objects of the API server in, facts out. The API server is a dictionary."""

from __future__ import annotations

import asyncio
import base64

import pytest
from tests.pgweir_operator import worlds

from pgweir_operator.api.observed import ClusterFlavour
from pgweir_operator.kube import ForbiddenError
from pgweir_operator.observe import observe, pod_facts, secret_facts, watched

POOLER = worlds.pooler()


class Api:
    """What exists, by kind and name; what is forbidden is refused."""

    def __init__(self, *objects, forbidden=(), kinds=()):
        self.objects = {(item["kind"], item["metadata"]["name"]): item for item in objects}
        self.forbidden = forbidden
        self.kinds = kinds

    async def get(self, kind, namespace, name):
        assert namespace == "default"
        if kind in self.forbidden:
            raise ForbiddenError(403, f"{kind} is forbidden")
        return self.objects.get((kind, name))

    async def items(self, kind, namespace, *, labels=None):
        assert labels == "pgweir.io/poolerName=pooler"
        return [item for (known, _), item in self.objects.items() if known == kind]

    async def knows(self, api_version, kind):
        return kind in self.kinds


def item(kind, name, *, owner="", owner_kind="Pooler", **fields):
    metadata = {"name": name, "resourceVersion": "7", "uid": f"uid-{name}", "creationTimestamp": "2026-11-22T12:00:00Z"}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True, "kind": owner_kind}]
    return {"kind": kind, "metadata": metadata, **fields}


def secret(name, *, owner="", **data):
    encoded = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return item("Secret", name, owner=owner, type="Opaque", data=encoded)


def pod(name, *, owned=True, **status):
    return item("Pod", name, owner="rs" if owned else "", owner_kind="ReplicaSet", status=status)


def look(*objects, pooler=POOLER, **options):
    return asyncio.run(observe(Api(*objects, **options), pooler))


def look_at(*objects, pooler, **options):
    """The same for a Pooler of another name, which has no pods here."""

    class Elsewhere(Api):
        async def items(self, kind, namespace, *, labels=None):
            return []

    return asyncio.run(observe(Elsewhere(*objects, **options), pooler))


def test_a_cluster_is_found_by_its_contract():
    world = look(
        item("Service", "shop-rw"),
        secret("shop-superuser", username="postgres", password="x"),
        secret("shop-ca", ca_crt="C", ca_key="K"),
        secret("shop-server", tls_crt="C", tls_key="K"),
    )
    cluster = world.observed.cluster
    assert cluster.found
    assert cluster.flavour is ClusterFlavour.CONTRACT
    assert cluster.superuser.data["username"] == b"postgres"
    assert cluster.server_ca == cluster.client_ca
    assert cluster.server.name == "shop-server"


def test_a_cluster_object_names_its_own_secrets_and_wins():
    native = item(
        "Cluster", "shop", status={"certificates": {"serverCASecret": "own-ca", "clientCASecret": "own-client-ca"}}
    )
    world = look(
        native, secret("own-ca", ca_crt="S"), secret("own-client-ca", ca_crt="U"), secret("shop-ca", ca_crt="X")
    )
    cluster = world.observed.cluster
    assert cluster.flavour is ClusterFlavour.CLOUDNATIVEPG
    assert (cluster.server_ca.data["ca.crt"], cluster.client_ca.data["ca.crt"]) == (b"S", b"U")
    assert {("Secret", "own-ca"), ("Secret", "own-client-ca")} <= watched(POOLER, world).keys()


def test_edbs_cluster_object_is_found_under_its_own_kind_and_knows_the_role_of_the_contract():
    native = item("EdbCluster", "shop", status={"certificates": {"serverCASecret": "own-ca"}})
    cluster = look(native, secret("own-ca", ca_crt="S")).observed.cluster
    assert (cluster.object_kind, cluster.flavour) == ("EdbCluster", ClusterFlavour.CONTRACT)
    assert cluster.server_ca.name == "own-ca"


@pytest.mark.parametrize(
    ("replica", "follows"),
    [
        (None, False),
        ({"enabled": True, "source": "other"}, True),
        ({"enabled": False, "source": "other"}, False),
        ({"primary": "other", "source": "other"}, True),
        ({"primary": "shop", "source": "other"}, False),
        ({"primary": "here", "self": "here", "source": "other"}, False),
    ],
)
def test_a_cluster_that_follows_another_one_has_no_primary_to_insist_on(replica, follows):
    spec = {"replica": replica} if replica is not None else {}
    assert look(item("Cluster", "shop", spec=spec)).observed.cluster.in_recovery is follows


def test_what_may_not_be_read_is_as_if_it_did_not_exist():
    world = look(item("Service", "shop-rw"), item("Cluster", "shop"), forbidden=("Cluster", "PodMonitor"))
    assert world.observed.cluster.flavour is ClusterFlavour.CONTRACT


def test_a_pod_monitor_that_is_there_is_known_though_nobody_asks_for_it_any_more():
    assert not look(item("Service", "shop-rw"), kinds=("PodMonitor",)).observed.pod_monitors_known
    assert look(item("Service", "shop-rw"), item("PodMonitor", "pooler", owner="u")).observed.pod_monitors_known


def test_a_pods_image_and_whether_it_crashes_are_those_of_the_poolers_container():
    spec = {"containers": [{"name": "other", "image": "o"}, {"name": "pgbouncer", "image": "p:1"}]}
    states = {
        "CrashLoopBackOff": {"waiting": {"reason": "CrashLoopBackOff"}},
        "ImagePullBackOff": {"waiting": {"reason": "ImagePullBackOff"}},
        "ended": {"terminated": {"exitCode": 1}},
        "done": {"terminated": {"exitCode": 0}},
        "running": {"running": {}},
    }
    crashing = set()
    for name, state in states.items():
        rows = [{"name": "other", "state": {"terminated": {"exitCode": 1}}}, {"name": "pgbouncer", "state": state}]
        one = pod("a", containerStatuses=rows)
        facts = look(item("Service", "shop-rw"), {**one, "spec": spec}).observed.pods[0]
        assert facts.image == "p:1"
        crashing |= {name} if facts.crashing else set()
    assert crashing == {"CrashLoopBackOff", "ended"}


def test_a_plain_target_has_the_secrets_that_the_spec_names():
    pooler = worlds.pooler(target={"host": "db.example", "adminSecret": {"name": "admin"}})
    world = look(secret("admin", username="u"), pooler=pooler)
    assert world.observed.cluster.superuser.name == "admin"
    assert world.observed.cluster.flavour is ClusterFlavour.PLAIN
    assert world.observed.secrets["admin"] is not None


def test_a_secret_that_does_not_exist_is_none():
    pooler = worlds.pooler(pgbouncer={"clientTLSSecret": {"name": "missing"}})
    assert look(pooler=pooler).observed.secrets == {"missing": None}
    assert ("Secret", "missing") in watched(pooler)


def test_strangers_are_named_and_our_own_children_are_not():
    world = look(
        item("Service", "pooler"),
        item("Deployment", "pooler", owner="somebody-else"),
        secret("pooler", owner=worlds.UID),
    )
    assert world.observed.strangers == ("Deployment pooler", "Service pooler")
    assert world.observed.bundle.owned


@pytest.mark.parametrize(
    ("host", "full"),
    [("postgres", "postgres.default.svc"), ("Postgres", "postgres.default.svc"), ("other", ""), ("10.0.0.1", "")],
)
def test_a_target_that_is_a_service_here_is_known_by_its_full_name(host, full):
    pooler = worlds.pooler(target={"host": host})
    assert look(item("Service", "postgres"), pooler=pooler).observed.cluster.service_host == full


def test_an_account_that_the_spec_names_is_nobodys_child():
    pooler = worlds.pooler(serviceAccountName="theirs")
    assert look(item("ServiceAccount", "theirs"), pooler=pooler).observed.strangers == ()
    assert not look(pooler=pooler).observed.service_account_exists


def test_an_account_that_the_spec_names_is_watched_whether_it_is_there_or_not():
    pooler = worlds.pooler(serviceAccountName="theirs")
    assert watched(pooler, look(pooler=pooler))["ServiceAccount", "theirs"] == ""
    there = item("ServiceAccount", "theirs")
    version = there["metadata"]["resourceVersion"]
    assert watched(pooler, look(there, pooler=pooler))["ServiceAccount", "theirs"] == version
    assert not [kind for kind, _ in watched(POOLER) if kind != "Secret"]


@pytest.mark.parametrize(("status", "refused"), [("True", "exceeded quota"), ("False", "")])
def test_why_the_api_server_takes_no_more_pods_is_read_from_the_deployment(status, refused):
    row = {"type": "ReplicaFailure", "status": status, "reason": "FailedCreate", "message": "exceeded quota"}
    deployment = {**item("Deployment", "pooler", owner=worlds.UID), "status": {"conditions": [row]}}
    assert look(deployment).observed.deployment.refused == refused


def test_a_cluster_of_the_poolers_name_is_noticed():
    assert look().observed.name_taken_by is None
    assert "pooler-rw" in look(item("Service", "pooler-rw")).observed.name_taken_by
    assert look(item("Cluster", "pooler")).observed.name_taken_by == "Cluster pooler"


@pytest.mark.parametrize("ending", ["rw", "ro", "r", "superuser", "app", "ca", "server", "replication"])
def test_a_cluster_whose_service_or_secret_would_have_the_poolers_name_is_noticed(ending):
    pooler = worlds.pooler(f"other-{ending}")
    assert look_at(item("Cluster", "other"), pooler=pooler).observed.name_taken_by == "Cluster other"
    assert look_at(item("Cluster", "another"), pooler=pooler).observed.name_taken_by is None
    assert look_at(pooler=pooler, forbidden=("Cluster",)).observed.name_taken_by is None


def test_a_pod_that_somebody_labelled_by_hand_is_none_of_the_fleet():
    world = look(pod("one", podIP="10.0.0.1", phase="Running"), pod("stray", owned=False))
    assert [fact.name for fact in world.observed.pods] == ["one"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes fit"}]}, "0/3 nodes fit"),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
            "ImagePullBackOff: no such image",
        ),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled"}}}]}, "OOMKilled"),
        ({}, ""),
    ],
)
def test_a_pod_that_is_not_ready_says_why_in_kubernetes_own_words(status, message):
    facts = pod_facts(pod("one", **status))
    assert facts.message == message
    assert not facts.ready


def test_data_that_is_no_base64_is_empty_and_not_the_end():
    assert secret_facts({**item("Secret", "x"), "data": {"a": "%%%not base64"}}).data == {"a": b""}
