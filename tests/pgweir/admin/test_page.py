"""The page at / without a browser: what it may do, what it names, the answer that it shows. (A real one: tests/monitoring.)"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from tests.pgweir.admin.world import HandService

from pgweir.admin import overview as room
from pgweir.admin import page, rest
from pgweir.admin.tables import View
from pgweir.session import switchover
from pgweir.session.holds import ReleaseWhen

HTML = page.FILE.read_text()


def get(service: HandService, path: str, host: str | None = None) -> tuple[int, CIMultiDictProxy[str], str]:
    async def ask() -> tuple[int, CIMultiDictProxy[str], str]:
        running = await rest.start(service, "127.0.0.1:0")
        headers = {} if host is None else {"Host": host}
        try:
            url = f"http://127.0.0.1:{running.port}{path}"
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
                return answer.status, answer.headers, await answer.text()
        finally:
            await running.close()

    return asyncio.run(ask())


def answer(service: HandService) -> dict[str, object]:
    return room.overview(service, View.of(service, time.time()))


def test_the_page_may_run_what_stands_in_it_and_nothing_else(service: HandService) -> None:
    status, headers, text = get(service, "/")
    assert (status, text) == (200, HTML)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_loads_nothing_from_anywhere_and_writes_no_html_of_what_it_is_told() -> None:
    assert re.findall(r"""(?:src|href)=["'](?!data:,|#)""", HTML) == []
    assert not re.search(r"@import|url\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", HTML)
    assert set(re.findall(r"https?://[^\"' ]+", HTML)) == {"http://www.w3.org/2000/svg"}  # a namespace
    assert re.findall(r"fetch\(([^,)]+)", HTML) == ['"/api/v1/overview"']
    assert 'style="' not in HTML  # the policy would drop it


class Names(HTMLParser):
    """Elements with the attributes that name them."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found.append((tag, given))
        if given.get("id"):
            self.ids.append(str(given["id"]))


def test_landmarks_controls_and_tables_have_names() -> None:
    names = Names()
    names.feed(HTML)
    tags = [tag for tag, _ in names.found]
    assert all(tags.count(tag) == 1 for tag in ("header", "main", "footer", "h1"))
    assert len(names.ids) == len(set(names.ids))
    pointed = [given[name] for _, given in names.found for name in ("aria-labelledby", "for") if name in given]
    assert set(pointed) <= set(names.ids)
    assert all("aria-labelledby" in given for tag, given in names.found if tag == "section")
    inputs = {given["id"] for tag, given in names.found if tag == "input"}
    assert inputs == {given["for"] for tag, given in names.found if tag == "label"}
    assert all(given.get("scope") == "col" for tag, given in names.found if tag == "th")
    assert tags.count("table") == tags.count("caption")
    assert dict(names.found)["html"] == {"lang": "en"}


def test_a_quiet_pooler_has_no_warnings_and_the_fields_are_the_documented_ones(service: HandService) -> None:
    found = answer(service)
    assert found["warnings"] == []
    assert {name.partition(".")[0] for name, _, _ in room.FIELDS} == found.keys() - set()
    assert [len(found["latency"][name]) for name in ("bounds", "waits", "queries", "transactions")] == [20, 21, 21, 21]  # type: ignore[index]


def test_who_waits_and_who_holds_is_said_with_the_cause(service: HandService) -> None:
    service.server(user="bob")
    service.begin(service.client(user="bob", application_name="report"))
    service.client(user="bob").data_received(b"Q\0\0\0\x05\0")
    service.edge.now += 75
    found = answer(service)
    (pool,) = found["pools"]  # type: ignore[misc]
    assert (pool["waiting"], pool["cause"], pool["longest_wait_seconds"]) == (1, "pool_size", 75)
    (holder,) = found["holders"]  # type: ignore[misc]
    assert (holder["application_name"], holder["state"], holder["seconds"]) == ("report", "idle in transaction", 75)
    (waiter,) = found["waiters"]  # type: ignore[misc]
    assert (waiter["limit"], waiter["holder_application_name"]) == ("pool_size", "report")
    waits, dawdles = found["warnings"]  # type: ignore[misc]
    assert waits.startswith("1 of app/bob wait, the first for 75 s: pool_size=1")
    assert dawdles.startswith("1 servers are held by transactions")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (lambda service: service.operations.pause(), "Paused: clients connect and wait"),
        (
            lambda service: switchover.hold(service.pooler, "h", 60.0, ReleaseWhen.TOLD),
            "held for a switchover, for 60 s",
        ),
        (lambda service: service.reloads.refuse("pgbouncer.ini:3: no"), "runs on: pgbouncer.ini:3: no"),
        (lambda service: [service.client() for _ in range(45)], "45 of 50 clients"),
        (lambda service: setattr(service.descriptors, "shortages", 2), "File descriptors ran out"),
        (lambda service: setattr(service, "stopping", True), "shutting down"),
        (lambda service: setattr(service.pooler.database("app"), "paused", True), "Database app is paused"),
        (lambda service: setattr(service.pooler.database("two"), "disabled", True), "Database two is disabled"),
    ],
)
def test_each_trouble_is_one_sentence(service: HandService, trouble: object, said: str) -> None:
    trouble(service)  # type: ignore[operator]
    (sentence,) = answer(service)["warnings"]  # type: ignore[misc]
    assert said in sentence


def test_long_lists_are_cut_and_the_count_is_whole(service: HandService) -> None:
    for _ in range(room.WAITERS + 5):
        service.client().data_received(b"Q\0\0\0\x05\0")
    found = answer(service)
    assert (found["waiting"], len(found["waiters"])) == (room.WAITERS + 5, room.WAITERS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200), ("localhost", 200), ("127.0.0.1:8080", 200), ("[::1]:8080", 200), ("pod", 200),
        ("rebound.example.com:8080", 401), ("pooler.shop.svc:8080", 401), ("10.0.0.7:8080", 401),
    ],
)  # fmt: skip
def test_a_name_that_is_not_this_hosts_needs_the_token_even_from_here(
    service: HandService, host: str, status: int
) -> None:
    """A browser that was led here under a foreign page's name, or a proxy beside us that speaks for strangers."""
    assert get(service, "/api/v1/overview", host)[0] == status
    assert get(service, "/", host)[0] == get(service, "/readyz", host)[0] == 200
