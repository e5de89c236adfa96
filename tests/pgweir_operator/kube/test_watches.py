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
        self.since = []
        self.lists = {}
        """What a list of a kind says: the objects, and the version."""

    async def changes(self, kind, namespace, name, label="", *, since=""):
        name = name or label or kind
        self.opened.append(name)
        self.since.append(since)
        queue = self.streams[name] = asyncio.Queue()
        try:
            yield {"type": "OPENED"}
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

    async def listed(self, kind, namespace, *, labels=None):
        return self.lists[kind]

    async def say(self, name, item):
        await until(lambda: name in self.streams)
        self.streams[name].put_nowait(item)


def modified(version, uid="u", kind="MODIFIED", **metadata):
    """An event of an object that is named as its uid."""
    place = {"namespace": "n", "name": uid}
    return {"type": kind, "object": {"metadata": {"resourceVersion": version, "uid": uid, **place, **metadata}}}


def bookmark(version):
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}


def deployment(version, name="d", **more):
    metadata = {"namespace": "n", "name": name, "uid": f"uid-{name}", "resourceVersion": version, **more}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": int(version)}}


ALL = Named("Deployment", "", label="ours")


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


def test_all_that_is_listed_is_known_and_what_is_not_there_but_bears_no_label_is_not():
    async def test():
        api, heard = Api(), []
        api.lists["Deployment"] = (
            [deployment("3", labels={"ours": "p"}), deployment("4", "e", labels={"ours": "q"})],
            "9",
        )
        watches = ObjectWatches(api, lambda who, change: heard.append((change.type, change.object["metadata"]["name"])))
        watches.want("a", [ALL])
        assert watches.find("Deployment", "n", "d") == (False, None), "nothing has come yet"
        await until(lambda: watches.items("Deployment", "n", "ours") is not None)
        assert api.since == ["9"]
        assert watches.find("Deployment", "n", "d")[1]["spec"] == {"replicas": 3}
        assert watches.find("Deployment", "n", "stranger") == (False, None)
        assert [item["metadata"]["name"] for item in watches.items("Deployment", "n", "ours", "q")] == ["e"]
        assert watches.items("Deployment", "elsewhere", "ours") == []
        assert watches.items("Deployment", "n", "another") is None
        assert heard == [("ADDED", "d"), ("ADDED", "e")]
        await watches.close()

    story(test)


def test_where_all_of_a_kind_are_watched_it_is_known_what_does_not_exist():
    async def test():
        api = Api()
        api.lists["Service"] = [], "9"
        watches = ObjectWatches(api, lambda who, change: None)
        watches.want("a", [Named("Service", "")])
        await until(lambda: watches.find("Service", "n", "shop-rw") == (True, None))
        await watches.close()

    story(test)


def test_a_write_of_ours_is_known_at_once_and_no_news_when_the_watch_brings_it():
    async def test():
        api, heard = Api(), []
        api.lists["Deployment"] = [deployment("3", labels={"ours": "p"})], "9"
        watches = ObjectWatches(api, lambda who, change: heard.append(change.object["metadata"]["resourceVersion"]))
        watches.want("a", [ALL])
        await until(lambda: watches.find("Deployment", "n", "d")[0])
        ours = deployment("12", labels={"ours": "p"})
        watches.answered(ours, ours)
        assert watches.find("Deployment", "n", "d")[1]["spec"] == {"replicas": 12}
        for late in (deployment("11", labels={"ours": "p"}), ours, deployment("13", labels={"ours": "p"})):
            await api.say("ours", {"type": "MODIFIED", "object": late})
        await until(lambda: heard == ["3", "13"])
        watches.answered({"kind": "Status", "details": {"uid": "uid-d"}}, {})
        assert watches.find("Deployment", "n", "d") == (False, None), "deleted by us"
        await watches.close()

    story(test)


