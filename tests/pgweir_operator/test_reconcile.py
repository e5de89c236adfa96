"""The whole story of a pass, with an API server that is a dictionary, pods that are fake, and a PostgreSQL that agrees.

What needs a real API server or a real PostgreSQL is in e2e/control_plane and in integration/.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import time

import pytest
from tests.pgweir_operator import worlds
from tests.pgweir_operator.fleet.fake_pod import FakePod
from tests.pgweir_operator.stories import until
from tests.postgres.server import free_port

from pgweir_operator import reconcile
from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.names import FINALIZER
from pgweir_operator.integration import provisioning
from pgweir_operator.integration.certificates import DAY, authority, server_certificate
from pgweir_operator.kube import ApiError, ConflictError, InvalidError, NotFoundError
from pgweir_operator.kube.cache import Cache
from pgweir_operator.kube.events import Events
from pgweir_operator.kube.watches import ObjectWatches
from pgweir_operator.passes import Memory, Options
from pgweir_operator.reconcile import Reconciler
from pgweir_operator.switchover import Switchovers

CA = authority("shop's CA", now=time.time())
TERMINATE = "POST /v1/holders/terminate"


class Api:
    """As much of an API server as a pass uses, in memory."""

    def __init__(self):
        self.objects = {}
        self.version = 0
        self.applied = []
        self.refuses = {}
        self.events = []

    def put(self, kind, name, **content):
        self.version += 1
        before = self.objects.get((kind, name), {})
        made = {"creationTimestamp": "2026-11-22T12:00:00Z", "uid": f"uid-{kind}-{name}"}
        metadata = {**made, **before.get("metadata", {}), **content.pop("metadata", {})}
        metadata |= {"name": name, "namespace": "default", "resourceVersion": str(self.version)}
        self.objects[kind, name] = {**before, "kind": kind, "metadata": metadata, **copy.deepcopy(content)}
        return copy.deepcopy(self.objects[kind, name])

    def secret(self, name, **data):
        encoded = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
        self.put("Secret", name, type="Opaque", data=encoded)

    async def get(self, kind, namespace, name):
        await asyncio.sleep(0)
        return copy.deepcopy(self.objects.get((kind, name)))

    async def items(self, kind, namespace, *, labels=None):
        return [
            copy.deepcopy(item)
            for (known, _), item in self.objects.items()
            if known == kind and namespace in {"", item["metadata"]["namespace"]}
        ]

    async def knows(self, api_version, kind):
        return any(kind == known for known, _ in self.objects)

    async def apply(self, manifest, *, dry_run=False):
        if error := self.refuses.get(manifest["kind"]):
            raise error
        if dry_run:
            return manifest
        self.applied.append((manifest["kind"], manifest["metadata"]["name"]))
        content = {key: value for key, value in manifest.items() if key not in {"kind", "apiVersion"}}
        return self.put(manifest["kind"], manifest["metadata"]["name"], **content)

    async def create(self, manifest):
        self.events.append((manifest["reason"], manifest["note"]))
        return manifest

    async def merge_status(self, kind, namespace, name, part):
        merged = {**(self.objects[kind, name].get("status") or {}), **part}
        return self.put(kind, name, status={key: value for key, value in merged.items() if value is not None})

    async def changes(self, kind, namespace, name, label="", *, since=""):
        if (found := self.objects.get((kind, name))) is not None:
            yield {"type": "ADDED", "object": copy.deepcopy(found)}
        await asyncio.Event().wait()

    async def set_finalizers(self, target, finalizers):
        before = self.objects.get((target["kind"], target["metadata"]["name"]))
        if before is None:
            raise NotFoundError(404, "not found")
        if before["metadata"]["resourceVersion"] != target["metadata"]["resourceVersion"]:
            raise ConflictError(409, "the object has been modified")
        return self.put(target["kind"], target["metadata"]["name"], metadata={"finalizers": finalizers})

    async def delete(self, kind, namespace, name, *, uid):
        assert self.objects.pop((kind, name))["metadata"]["uid"] == uid


class Scene:
    """One Pooler, its world, and verbs."""

    def __init__(self, **options):
        self.api = Api()
        self.memory = Memory()
        self.now = time.time()
        self.events = Events(self.api, instance="test")
        self.switchovers = Switchovers(self.api, self.events, lambda key: None, clock=lambda: self.now)
        self.pods = []
        self.options = {"image": "pooler:test", "control_port": free_port(), **options}
        self.api.put("Service", "shop-rw")
        self.api.secret("shop-superuser", username=b"postgres", password=b"pw")
        self.api.secret("shop-ca", ca_crt=CA.certificate, ca_key=CA.key)
        self.spec()

    def spec(self, **spec):
        generation = self.api.objects.get(("Pooler", "pooler"), {}).get("metadata", {}).get("generation", 0) + 1
        self.api.put(
            "Pooler",
            "pooler",
            metadata={"generation": generation, "uid": worlds.UID},
            spec={"cluster": {"name": "shop"}, "instances": 1, **spec},
        )

    async def look(self):
        options = Options(**self.options)
        cache = Cache(self.api, ObjectWatches(self.api, lambda watcher, change: None))
        reconciler = Reconciler(self.api, cache, self.events, options, self.switchovers, clock=lambda: self.now)
        self.outcome = await reconciler.reconcile("default", "pooler", self.memory)
        return self.outcome

    async def start_pod(self):
        data = self.data("pooler-control")
        address = f"127.0.0.{len(self.pods) + 1}"
        fake = FakePod(f"pooler-{len(self.pods)}", data["ca.crt"], data["tls.crt"], data["tls.key"], address)
        fake.port = self.options["control_port"]
        await fake.start()
        self.pods.append(fake)
        owner = [{"uid": "rs", "controller": True, "kind": "ReplicaSet"}]
        ready = {"type": "Ready", "status": "True"}
        self.api.put(
            "Pod",
            fake.name,
            metadata={"ownerReferences": owner},
            status={"podIP": fake.address, "phase": "Running", "conditions": [ready]},
        )
        counts = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        self.api.put("Deployment", "pooler", status=counts)
        return fake

    def data(self, name):
        return {key: base64.b64decode(value) for key, value in self.api.objects["Secret", name]["data"].items()}

    def revision(self):
        return json.loads(self.data("pooler")["bundle.json"])["revision"]

    def replicas(self):
        return self.api.objects["Deployment", "pooler"]["spec"]["replicas"]

    def status(self):
        return self.api.objects["Pooler", "pooler"]["status"]

    def condition(self, kind):
        rows = self.status()["conditions"]
        return next((row["status"], row["reason"], row["message"]) for row in rows if row["type"] == kind)

    async def close(self):
        await self.switchovers.close()
        await self.memory.close()
        for pod in self.pods:
            await pod.stop()


@pytest.fixture
def target(monkeypatch):
    """A PostgreSQL that agrees, unless told otherwise."""

    class Target:
        error = None
        withdrawn = 0
        asked = 0
        capacity = None

        async def provision(self, endpoint, admin, spec):
            self.asked += 1
            if self.error:
                raise self.error
            return provisioning.Made(password=spec.password)

        async def check_login(self, endpoint, login, *, query, database):
            return self.capacity

        async def withdraw(self, endpoint, admin, spec):
            if self.error:
                raise self.error
            self.withdrawn += 1
            return ()

    made = Target()
    for name in ("provision", "check_login", "withdraw"):
        monkeypatch.setattr(provisioning, name, getattr(made, name))
    return made


def story(test, **options):
    async def run():
        scene = Scene(**options)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(scene.close)
            await test(scene)

    asyncio.run(asyncio.wait_for(run(), 60))


async def ready(scene):
    await scene.look()
    pod = await scene.start_pod()
    await scene.look()
    assert scene.condition("Ready")[0] == "True", scene.condition("Ready")
    return pod


def test_from_nothing_to_ready(target):
    async def test(scene):
        await ready(scene)
        assert scene.pods[0].digest == scene.api.objects["Pooler", "pooler"]["status"]["configDigest"]
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == [FINALIZER]
        assert "AllPodsReady" in {reason for reason, _ in scene.api.events}
        assert {("Secret", "shop-superuser"), ("Secret", "shop-ca")} <= scene.outcome.watched.keys()

    story(test)


def test_a_pass_that_finds_everything_in_place_writes_and_asks_nothing(target):
    async def test(scene):
        await ready(scene)
        await scene.look()
        scene.api.applied.clear()
        version, asked = scene.api.version, target.asked
        outcome = await scene.look()
        assert scene.api.applied == []
        assert scene.api.version == version, "not even the status"
        assert target.asked == asked
        assert outcome.again == pytest.approx(30.0)

    story(test)


def test_a_child_that_somebody_edited_is_written_again(target):
    async def test(scene):
        await ready(scene)
        await scene.look()
        scene.api.applied.clear()
        scene.api.put("Service", "pooler", spec={"ports": []})
        await scene.look()
        assert scene.api.applied == [("Service", "pooler")]

    story(test)


def test_the_revision_grows_with_the_content_alone_and_survives_a_restart_and_a_deleted_secret(target):
    async def test(scene):
        pod = await ready(scene)
        first = scene.revision()
        scene.memory.integration = None
        await scene.memory.close()
        scene.memory = Memory()
        await scene.look()
        assert scene.revision() == first
        scene.spec(pgbouncer={"parameters": {"default_pool_size": "5"}})
        await scene.look()
        assert scene.revision() == pod.revision == first + 1
        del scene.api.objects["Secret", "pooler"]
        await scene.look()
        assert (
            scene.revision() > first + 1
            or pod.digest == scene.api.objects["Pooler", "pooler"]["status"]["configDigest"]
        )
        assert pod.revision == scene.revision()

    story(test)


def test_a_pod_with_another_content_at_our_revision_is_overtaken(target):
    async def test(scene):
        pod = await ready(scene)
        pod.digest = "what a former leader pushed"
        await scene.look()
        assert pod.revision == scene.revision()
        assert pod.digest == scene.api.objects["Pooler", "pooler"]["status"]["configDigest"]

    story(test)


def test_an_impossible_spec_stops_before_the_first_write_and_says_all_at_once(target):
    async def test(scene):
        pod = await ready(scene)
        scene.api.applied.clear()
        scene.spec(pgbouncer={"parameters": {"default_pool_size": "many", "nonsense": "1"}})
        await scene.look()
        status, reason, message = scene.condition("Ready")
        assert (status, reason) == ("False", "InvalidSpec")
        assert "default_pool_size" in message
        assert "nonsense" in message
        assert scene.api.applied == []
        assert scene.condition("ConfigurationApplied")[1] == "NotRendered"
        assert pod.asked[-1] == "GET /v1/status", "its pods are still asked how they are"

    story(test)


def test_an_account_that_is_missing_is_named_and_is_enough_when_it_comes(target):
    async def test(scene):
        await ready(scene)
        scene.spec(serviceAccountName="their-own")
        await scene.look()
        status, reason, message = scene.condition("Ready")
        assert (status, reason) == ("False", "MissingServiceAccount")
        assert "'their-own'" in message
        assert scene.status()["phase"] == "inactive", "it waits for something to appear"
        scene.api.put("ServiceAccount", "their-own")
        await scene.look()
        assert (
            scene.api.objects["Deployment", "pooler"]["spec"]["template"]["spec"]["serviceAccountName"] == "their-own"
        )

    story(test)


def test_a_template_that_would_be_refused_changes_no_child(target):
    async def test(scene):
        await ready(scene)
        scene.api.applied.clear()
        scene.api.refuses["Deployment"] = InvalidError(422, "spec.template: no such field")
        scene.spec(pgbouncer={"parameters": {"default_pool_size": "5"}})
        scene.api.objects["Deployment", "pooler"]["metadata"]["labels"] = {"changed": "by hand"}
        await scene.look()
        assert scene.condition("Ready")[1] == "InvalidTemplate"
        assert scene.api.applied == []

    story(test)


def test_a_trouble_of_the_api_server_is_a_condition_too(target):
    async def test(scene):
        scene.api.refuses["Service"] = ApiError(503, "etcd has no leader")
        outcome = await scene.look()
        assert scene.condition("Ready")[1:] == ("ReconcileFailed", "The API server failed: etcd has no leader")
        assert outcome.again <= 5.0

    story(test)


def test_a_failing_target_is_asked_again_after_its_delay_and_costs_no_pod_anything(target):
    async def test(scene):
        await ready(scene)
        files = scene.data("pooler")
        target.error = PrerequisiteError(Reason.TARGET_UNAVAILABLE, "it is away.", retry_after=7.0)
        scene.now += 301
        outcome = await scene.look()
        assert scene.condition("Integrated")[:2] == ("False", "TargetUnavailable")
        assert outcome.again <= 7.0
        assert scene.data("pooler") == files
        asked = target.asked
        await scene.look()
        assert target.asked == asked, "not before its delay"
        target.error = None
        scene.now += 8
        await scene.look()
        assert scene.condition("Integrated")[0] == "True"

    story(test)


def test_a_pod_whose_lookup_fails_makes_us_look_at_once(target):
    async def test(scene):
        pod = await ready(scene)
        asked = target.asked
        pod.lookup = {"ok": False, "lastError": "permission denied for function user_search"}
        await scene.look()
        assert target.asked == asked + 1

    story(test)


def test_a_pause_is_watched_closely_until_it_is_proved(target):
    async def test(scene):
        pod = await ready(scene)
        pod.hold(serverPid=99)
        scene.spec(paused=True)
        outcome = await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "Pausing")
        assert "99" in scene.condition("Paused")[2]
        assert outcome.again < 1
        scene.now += 121
        await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "PauseTimedOut")
        assert pod.paused, "onTimeout is Wait"
        pod.let_go()
        await scene.look()
        assert scene.condition("Paused")[0] == "True"

    story(test)


def test_a_pause_and_a_resume_reach_the_pods_before_the_world_is_looked_at(target, monkeypatch):
    async def test(scene):
        pod = await ready(scene)
        await scene.look()
        seen = []
        look = reconcile.observe

        async def observe(*args):
            seen.append(pod.paused)
            return await look(*args)

        monkeypatch.setattr(reconcile, "observe", observe)
        asked = target.asked
        target.error = ApiError(0, "PostgreSQL is away")  # nobody asks: a pause is no matter of the target's
        for wish in (True, False, True, False):
            scene.spec(paused=wish)
            await scene.look()
            assert seen.pop() is wish
            assert scene.condition("Paused")[0] == str(wish)
            assert scene.condition("Ready")[0] == "True"
            assert pod.revision == scene.revision(), "the pass writes down what it proved"
        assert target.asked == asked

        scene.spec(paused=True, pgbouncer={"parameters": {"default_pool_size": "7"}})
        target.error = None
        await scene.look()
        assert seen.pop() is False, "what is more than a pause goes the whole way"
        assert pod.paused
        assert scene.revision() == pod.revision

    story(test)


def test_a_pause_past_its_deadline_closes_the_holders_where_the_spec_says_so(target):
    async def test(scene):
        pod = await ready(scene)
        pod.hold(serverPid=99)
        pod.hold(serverPid=100)
        scene.spec(paused=True, pause={"timeoutSeconds": 5, "onTimeout": "Terminate"})
        await scene.look()
        scene.now += 4
        await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "Pausing")
        assert TERMINATE not in pod.asked, "not before the deadline"
        scene.now += 2
        await scene.look()
        assert scene.condition("Paused")[0] == "True"
        scene.now += 60
        await scene.look()
        assert pod.asked.count(TERMINATE) == 1
        told = [note for reason, note in scene.api.events if reason == "HoldersTerminated"]
        assert told == [
            f"Pod pooler-0: closed 2 clients that still held a server when the pause of revision {scene.revision()} had "
            "waited for 5 s (pause.onTimeout is Terminate)."
        ]
        scene.spec(paused=False)
        await scene.look()
        assert pod.state == "active"

    story(test)


def test_a_pod_that_drains_and_holds_servers_is_waited_for_and_has_the_same_deadline(target):
    async def test(scene):
        pod = await ready(scene)
        pod.hold()
        pod.draining = True
        scene.spec(paused=True, pause={"timeoutSeconds": 5, "onTimeout": "Terminate"})
        outcome = await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "Pausing")
        assert outcome.again < 1
        scene.now += 6
        await scene.look()
        assert scene.condition("Paused")[0] == "True"
        assert pod.asked.count(TERMINATE) == 1

    story(test)


def test_a_pod_that_is_away_at_the_deadline_closes_its_holders_when_it_is_back(target):
    async def test(scene):
        pod = await ready(scene)
        pod.hold()
        scene.spec(paused=True, pause={"timeoutSeconds": 5, "onTimeout": "Terminate"})
        await scene.look()
        await pod.stop()
        scene.now += 6
        await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "PauseTimedOut")
        await pod.start()
        await scene.look()
        assert scene.condition("Paused")[0] == "True"
        assert pod.asked.count(TERMINATE) == 1

    story(test)


def test_the_deadline_of_a_pause_outlives_the_operator(target):
    async def test(scene):
        pod = await ready(scene)
        pod.hold(serverPid=99)
        scene.spec(paused=True, pause={"timeoutSeconds": 5})
        await scene.look()
        since = scene.status()["pausingSince"]
        scene.now += 4
        await scene.memory.close()
        scene.memory = Memory()  # Another process.
        await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "Pausing")
        assert scene.status()["pausingSince"] == since
        scene.now += 2.1
        await scene.look()
        assert scene.condition("Paused")[:2] == ("False", "PauseTimedOut")
        pod.let_go()
        await scene.look()
        assert scene.condition("Paused")[0] == "True"
        assert "pausingSince" not in scene.status()

    story(test)


def test_a_pause_that_was_given_up_stays_so_until_the_spec_changes(target):
    async def test(scene):
        pod = await ready(scene)
        pod.hold()
        scene.spec(paused=True, pause={"timeoutSeconds": 5, "onTimeout": "Resume"})
        await scene.look()
        scene.now += 6
        await scene.look()
        assert pod.state == "active"
        assert json.loads(scene.data("pooler")["bundle.json"])["paused"] is False, (
            "a pod that starts now is active, too"
        )
        assert "every pod resumed" in scene.condition("Paused")[2]
        assert scene.condition("ConfigurationApplied")[0] == "True"
        await scene.memory.close()
        scene.memory = Memory()
        await scene.look()
        assert pod.state == "active", "a new leader does not begin again"
        assert scene.condition("Paused")[:2] == ("False", "PauseTimedOut")
        pod.let_go()
        scene.spec(paused=True)
        await scene.look()
        assert scene.condition("Paused")[0] == "True"

    story(test)


def test_under_a_budget_every_shrink_is_acknowledged_before_any_growth(target):
    async def test(scene):
        scene.spec(connectionBudget=60, instances=1)
        pod = await ready(scene)
        assert b"max_server_connections = 30" in scene.data("pooler")["pgbouncer.ini"]
        pod.servers = 28
        scene.spec(connectionBudget=60, instances=3)
        outcome = await scene.look()
        assert b"max_server_connections = 15" in pod.files["pgbouncer.ini"]
        assert scene.replicas() == 1, "it has its share, and has not come down to it"
        assert outcome.again <= 0.5
        await scene.look()
        assert scene.replicas() == 1
        assert "pooler-0 (28 servers, 15 are its)" in scene.condition("WithinConnectionBudget")[2]
        pod.servers = 15
        await scene.look()
        assert scene.replicas() == 3
        await scene.start_pod()
        await scene.start_pod()
        await scene.look()
        assert b"max_server_connections = 15" in scene.data("pooler")["pgbouncer.ini"]
        # Fewer again: what those that go have had is given out when they are gone.
        scene.spec(connectionBudget=60, instances=1)
        await scene.look()
        assert scene.replicas() == 1
        assert b"max_server_connections = 20" in scene.data("pooler")["pgbouncer.ini"]
        del scene.api.objects["Pod", "pooler-1"], scene.api.objects["Pod", "pooler-2"]
        await scene.look()
        assert b"max_server_connections = 30" in pod.files["pgbouncer.ini"]

    story(test)


def test_a_pod_that_does_not_answer_holds_more_pods_back(target):
    async def test(scene):
        scene.spec(connectionBudget=60, instances=1)
        pod = await ready(scene)
        await pod.stop()
        scene.spec(connectionBudget=60, instances=3)
        await scene.look()
        await scene.look()
        assert scene.replicas() == 1
        assert "pooler-0 (its share is not acknowledged)" in scene.condition("WithinConnectionBudget")[2]

    story(test)


def test_what_postgresql_has_room_for_is_read_at_the_lookups_login_and_kept(target):
    async def test(scene):
        target.capacity = TargetCapacity(100, 3)
        scene.spec(instances=1, pgbouncer={"parameters": {"default_pool_size": "128"}})
        await scene.look()
        status, reason, message = scene.condition("WithinConnectionBudget")
        assert (status, reason) == ("False", "OverBudget")
        assert "138" in message
        assert "max_connections 100" in message
        target.error = PrerequisiteError(Reason.TARGET_UNAVAILABLE, "away")
        scene.now += 301
        await scene.look()
        assert scene.condition("WithinConnectionBudget")[0] == "False"

    story(test)


def test_going_takes_back_what_was_provisioned_and_lets_go(target):
    async def test(scene):
        await ready(scene)
        scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"})
        await scene.look()
        assert target.withdrawn == 1
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []
        del scene.api.objects["Pooler", "pooler"]
        assert (await scene.look()).gone

    story(test)


def test_a_pooler_that_goes_while_its_target_is_away_waits_ten_minutes_and_no_longer(target):
    async def test(scene):
        await ready(scene)
        scene.api.put("Namespace", "default")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(scene.now))
        scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": stamp})
        target.error = PrerequisiteError(Reason.TARGET_UNAVAILABLE, "it is away.")
        outcome = await scene.look()
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == [FINALIZER]
        assert outcome.again <= 10.0
        scene.now += 601
        await scene.look()
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []
        assert "WithdrawalAbandoned" in {reason for reason, _ in scene.api.events}

    story(test)


def test_in_a_namespace_that_goes_nobody_waits(target):
    async def test(scene):
        await ready(scene)
        scene.api.put("Namespace", "default", metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"})
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(scene.now))
        scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": stamp})
        target.error = PrerequisiteError(Reason.TARGET_UNAVAILABLE, "it is away.")
        await scene.look()
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []

    story(test)


def test_a_pooler_that_is_made_anew_under_the_same_name_is_another_one(target):
    async def test(scene):
        await ready(scene)
        asked = target.asked
        scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"})
        await scene.look()
        assert target.withdrawn == 1
        # The garbage collector and a new Pooler are both faster than the next pass.
        mine = [key for key, item in scene.api.objects.items() if item["metadata"].get("ownerReferences")]
        for key in [key for key in mine if key[0] != "Pod"]:
            del scene.api.objects[key]
        del scene.api.objects["Pooler", "pooler"]
        scene.spec()
        scene.api.objects["Pooler", "pooler"]["metadata"]["uid"] = "another"
        await scene.look()
        assert target.asked == asked + 1, "what was taken back for the other is made for this one"
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == [FINALIZER]

    story(test)


def test_a_pooler_that_goes_and_cannot_be_read_any_more_holds_nobody_up(target):
    async def test(scene):
        await ready(scene)
        gone = {"deletionTimestamp": "2026-11-22T12:00:00Z"}
        scene.api.put("Pooler", "pooler", metadata=gone, spec={"instances": "of an older version's"})
        await scene.look()
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []
        assert "WithdrawalAbandoned" in {reason for reason, _ in scene.api.events}

    story(test)


def test_a_pooler_that_somebody_edits_while_it_is_provisioned_for_is_held_all_the_same(target, monkeypatch):
    async def test(scene):
        async def check_login(endpoint, login, *, query, database):
            scene.api.put("Pooler", "pooler", metadata={"annotations": {"by": "hand"}, "finalizers": ["theirs"]})

        monkeypatch.setattr(provisioning, "check_login", check_login)
        await scene.look()
        assert scene.condition("Integrated")[0] == "True"
        assert scene.condition("Ready")[1] != "ReconcileFailed"
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == ["theirs", FINALIZER]

    story(test)


def test_a_certificate_that_nobody_renews_is_told_each_day_and_stops_nothing(target):
    def told(scene):
        return [note for reason, note in scene.api.events if reason == "CertificateExpires"]

    async def test(scene):
        await ready(scene)
        assert told(scene) == []
        pair = server_certificate(CA, ["x"], now=scene.now - 87 * DAY, lifetime=90 * DAY)
        scene.api.secret("front", tls_crt=pair.certificate, tls_key=pair.key)
        scene.spec(pgbouncer={"clientTLSSecret": {"name": "front"}})
        for _ in range(3):
            await scene.look()
        status, _, message = scene.condition("Ready")
        assert status == "True"
        assert "spec.pgbouncer.clientTLSSecret: front" in message
        assert scene.outcome.is_expiring
        assert len(told(scene)) == 1
        scene.now += DAY + 1
        scene.events._said.clear()  # ten minutes have passed there, too
        await scene.look()
        assert len(told(scene)) == 2
        pair = server_certificate(CA, ["x"], now=scene.now)
        scene.api.secret("front", tls_crt=pair.certificate, tls_key=pair.key)
        await scene.look()
        assert not scene.outcome.is_expiring

    story(test)


def test_a_pooler_that_gets_secrets_of_its_own_gives_back_what_was_provisioned(target):
    async def test(scene):
        await ready(scene)
        scene.api.secret("mine", username=b"me", password=b"pw")
        scene.spec(pgbouncer={"authQuery": "SELECT 1", "authQuerySecret": {"name": "mine"}})
        await scene.look()
        assert target.withdrawn == 1
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []
        assert scene.condition("Integrated")[1] == "Manual"

    story(test)


def test_it_is_given_back_when_every_pod_has_proved_the_users_own_lookup_and_not_before(target):
    async def test(scene):
        pod = await ready(scene)
        before = scene.data("pooler")
        scene.spec(pgbouncer={"authQuery": "SELECT 1", "authQuerySecret": {"name": "mistyped"}})
        await scene.look()
        assert scene.condition("Ready")[1] == "MissingSecret"
        assert (scene.data("pooler"), target.withdrawn) == (before, 0), "its pods go on with what they have"
        scene.api.secret("mistyped", username=b"me", password=b"pw")
        await pod.stop()  # it cannot be told
        await scene.look()
        assert target.withdrawn == 0
        await pod.start()
        await scene.look()
        assert target.withdrawn == 1

    story(test)


def test_one_that_nothing_was_made_for_keeps_nothing_in_postgresql(target):
    async def test(scene):
        await ready(scene)
        scene.api.put("Pooler", "second", metadata={"uid": "2"}, spec=scene.api.objects["Pooler", "pooler"]["spec"])
        scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"})
        await scene.look()
        assert target.withdrawn == 1, "it has no finalizer, and could not take it back when it goes"

    story(test)


def test_without_the_clusters_authority_pods_are_never_told_to_trust_anybody(target):
    async def test(scene):
        pod = await ready(scene)
        files = dict(pod.files)
        del scene.api.objects["Secret", "shop-ca"]
        await scene.look()
        assert scene.condition("Ready")[1] == "MissingSecret"
        assert pod.files == files
        assert b"verify-ca" in scene.data("pooler")["pgbouncer.ini"]

    story(test)


def test_an_object_that_is_no_pooler_says_so(target):
    async def test(scene):
        scene.api.put("Pooler", "pooler", spec={"cluster": {"name": "shop"}, "instances": "three"})
        await scene.look()
        status, reason, message = scene.condition("Ready")
        assert (status, reason) == ("False", "InvalidSpec")
        assert "instances" in message

    story(test)


def test_a_pass_that_stumbles_says_so_in_the_status_and_not_what_it_stumbled_over(target, monkeypatch):
    async def test(scene):
        await ready(scene)

        async def observe(*args):
            raise TypeError("hunter2 is no password")

        with monkeypatch.context() as broken:
            broken.setattr(reconcile, "observe", observe)
            with pytest.raises(TypeError):
                await scene.look()
        status, reason, message = scene.condition("Ready")
        assert (status, reason) == ("False", "ReconcileFailed")
        assert "stumbled" in message
        assert "hunter2" not in message
        await scene.look()
        assert scene.condition("Ready")[0] == "True"

    story(test)


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_clock_that_jumps_costs_one_more_look_at_the_target(target, jump):
    async def test(scene):
        await ready(scene)
        asked = target.asked
        await scene.look()
        assert target.asked == asked
        scene.now += jump
        await scene.look()
        assert target.asked == asked + 1
        assert scene.condition("Ready")[0] == "True"

    story(test)


def test_a_cluster_object_full_of_nonsense_is_one_that_says_nothing(target):
    async def test(scene):
        for nonsense in (
            [],
            "x",
            {"certificates": "x", "currentPrimary": {}, "instancesReportedState": [1], "phase": 7},
        ):
            scene.api.put("Cluster", "shop", status=nonsense, spec=nonsense)
            await scene.look()
            assert scene.condition("Ready")[1] not in {"ReconcileFailed", ""}, scene.condition("Ready")
        names = {"serverCASecret": "../../../v1/secrets", "clientCASecret": "a/b"}
        scene.api.put("Cluster", "shop", status={"certificates": names})
        outcome = await scene.look()
        assert not [name for _, name in outcome.watched if "/" in name]

    story(test)


# --- a switchover ----------------------------------------------------------------------------------------------------


def test_a_pass_in_the_middle_of_a_switchover_concludes_nothing_from_a_primary_that_is_away(target):
    async def test(scene):
        scene.api.put("Cluster", "shop", status={"currentPrimary": "shop-1", "targetPrimary": "shop-1"})
        pod = await ready(scene)
        scene.switchovers.forget(("default", "pooler"))  # The watch begins anew, with what is there now.
        scene.api.put("Cluster", "shop", status={"currentPrimary": "shop-1", "targetPrimary": "shop-2"})
        await scene.look()
        await until(lambda: pod.held and scene.status().get("switchover", {}).get("phase") == "Held")
        pod.target = {"reachable": False, "lastError": "connection refused"}
        pod.lookup = {"ok": False, "lastError": "connection refused"}
        target.error, asked, scene.now = (
            PrerequisiteError(Reason.TARGET_UNAVAILABLE, "gone"),
            target.asked,
            scene.now + 1,
        )
        await scene.look()
        assert target.asked == asked
        assert scene.condition("TargetAvailable")[:2] == ("Unknown", "SwitchingOver")
        assert scene.condition("Ready")[0] == "True"
        assert scene.status()["switchover"]["phase"] == "Held", "reconcile leaves that part alone"

    story(test)


def test_a_pooler_that_goes_is_not_held_any_more(target):
    async def test(scene):
        scene.api.put("Cluster", "shop", status={"currentPrimary": "shop-1", "targetPrimary": "shop-2"})
        await scene.look()
        pod = await scene.start_pod()
        await scene.look()
        await until(lambda: pod.held)
        del scene.api.objects["Pooler", "pooler"]
        outcome = await scene.look()
        assert outcome.gone
        assert scene.switchovers.episode(("default", "pooler")) is None

    story(test)
