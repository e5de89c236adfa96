"""No change is slept through: whatever happens at whatever moment of a pass, the Pooler ends as if it had happened before.

Time wakes nobody here, and neither does kopf: the watches alone bring what happens. At every turn of the event loop that a pass
takes something happens, and the watches bring that at once, or when the pass is long over.
"""

from __future__ import annotations

import asyncio
import base64
import copy

import pytest
from tests.pgweir_operator import worlds
from tests.pgweir_operator.stories import until
from tests.pgweir_operator.test_reconcile import CA, Api

from pgweir_operator import handlers, workers
from pgweir_operator.api import names
from pgweir_operator.integration import provisioning
from pgweir_operator.kube.api import RESOURCES
from pgweir_operator.kube.cache import Cache
from pgweir_operator.kube.events import Events
from pgweir_operator.kube.watches import ObjectWatches
from pgweir_operator.passes import Options
from pgweir_operator.reconcile import Reconciler
from pgweir_operator.switchover import Switchovers
from pgweir_operator.workers import Workers

NEVER = 1e6
# Turns of the loop from a change to the end of the pass that it wakes, and some more.
TURNS = 40


class Server(Api):
    """With watches, whose events can be kept back."""

    def __init__(self):
        super().__init__()
        self.on_answer = lambda document, written: None
        self.queues = []
        self.kept_back = None
        self.is_slow = False
        """Whether the watch is faster than the answer to a write."""

    def put(self, kind, name, **content):
        made = super().put(kind, name, **content)
        self._emit("MODIFIED", made)
        return made

    def remove(self, kind, name):
        self.version += 1
        gone = self.objects.pop((kind, name))
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._emit("DELETED", gone)

    def _emit(self, event, document):
        for matches, queue in self.queues:
            if matches(document):
                kept = queue if self.kept_back is None else self.kept_back
                message = {"type": event, "object": copy.deepcopy(document)}
                kept.put_nowait(message) if kept is queue else kept.append((queue, message))

    def let_go(self):
        kept, self.kept_back = self.kept_back or (), None
        for queue, message in kept:
            queue.put_nowait(message)

    async def apply(self, manifest, *, dry_run=False):
        if dry_run:
            return manifest
        api_version = RESOURCES[manifest["kind"]].api_version
        content = {key: value for key, value in manifest.items() if key not in {"kind", "apiVersion"}}
        name = manifest["metadata"]["name"]
        self.put(manifest["kind"], name, **{**content, "apiVersion": api_version})
        return await self._answer(manifest["kind"], name, manifest)

    async def merge_status(self, kind, namespace, name, part):
        await super().merge_status(kind, namespace, name, part)
        return await self._answer(kind, name, {"status": part})

    async def set_finalizers(self, target, finalizers):
        await super().set_finalizers(target, finalizers)
        return await self._answer(target["kind"], target["metadata"]["name"], {"metadata": {"finalizers": finalizers}})

    async def _answer(self, kind, name, written):
        document = copy.deepcopy(self.objects[kind, name])
        if self.is_slow:
            await asyncio.sleep(0)
        self.on_answer(document, written)
        return document

    async def listed(self, kind, namespace, *, labels=None):
        return [copy.deepcopy(found) for (of, _), found in self.objects.items() if of == kind], str(self.version)

    async def changes(self, kind, namespace, name="", label="", *, since=""):
        def matches(document):
            metadata = document["metadata"]
            bears = not label or label in (metadata.get("labels") or {})
            return document["kind"] == kind and name in ("", metadata["name"]) and bears

        queue = asyncio.Queue()
        self.queues.append((matches, queue))
        if not since:
            for found in [found for found in self.objects.values() if matches(found)]:
                queue.put_nowait({"type": "ADDED", "object": copy.deepcopy(found)})
            version = {"metadata": {"resourceVersion": str(self.version)}}
            queue.put_nowait({"type": "BOOKMARK", "object": version})
        yield {"type": "OPENED"}
        while True:
            yield await queue.get()


