"""What a pass need not ask: what is watched, what was asked a moment ago, kinds that are not there."""

from __future__ import annotations

import asyncio

from pgweir_operator.kube.cache import Cache


class Watches:
    def __init__(self):
        self.known = {}
        self.listed = None
        self.down = False

    def find(self, kind, namespace, name):
        return (kind, name) in self.known, self.known.get((kind, name))

    def is_down(self, kind, namespace, name):
        return self.down

    def items(self, kind, namespace, label="", value=None):
        return self.listed


class Api:
    def __init__(self, *kinds):
        self.asked = []
        self.kinds = kinds
        self.objects = {}

    async def get(self, kind, namespace, name):
        self.asked.append((kind, name))
        return self.objects.get((kind, name))

    async def items(self, kind, namespace, *, labels=None):
        self.asked.append((kind, labels))
        return []

    async def knows(self, api_version, kind):
        self.asked.append(api_version)
        return kind in self.kinds


def cached(*kinds):
    api, watches, now = Api(*kinds), Watches(), [100.0]
    return Cache(api, watches, clock=lambda: now[0]), api, watches, now


def test_what_is_watched_is_not_asked_even_where_it_does_not_exist():
    cache, api, watches, _ = cached()
    watches.known = {("Secret", "s"): {"x": 1}, ("Service", "none"): None}
    watches.listed = [{"pod": 1}]

    async def ask():
        reader = cache.no_older_than(0.0)
        assert await reader.get("Secret", "n", "s") == {"x": 1}
        assert await reader.get("Service", "n", "none") is None
        assert await reader.items("Pod", "n", labels="ours=p") == [{"pod": 1}]

    asyncio.run(ask())
    assert api.asked == []


def test_an_answer_serves_for_as_long_as_the_reader_allows():
    cache, api, _, now = cached()

    async def ask(age):
        return await cache.no_older_than(age).get("NetworkPolicy", "n", "p")

    asyncio.run(ask(0.0))
    api.objects["NetworkPolicy", "p"] = {"x": 1}
    now[0] += 60
    assert asyncio.run(ask(100.0)) is None
    assert asyncio.run(ask(0.0)) == {"x": 1}
    now[0] += 101
    del api.objects["NetworkPolicy", "p"]
    assert asyncio.run(ask(100.0)) is None
    assert len(api.asked) == 3


def test_a_kind_that_is_not_there_is_asked_for_once_and_its_objects_never():
    cache, api, _, now = cached("PodMonitor")

    async def ask(kind):
        return await cache.no_older_than(0.0).get(kind, "n", "p")

    for _ in range(5):
        asyncio.run(ask("Cluster"))
    assert api.asked == ["postgresql.cnpg.io/v1"]
    asyncio.run(ask("PodMonitor"))
    assert api.asked[1:] == ["monitoring.coreos.com/v1", ("PodMonitor", "p")]
    now[0] += 11
    asyncio.run(ask("Cluster"))
    assert api.asked[-1] == "postgresql.cnpg.io/v1", "it may have been installed meanwhile"


def test_without_a_watch_the_api_server_is_asked():
    cache, api, _, _ = cached()

    async def ask():
        assert await cache.no_older_than(0.0).items("Pod", "n", labels="ours=p") == []

    asyncio.run(ask())
    assert api.asked == [("Pod", "ours=p")]


def test_what_was_asked_before_a_watch_knew_better_is_never_said_again():
    """Else a Pooler at rest, looked at while the watch is down, would go back to what it was."""
    cache, api, watches, _ = cached()
    api.objects["Secret", "s"] = {"password": "old"}

    async def ask():
        return await cache.no_older_than(300.0).get("Secret", "n", "s")

    assert asyncio.run(ask()) == {"password": "old"}
    api.objects["Secret", "s"] = watches.known["Secret", "s"] = {"password": "new"}
    assert asyncio.run(ask()) == {"password": "new"}
    del watches.known["Secret", "s"]
    assert asyncio.run(ask()) == {"password": "new"}


def test_while_a_watch_is_down_no_answer_of_before_serves():
    cache, api, watches, _ = cached()

    async def ask():
        return await cache.no_older_than(300.0).get("Pooler", "n", "p")

    watches.down = True
    api.objects["Pooler", "p"] = {"generation": 1}
    assert asyncio.run(ask()) == {"generation": 1}
    api.objects["Pooler", "p"] = {"generation": 2}
    assert asyncio.run(ask()) == {"generation": 2}
    assert len(api.asked) == 2