def test_a_watch_goes_on_where_it_was_and_where_that_is_too_old_what_went_meanwhile_is_noticed(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)

    async def test():
        api, heard = Api(), []
        api.lists["Deployment"] = (
            [deployment("3", labels={"ours": "p"}), deployment("4", "e", labels={"ours": "p"})],
            "9",
        )
        watches = ObjectWatches(api, lambda who, change: heard.append((change.type, change.object["metadata"]["name"])))
        watches.want("a", [ALL])
        await api.say("ours", bookmark("20"))
        await api.say("ours", ApiError(0, "broke"))
        await until(lambda: api.since == ["9", "20"])
        api.lists["Deployment"] = [deployment("4", "e", labels={"ours": "p"})], "30"
        await api.say("ours", ApiError(410, "too old"))
        await until(lambda: api.since == ["9", "20", "30"])
        assert heard == [("ADDED", "d"), ("ADDED", "e"), ("DELETED", "d")]
        await watches.close()

    story(test)


def test_secrets_are_never_listed_and_all_have_come_when_the_first_bookmark_has(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)

    async def test():
        api, heard = Api(), []
        watches = ObjectWatches(api, lambda who, change: heard.append((change.type, change.object["metadata"]["name"])))
        watches.want("a", secrets("s"))
        await api.say("s", modified("5", "s", "ADDED"))
        await until(lambda: watches.find("Secret", "n", "s")[0])
        assert watches.find("Secret", "n", "other") == (False, None)
        await api.say("s", None)  # before a bookmark nobody knows where to go on
        await until(lambda: len(api.opened) == 2)
        await api.say("s", bookmark("9"))
        await until(lambda: watches.find("Secret", "n", "s") == (True, None))
        assert api.since == ["", ""]
        assert heard == [("ADDED", "s"), ("DELETED", "s")]
        await watches.close()

    story(test)


def test_while_a_watch_is_down_nothing_is_taken_for_known():
    async def test():
        api = Api()
        api.lists["Deployment"] = [deployment("3", labels={"ours": "p"})], "9"
        watches = ObjectWatches(api, lambda who, change: None)
        watches.want("a", [ALL])
        await until(lambda: watches.find("Deployment", "n", "d")[0])
        await api.say("ours", ApiError(503, "away"))
        await until(lambda: not watches.find("Deployment", "n", "d")[0])
        assert watches.items("Deployment", "n", "ours") is None
        await watches.close()

    story(test)


def pooler(version, generation=1, phase="active"):
    metadata = {"namespace": "n", "name": "p", "uid": "uid-p", "resourceVersion": version, "generation": generation}
    return {"kind": "Pooler", "metadata": metadata, "spec": {"size": generation}, "status": {"phase": phase}}


POOLERS = Named("Pooler", "")


def poolers(api, heard):
    """A watch of all Poolers; what it tells is noted by version."""
    api.lists["Pooler"] = [pooler("3")], "9"
    watches = ObjectWatches(api, lambda who, change: heard.append(change.object["metadata"]["resourceVersion"]))
    watches.want("a", [POOLERS])
    return watches


def test_what_a_user_wrote_just_before_a_write_of_ours_is_told_with_the_answer_to_it():
    """The watch brings the user's version when a newer one is known, which is no news."""

    async def test():
        api, heard = Api(), []
        watches = poolers(api, heard)
        await until(lambda: watches.find("Pooler", "n", "p")[0])
        theirs, ours = pooler("10", 2), pooler("11", 2, "resumed")
        watches.answered(ours, {"status": {"phase": "resumed"}})
        assert heard == ["3", "11"]
        for late in (theirs, ours):
            await api.say("Pooler", {"type": "MODIFIED", "object": late})
        watches.answered(pooler("12", 2, "paused"), {"status": {"phase": "paused"}})
        await api.say("Pooler", {"type": "MODIFIED", "object": pooler("13", 3, "paused")})
        await until(lambda: heard == ["3", "11", "13"])
        await watches.close()

    story(test)


