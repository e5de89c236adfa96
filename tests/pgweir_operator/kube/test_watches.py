"""Watches of named objects: one each, shared, ended when nobody listens, and taken up again when they break."""

from __future__ import annotations

import asyncio

from tests.pgweir_operator.stories import story, until

from pgweir_operator.kube import ApiError
from pgweir_operator.kube import watches as room
from pgweir_operator.kube.watches import Named, ObjectWatches


class Api:
    """Streams of events that the test feeds by hand."""

    def __init__(self):
        self.streams = {}
        self.opened = []

    async def changes(self, kind, namespace, name, label=""):
        name = name or label
        self.opened.append(name)
        queue = self.streams[name] = asyncio.Queue()
        try:
            while True:
                item = await queue.get()
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item if isinstance(item, dict) else modified(item)
        finally:
            if self.streams.get(name) is queue:
                del self.streams[name]

    async def say(self, name, item):
        await until(lambda: name in self.streams)
        self.streams[name].put_nowait(item)


def modified(version, uid="u", kind="MODIFIED"):
    return {"type": kind, "object": {"metadata": {"resourceVersion": version, "uid": uid}}}


def secrets(*names):
    return [Named("Secret", "n", name) for name in names]


def test_two_watchers_share_one_watch_and_it_ends_with_the_last():
    async def test():
        api, heard = Api(), []
        watches = ObjectWatches(api, lambda who, change: heard.append((who, change.what.name)))
        watches.want("a", secrets("s", "t"))
        watches.want("b", secrets("s"))
        await api.say("s", "1")
        await until(lambda: sorted(heard) == [("a", "s"), ("b", "s")])
        assert sorted(api.opened) == ["s", "t"]
        watches.forget("a")
        await until(lambda: set(api.streams) == {"s"})
        watches.forget("b")
        await until(lambda: not api.streams)
        await watches.close()

    story(test)


def test_a_watch_that_breaks_is_taken_up_again_and_says_nothing_twice(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)
    monkeypatch.setattr(room, "RECONNECT_MAXIMUM", 0.02)

    async def test():
        api, heard = Api(), []
        watches = ObjectWatches(api, lambda who, change: heard.append(change.what.name))
        watches.want("a", secrets("s"))
        await api.say("s", "1")
        await until(lambda: len(heard) == 1)
        await api.say("s", ApiError(410, "too old"))
        await until(lambda: len(api.opened) == 2)
        await api.say("s", "1")
        await api.say("s", "2")
        await until(lambda: len(heard) == 2)
        await api.say("s", None)
        await until(lambda: len(api.opened) == 3)
        await watches.close()
        assert not api.streams

    story(test)


def test_a_watcher_that_changes_its_mind_hears_only_what_it_wants_now():
    async def test():
        api, heard = Api(), []
        watches = ObjectWatches(api, lambda who, change: heard.append(change.what.name))
        watches.want("a", secrets("s"))
        watches.want("a", secrets("t"))
        await until(lambda: set(api.streams) == {"t"})
        await api.say("t", "1")
        await until(lambda: heard == ["t"])
        await watches.close()

    story(test)


def test_one_watch_hears_of_all_that_bear_a_label_and_a_reconnect_is_no_news(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)

    async def test():
        api, heard = Api(), []

        def hear(who, change):
            heard.append((change.object["metadata"]["uid"], change.type))

        watches = ObjectWatches(api, hear)
        watches.want("a", [Named("Secret", "n", label="ours")])
        for event in (modified("1", "x"), modified("1", "y"), None):
            await api.say("ours", event)
        await until(lambda: len(api.opened) == 2)
        for event in (modified("1", "x"), modified("2", "y")):
            await api.say("ours", event)
        await api.say("ours", modified("3", "x", "DELETED"))
        await until(lambda: len(heard) == 4)
        assert heard == [("x", "MODIFIED"), ("y", "MODIFIED"), ("y", "MODIFIED"), ("x", "DELETED")]
        await watches.close()

    story(test)


def test_a_listener_that_stumbles_does_not_make_the_watch_deaf(monkeypatch, caplog):
    monkeypatch.setattr(room, "RECONNECT", 0.01)
    monkeypatch.setattr(room, "RECONNECT_MAXIMUM", 0.02)

    async def test():
        api, heard = Api(), []

        def hear(who, change):
            if change.object["metadata"]["resourceVersion"] == "1":
                raise TypeError("no such attribute")
            heard.append(change.object["metadata"]["resourceVersion"])

        watches = ObjectWatches(api, hear)
        watches.want("a", secrets("s"))
        await api.say("s", "1")
        await until(lambda: len(api.opened) == 2)
        await api.say("s", "1")
        await api.say("s", "2")
        await until(lambda: heard == ["2"])
        await watches.close()

    story(test)
    assert "the watch stumbled" in caplog.text
