"""The fleet's client against pods that keep the contract, lag, refuse, hold, hang up, and are somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import time
import tracemalloc

import pytest
from aiohttp import web
from tests.pgweir_operator.fleet.fake_pod import FakePod

from pgweir.bundle import bundle_digest, bundle_manifest
from pgweir_operator.api.observed import PodReport, PodSilence
from pgweir_operator.fleet import Fleet, Identity, Member, Push
from pgweir_operator.integration.control import renewed

CERTIFICATES = renewed(None, pooler="shop", now=time.time())
OTHERS = renewed(None, pooler="other", now=time.time())


def identity(certificates=CERTIFICATES, pair=None):
    pair = pair or certificates.operator
    return Identity(certificates.trusted, pair.certificate, pair.key)


def bundle(revision=1, *, paused=False, **settings):
    files = {"pgbouncer.ini": repr(settings).encode(), "server.key": b"secret bytes"}
    return {**files, "bundle.json": bundle_manifest(revision=revision, paused=paused, catalogue_version=1)}


@contextlib.asynccontextmanager
async def pods(count=3, certificates=CERTIFICATES, **options):
    """Pods on loopback addresses of their own, all at the same port, as in a cluster."""
    async with contextlib.AsyncExitStack() as stack:
        made, port = [], 0
        for number in range(count):
            pod = FakePod(
                f"pod-{number}",
                certificates.trusted,
                certificates.pod.certificate,
                certificates.pod.key,
                address=f"127.0.9.{number + 1}",
                port=port,
                **options,
            )
            made.append(await stack.enter_async_context(pod))
            port = pod.port
        yield made


def members(made):
    return [Member(pod.name, pod.address) for pod in made]


def conversation(test):
    """Run a coroutine test; pytest stays without a plug-in for them."""

    def run():
        asyncio.run(asyncio.wait_for(test(), 60))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@conversation
async def test_every_pod_gets_the_configuration_and_answers_what_it_runs():
    async with pods() as made, Fleet(identity(), port=made[0].port) as fleet:
        files = bundle(4)
        answers = await fleet.push(members(made), Push(files))
        assert {a.revision for a in answers.values()} == {4}
        assert {a.digest for a in answers.values()} == {bundle_digest(files)}
        assert made[1].files["server.key"] == b"secret bytes"
        assert await fleet.poll(members(made)) == answers


@conversation
async def test_a_pod_that_refuses_reports_why_and_what_it_still_runs():
    async with pods(2) as made, Fleet(identity(), port=made[0].port) as fleet:
        await fleet.push(members(made), Push(bundle(1)))
        made[1].refuses = "pool_mode: 'sesion' is none of session, transaction, statement"
        answers = await fleet.push(members(made), Push(bundle(2, changed=1)))
        assert answers["pod-0"].revision == 2
        assert answers["pod-1"].revision == 1
        assert answers["pod-1"].rejected_revision == 2
        assert answers["pod-1"].rejected_error == made[1].refuses, "the pod's own sentence and nothing more"


@conversation
async def test_a_pod_with_a_higher_revision_keeps_it_and_says_so():
    async with pods(1) as made, Fleet(identity(), port=made[0].port) as fleet:
        await fleet.push(members(made), Push(bundle(9)))
        answer = (await fleet.push(members(made), Push(bundle(3, other=1))))["pod-0"]
        assert isinstance(answer, PodReport)
        assert answer.revision == 9
        assert answer.rejected_revision is None


@conversation
async def test_a_pod_that_hangs_costs_its_deadline_and_no_other_pod_anything():
    async with pods() as made, Fleet(identity(), port=made[0].port, deadline=2.0) as fleet:
        made[0].lags = 60
        start = time.monotonic()
        answers = await fleet.push(members(made), Push(bundle()))
        assert time.monotonic() - start < 30
        assert isinstance(answers["pod-0"], PodSilence)
        assert "within 2 s" in answers["pod-0"].error
        assert made[1].revision == made[2].revision == 1


@conversation
async def test_a_pod_that_is_not_there_is_silent_with_a_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with Fleet(identity(), port=taken.getsockname()[1]) as fleet:
            answer = (await fleet.poll([Member("gone", "127.0.0.1")]))["gone"]
            assert isinstance(answer, PodSilence)
            assert "127.0.0.1" in answer.error


@conversation
async def test_another_poolers_pod_at_a_recycled_address_is_never_talked_to():
    async with pods(1, certificates=OTHERS) as made, Fleet(identity(), port=made[0].port) as fleet:
        answer = (await fleet.push(members(made), Push(bundle())))["pod-0"]
        assert isinstance(answer, PodSilence)
        assert made[0].asked == []


@conversation
async def test_nobody_but_the_operator_is_answered():
    async with pods(1) as made, Fleet(identity(pair=CERTIFICATES.pod), port=made[0].port) as fleet:
        assert isinstance((await fleet.poll(members(made)))["pod-0"], PodSilence)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"state": "asleep"}', b"<html>"])
def test_noise_is_a_silence_with_a_reason(body):
    from aiohttp import web

    async def test():
        async with pods(1) as made, Fleet(identity(), port=made[0].port) as fleet:

            async def noise(request):
                return web.Response(body=body)

            await made[0].stop()
            made[0]._get = noise
            await made[0].start()
            answer = (await fleet.poll(members(made)))["pod-0"]
            assert isinstance(answer, PodSilence)

    asyncio.run(test())


@conversation
async def test_a_pause_is_acknowledged_everywhere_and_waits_for_the_last_holder():
    async with pods() as made, Fleet(identity(), port=made[0].port) as fleet:
        made[2].hold(serverPid=99)

        async def leave():
            while [pod.state for pod in made] != ["paused", "paused", "pausing"]:
                await asyncio.sleep(0.01)
            looks = made[2].asked.count("GET /v1/status")
            while made[2].asked.count("GET /v1/status") < looks + 2:
                await asyncio.sleep(0.01)
            made[2].let_go()

        leaving = asyncio.create_task(leave())
        answers = await fleet.pause(members(made), Push(bundle(2, paused=True)), patience=30)
        assert leaving.done(), "it came back while somebody held a server"
        await leaving
        assert {a.state for a in answers.values()} == {"paused"}


@conversation
async def test_a_pause_that_runs_out_of_patience_names_the_holder():
    async with pods(2) as made, Fleet(identity(), port=made[0].port) as fleet:
        made[0].hold(serverPid=4711, user="batch")
        answers = await fleet.pause(members(made), Push(bundle(2, paused=True)), patience=0.2)
        assert answers["pod-0"].state == "pausing"
        assert answers["pod-0"].holders[0].server_pid == 4711
        assert answers["pod-0"].holders[0].user == "batch"
        answers = await fleet.push(members(made), Push(bundle(3)))
        assert {a.state for a in answers.values()} == {"active"}


@conversation
async def test_holders_past_the_deadline_are_closed_and_counted_by_the_pods_of_that_pause():
    async with pods() as made, Fleet(identity(), port=made[0].port) as fleet:
        for pod in made:
            pod.hold()
        made[0].hold()
        await fleet.push(members(made[:2]), Push(bundle(2, paused=True)))
        await fleet.push(members(made[2:]), Push(bundle(3, paused=True)))
        answers = await fleet.terminate_holders(members(made), 2)
        assert [answers[pod.name].terminated_holders for pod in made] == [2, 1, 0]
        assert [answers[pod.name].state for pod in made] == ["paused", "paused", "pausing"]
        await made[0].stop()
        assert isinstance((await fleet.terminate_holders(members(made), 2))["pod-0"], PodSilence)


@conversation
async def test_a_request_that_an_older_pod_does_not_know_is_no_silence():
    async with pods(1, first_version=True) as made, Fleet(identity(), port=made[0].port) as fleet:
        await fleet.push(members(made), Push(bundle(1, paused=True)))
        answers = await fleet.terminate_holders(members(made), 1)
    assert isinstance(answers["pod-0"], PodReport)
    assert "POST /v1/holders/terminate" not in made[0].asked


@conversation
async def test_an_older_pod_that_cannot_hold_says_so_in_words_and_answers_on():
    async with pods(1, first_version=True) as made, Fleet(identity(), port=made[0].port) as fleet:
        (member,) = members(made)
        answer = await fleet.hold(member, "1", ceiling=5.0, release_when="primary")
        assert answer == PodSilence("pod-0", "its image is too old for that", is_too_old=True)
        assert isinstance((await fleet.poll([member]))["pod-0"], PodReport)


def test_nothing_prints_the_files_or_keys():
    assert "secret bytes" not in repr(Push(bundle()))
    assert "PRIVATE" not in repr(identity())


@pytest.mark.parametrize("address", ["::1", "127.0.9.1"])
def test_a_pod_may_have_an_address_of_either_family(address):
    async def look():
        pair = CERTIFICATES.pod
        try:
            pod = FakePod("pod", CERTIFICATES.trusted, pair.certificate, pair.key, address=address)
            async with pod, Fleet(identity(), port=pod.port) as fleet:
                assert isinstance((await fleet.push(members([pod]), Push(bundle())))["pod"], PodReport)
                await pod.stop()
                silent = (await fleet.poll(members([pod])))["pod"]
                assert isinstance(silent, PodSilence)
                assert f"[::1]:{pod.port}" in silent.error or address != "::1"
        except OSError:
            pytest.skip("this machine has no ::1")

    asyncio.run(asyncio.wait_for(look(), 60))


# --- pods that answer what no pod of ours would ----------------------------------------------------------------------


def says(body, *, status=200, **headers):
    async def answer(request):
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **headers})

    return answer


def goes_on_for_ever(chunk, pause=0.0):
    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(chunk)
                await asyncio.sleep(pause)
        return response

    return answer


def report(**changes):
    usual = {"revision": 1, "digest": "d", "state": "active", "paused": False, "heldServers": 0}
    return json.dumps({**usual, **changes}).encode()


@pytest.mark.parametrize(
    "odd",
    [
        says(b""),
        says(b"\x00\xff" * 5000),
        says(b"[]"),
        says(b'"active"'),
        says(b"[" * 200_000),
        says(report(revision=float("inf"))),
        says(report(revision=-1)),
        says(report(revision=10**300)),
        says(report(rejected={"revision": 2**70, "error": "x"})),
        says(report(holders={"a": 1})),
        says(report(holders=["a"])),
        says(report(target=["unreachable"])),
        says(gzip.compress(b"[" * 20_000_000), **{"Content-Encoding": "gzip"}),
        says(b"x" * 2_000_000),
        says(b"x" * 2_000_000, status=422),
        goes_on_for_ever(b"x" * 65536),
        goes_on_for_ever(b"x", pause=0.05),
    ],
)
def test_whatever_a_pod_answers_it_is_a_silent_pod_soon_and_costs_no_memory(odd):
    @conversation
    async def test():
        async with pods(1) as (strange,), Fleet(identity(), port=strange.port, deadline=1.0) as fleet:
            strange.odd = odd
            tracemalloc.start()
            answers = await fleet.poll(members([strange]))
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert isinstance(answers["pod-0"], PodSilence)
            assert len(answers["pod-0"].error) < 1000
            assert isinstance((await fleet.push(members([strange]), Push(bundle())))["pod-0"], PodSilence)
            assert most < 40 * 2**20, "the pod's own part of it is here, too"

    test()


@conversation
async def test_what_a_pod_says_at_length_is_cut_and_what_is_no_truth_value_is_none():
    async with pods(1) as (pod,), Fleet(identity(), port=pod.port) as fleet:
        holder = {"clientId": 1, "serverPid": 2, "database": "d" * 9999, "user": "u"}
        pod.odd = says(
            report(
                target={"reachable": "no", "lastError": "e" * 9999},
                lookup={"ok": 0},
                holders=[holder] * 50,
                clients=3,
            )
        )
        found = (await fleet.poll(members([pod])))["pod-0"]
        assert (found.target_reachable, found.lookup_ok, found.clients) == (None, None, 3)
        assert len(found.target_error) == 500
        assert (len(found.holders), len(found.holders[0].database)) == (20, 500)
        pod.odd = says(json.dumps({"error": "n" * 100_000}).encode(), status=500)
        assert len((await fleet.poll(members([pod])))["pod-0"].error) < 1000