def test_what_is_ours_in_an_object_is_told_apart_from_what_others_have_changed():
    before = deployment("3", labels={"ours": "p"}) | {"status": {"readyReplicas": 0}}
    written = {"kind": "Deployment", "metadata": {"labels": {"ours": "p"}}, "spec": {"replicas": 5}}
    after = deployment("5", labels={"ours": "p"}, generation=2, managedFields=[{}]) | {"status": {"readyReplicas": 0}}
    assert not room._has_others_changes(before, after, written)
    assert room._has_others_changes(before, after | {"status": {"readyReplicas": 1}}, written)
    made_anew = {**after, "metadata": {**after["metadata"], "uid": "another"}}
    assert room._has_others_changes(before, made_anew, written)


def test_an_answer_that_comes_late_does_not_bring_back_what_is_gone():
    async def test():
        api, heard = Api(), []
        watches = poolers(api, heard)
        await until(lambda: watches.find("Pooler", "n", "p")[0])
        await api.say("Pooler", {"type": "MODIFIED", "object": pooler("10", 1, "resumed")})
        await api.say("Pooler", {"type": "DELETED", "object": pooler("11", 1, "resumed")})
        await until(lambda: heard == ["3", "10", "11"])
        watches.answered(pooler("10", 1, "resumed"), {"status": {"phase": "resumed"}})
        assert watches.find("Pooler", "n", "p") == (True, None)
        await watches.close()

    story(test)


def test_what_was_answered_while_the_watch_was_down_is_known_when_it_is_up_again(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)

    async def test():
        api, heard = Api(), []
        watches = poolers(api, heard)
        await until(lambda: watches.find("Pooler", "n", "p")[0])
        await api.say("Pooler", ApiError(0, "broke"))
        await until(lambda: watches.is_down("Pooler", "n", "p"))
        watches.answered(pooler("12", 2, "resumed"), {"status": {"phase": "resumed"}})
        await until(lambda: not watches.is_down("Pooler", "n", "p"))
        assert watches.find("Pooler", "n", "p")[1]["metadata"]["resourceVersion"] == "12", "not what it was before"
        assert heard == ["3", "12"], "a user had changed it meanwhile"
        await watches.close()

    story(test)


def test_a_list_knows_better_than_what_was_answered_before_it(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)

    async def test():
        api, heard = Api(), []
        watches = poolers(api, heard)
        await until(lambda: watches.find("Pooler", "n", "p")[0])
        asked, answer = asyncio.Event(), asyncio.Event()

        async def listed(kind, namespace, *, labels=None):
            asked.set()
            await answer.wait()
            return [], "14"

        api.listed = listed
        await api.say("Pooler", ApiError(410, "too old"))
        await asked.wait()
        watches.answered(pooler("12", 1, "resumed"), {"status": {"phase": "resumed"}})
        answer.set()
        await until(lambda: watches.find("Pooler", "n", "p") == (True, None))
        assert heard == ["3", "12"], "the deletion, by what was known last"
        await watches.close()

    story(test)


def test_a_history_that_was_set_back_is_the_one_that_counts(monkeypatch):
    monkeypatch.setattr(room, "RECONNECT", 0.01)

    async def test():
        api, heard = Api(), []
        watches = poolers(api, heard)
        await until(lambda: watches.find("Pooler", "n", "p")[0])
        api.lists["Pooler"] = [pooler("2", 1, "of the backup")], "2"
        await api.say("Pooler", ApiError(410, "etcd was restored"))
        await until(lambda: heard == ["3", "2"])
        assert watches.find("Pooler", "n", "p")[1]["status"]["phase"] == "of the backup"
        await api.say("Pooler", {"type": "MODIFIED", "object": pooler("4", 2)})
        await until(lambda: heard == ["3", "2", "4"])
        await watches.close()

    story(test)


def test_who_joins_a_watch_of_others_is_told_which_they_are():
    async def test():
        api = Api()
        watches = ObjectWatches(api, lambda who, change: None)
        assert watches.want("a", secrets("s")) == []
        assert watches.want("b", secrets("s", "t")) == secrets("s")
        assert watches.want("b", secrets("s", "t")) == [], "it had joined before"
        await watches.close()

    story(test)