class Scene:
    """The operator as main.py joins it, but for kopf."""

    def __init__(self, asked):
        self.server = server = Server()
        self.asked = asked
        self.events = Events(server, instance="test")
        self.switchovers = Switchovers(server, self.events, lambda key: None)
        self.watches = ObjectWatches(server, lambda key, change: self.ears.other(key, change))
        server.on_answer = self.watches.answered
        cache = Cache(server, self.watches, self.switchovers.watches)
        options = Options(image="pooler:test", recheck=NEVER)
        self.reconciler = Reconciler(server, cache, self.events, options, self.switchovers)
        self.workers = Workers(
            self.reconciler.reconcile,
            lambda key, outcome: handlers.settled(self.watches, self.workers, key, outcome),
            rest=NEVER,
        )
        self.ears = handlers.Ears(self.workers, self.switchovers)
        self.size = 0

    async def begin(self):
        self.server.put("Service", "shop-rw")
        self.server.secret("shop-superuser", username=b"postgres", password=b"pw")
        self.server.secret("shop-ca", ca_crt=CA.certificate, ca_key=CA.key)
        self.resize()
        handlers.watch_children(self.watches, ("default",))
        await until(self.watches.are_whole)
        self.ears.lead(self.watches, ("default",))
        await self.rest()

    async def close(self):
        await self.workers.close()
        await self.switchovers.close()
        await self.watches.close()

    async def rest(self):
        """Until nobody works, and nothing is on its way that would wake somebody."""
        calm = 0
        for _ in range(100_000):
            await asyncio.sleep(0)
            found = self.workers._workers.values()
            busy = any(worker.is_at_work or worker.woken.is_set() for worker in found)
            calm = 0 if busy or not all(queue.empty() for _, queue in self.server.queues) else calm + 1
            if calm == 20:
                return
        raise AssertionError("it never comes to rest")

    # --- what may happen ---------------------------------------------------------------------------------------------

    def resize(self):
        """The user changes the Pooler."""
        self.size += 1
        generation = self.server.objects.get(("Pooler", "pooler"), {}).get("metadata", {}).get("generation", 0) + 1
        bouncer = {"parameters": {"default_pool_size": str(self.size)}}
        self.server.put(
            "Pooler",
            "pooler",
            apiVersion=names.API_VERSION,
            metadata={"generation": generation, "uid": worlds.UID},
            spec={"cluster": {"name": "shop"}, "instances": 1, "pgbouncer": bouncer},
        )

    def lose_service(self):
        self.server.remove("Service", "pooler")

    def edit_bundle(self):
        self.server.put("Secret", "pooler", data={})

    def change_password(self):
        self.server.secret("shop-superuser", username=b"postgres", password=str(self.server.version).encode())

    def come_up(self):
        """Kubernetes says how many pods there are."""
        before = (self.server.objects["Deployment", "pooler"].get("status") or {}).get("replicas", 0)
        self.server.put("Deployment", "pooler", status={"replicas": before + 1})

    def is_as_it_should_be(self):
        objects = self.server.objects
        assert ("Service", "pooler") in objects
        bundle = objects["Secret", "pooler"]["data"]
        assert f"default_pool_size = {self.size}\n".encode() in base64.b64decode(bundle["pgbouncer.ini"])
        password = base64.b64decode(objects["Secret", "shop-superuser"]["data"]["password"]).decode()
        assert self.asked[-1] == password
        deployment, status = objects["Deployment", "pooler"], objects["Pooler", "pooler"]["status"]
        assert status["instances"] == (deployment.get("status") or {}).get("replicas", 0)
        assert status["observedGeneration"] == objects["Pooler", "pooler"]["metadata"]["generation"]


@pytest.fixture
def asked(monkeypatch):
    """The passwords with which a PostgreSQL that agrees was asked."""
    found = []

    async def provision(endpoint, admin, spec):
        await asyncio.sleep(0)
        found.append(admin.password)
        return provisioning.Made()

    async def check_login(endpoint, login, *, query, database):
        return None

    monkeypatch.setattr(provisioning, "provision", provision)
    monkeypatch.setattr(provisioning, "check_login", check_login)
    monkeypatch.setattr(workers, "FIRST_RETRY", NEVER)
    return found


HAPPENINGS = ("resize", "lose_service", "edit_bundle", "change_password", "come_up")


@pytest.mark.parametrize("is_late", [False, True], ids=["heard at once", "heard late"])
@pytest.mark.parametrize("what", HAPPENINGS)
def test_nothing_that_happens_during_a_pass_is_slept_through(asked, what, is_late):
    async def test():
        scene = Scene(asked)
        scene.server.is_slow = not is_late
        await scene.begin()
        scene.is_as_it_should_be()
        for turns in range(TURNS):
            scene.resize()  # wakes the pass that is disturbed
            for _ in range(turns):
                await asyncio.sleep(0)
            scene.server.kept_back = [] if is_late else None
            getattr(scene, what)()
            await scene.rest()
            scene.server.let_go()
            await scene.rest()
            try:
                scene.is_as_it_should_be()
            except AssertionError as error:
                error.add_note(f"{what}, {turns} turns of the loop after a change")
                raise
        await scene.close()

    asyncio.run(asyncio.wait_for(test(), 100))


def test_the_turns_are_enough_for_a_whole_pass(asked):
    async def test():
        scene = Scene(asked)
        await scene.begin()
        version = scene.server.version
        scene.resize()
        (worker,) = scene.workers._workers.values()
        turns, calm = 0, 0
        while calm < 5:
            await asyncio.sleep(0)
            calm = 0 if worker.woken.is_set() or worker.is_at_work else calm + 1
            turns += 1
        assert scene.server.version > version + 2, "it wrote the bundle and the status"
        assert 10 < turns < TURNS - 10, turns
        await scene.close()

    asyncio.run(asyncio.wait_for(test(), 100))


def test_what_a_secret_became_while_a_pooler_joined_the_watch_that_another_has_of_it_is_not_slept_through(asked):
    """The watch has told of it before, and tells nobody twice."""

    async def test():
        scene = Scene(asked)
        server = scene.server

        def ask(name, **bouncer):
            generation = server.objects.get(("Pooler", name), {}).get("metadata", {}).get("generation", 0) + 1
            server.put(
                "Pooler",
                name,
                apiVersion=names.API_VERSION,
                metadata={"generation": generation, "uid": f"uid-{name}"},
                spec={"cluster": {"name": "shop"}, "instances": 1, "pgbouncer": bouncer},
            )

        await scene.begin()
        server.secret("own-ca", ca_crt=b"0")
        ask("first", clientCASecret={"name": "own-ca"})
        for turns in range(TURNS):
            ask("second")
            await scene.rest()
            ask("second", clientCASecret={"name": "own-ca"})
            for _ in range(turns):
                await asyncio.sleep(0)
            content = f"{turns}".encode()
            server.secret("own-ca", ca_crt=content)
            await scene.rest()
            for name in ("first", "second"):
                found = server.objects["Secret", name]["data"].values()
                assert content in map(base64.b64decode, found), f"{name}, {turns} turns after a change"
        await scene.close()

    asyncio.run(asyncio.wait_for(test(), 100))
