"""The pooler's page in a real browser: a thousand clients, two sizes, both colour schemes, the keyboard, and who may look.

PGWEIR_SCREENSHOTS=FOLDER keeps what was seen (`make screenshots` puts it into docs/images).
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.monitoring.browser import Browser
from tests.pooler.process import PoolerProcess
from tests.pooler.wire import WireClient, query
from tests.postgres.server import PostgresServer

CLIENTS = 1000
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
NAME = "pooler.example.com"  # of a Service; leads to this host in the browser

# Each visible piece of text, and the ratio of its colour to what it stands on (WCAG 2.2, 1.4.3).
CONTRAST = """
(() => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) { const c = rgba(getComputedStyle(node).backgroundColor); if (c[3]) return c; }
    return [255, 255, 255, 1];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join("");
    if (!text || ["SCRIPT", "STYLE"].includes(node.tagName) || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), ink = rgba(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(node))].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), node.tagName, text.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()
"""


@dataclass
class World:
    """A pooler with a crowd in front of it, and a browser."""

    pooler: PoolerProcess
    browser: Browser

    @property
    def url(self) -> str:
        return f"http://localhost:{self.pooler.http_port}/"

    def open(self, size: str = "desktop", scheme: str = "light") -> Browser:
        self.browser.look_like(*SIZES[size], scheme)
        self.browser.complaints.clear()
        self.browser.go(self.url)
        self.browser.wait(lambda: self.browser.text("#clients") == f"{CLIENTS} of 2000")
        return self.browser


@pytest.fixture(scope="module")
def world(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    control = tmp_path_factory.mktemp("control")
    (control / "token").write_text("the-token-of-the-secret\n")
    settings = {"auth_type": "any", "max_client_conn": 2000, "default_pool_size": 3, "listen_backlog": 1024}
    databases = {"shop": "host=127.0.0.1 port={port} dbname=app user=alice password=alice-password"}
    options = ["--control-dir", str(control)]
    with contextlib.ExitStack() as stack:
        pooler = stack.enter_context(
            PoolerProcess(postgres.port, settings=settings, databases=databases, options=options)
        )
        browser = stack.enter_context(Browser([f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]))
        clients = [stack.enter_context(contextlib.closing(client_of(pooler, number))) for number in range(CLIENTS)]
        for client in clients[:300]:
            client.say(query("SELECT 1"))
            client.until("Z")
        for client in clients[:3]:
            client.say(query("BEGIN"))
            client.until("Z")
        for client in clients[3:10]:
            client.say(query("SELECT 1"))
        yield World(pooler, browser)


def client_of(pooler: PoolerProcess, number: int) -> WireClient:
    return WireClient(pooler.port).log_in("alice", "shop", application_name=f"worker-{number}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_shows_a_thousand_clients_in_every_size_and_colour(world: World, size: str, scheme: str) -> None:
    browser = world.open(size, scheme)
    browser.wait(lambda: browser.text("#waiting") == "7")
    assert browser.text("#held") == "3 of 3"
    assert browser.run("document.querySelectorAll('#waiters tr').length") == 7
    assert browser.run("document.querySelectorAll('#holders tr').length") == 3
    assert "pool_size=3" in browser.text("#pools")
    assert "idle in transaction" in browser.text("#holders")
    browser.wait(lambda: browser.text("#said-queries"))
    if folder := os.environ.get("PGWEIR_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"page-{size}-{scheme}.png")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "the page itself scrolls sideways"
    expected = "rgb(246, 247, 249)" if scheme == "light" else "rgb(17, 22, 28)"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == expected
    worst = browser.run(CONTRAST)
    assert len(worst) > 50
    assert worst[0][0] >= 4.5, worst[:3]
    assert browser.complaints == []


def test_everything_that_can_be_reached_has_a_role_and_a_name(world: World) -> None:
    found = world.open().accessible()
    roles = {role for role, _ in found}
    assert {"banner", "main", "contentinfo", "status", "table", "columnheader", "rowheader", "heading"} <= roles
    named = ("button", "textbox", "region", "table", "heading", "link", "image", "img")
    assert [(role, name) for role, name in found if role in named and not name.strip()] == []
    pictures = [name for role, name in found if role in ("image", "img")]
    assert [name.partition(",")[0] for name in pictures] == ["Wait for a server", "Query", "Transaction"]


def test_the_keyboard_reaches_everything_and_holds_the_page_still(world: World) -> None:
    browser = world.open()
    reached = []
    for _ in range(5):
        browser.press("Tab", 9)
        reached.append(browser.run("document.activeElement.id || document.activeElement.className"))
        assert browser.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    assert reached == ["skip", "still", "wide", "wide", "wide"]
    browser.run("document.getElementById('still').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run("document.getElementById('still').getAttribute('aria-pressed')") == "true"

    def stays(milliseconds: int) -> bool:
        before = browser.text("#asked")
        browser.run(f"new Promise(done => setTimeout(() => done(true), {milliseconds}))")
        return browser.text("#asked") == before

    browser.wait(lambda: stays(1200))  # what was asked before that has come by now; from then on nothing is asked
    before = browser.text("#asked")
    assert stays(2200)
    browser.press("Enter", 13, "\r")
    browser.wait(lambda: browser.text("#asked") != before)


def test_a_change_is_on_the_page_at_the_next_look(world: World) -> None:
    browser = world.open()
    world.pooler.console("DISABLE shop")
    try:
        took = browser.wait(lambda: "Database shop is disabled" in browser.text("#warning-list"))
    finally:
        world.pooler.console("ENABLE shop")
    print(f"seen after {took:.2f} s")
    assert took < 10  # a second, and room for a busy machine
    browser.wait(lambda: "disabled" not in browser.text("#warning-list"))


def test_what_clients_say_about_themselves_is_text_and_never_markup(world: World) -> None:
    browser = world.open()
    name = "<img src=x onerror=document.title='owned'>"
    with contextlib.closing(WireClient(world.pooler.port).log_in("alice", "shop", application_name=name)) as client:
        client.say(query("SELECT 1"))
        browser.wait(lambda: name in browser.text("#waiters"))
        assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.complaints == []


def test_from_elsewhere_the_page_asks_for_the_token_and_then_shows(world: World) -> None:
    browser = world.browser
    browser.go(f"http://{NAME}:{world.pooler.http_port}/")
    browser.wait(lambda: browser.run("document.getElementById('login')?.hidden === false"))
    assert browser.text("#clients") == "–"
    for token, shown in (("wrong", False), ("the-token-of-the-secret", True)):
        browser.run("document.getElementById('token').focus()")
        browser.type(token)
        browser.press("Enter", 13, "\r")
        if not shown:
            browser.wait(lambda: "not the one" in browser.text("#refused"))
    browser.wait(lambda: browser.text("#clients") == f"{CLIENTS} of 2000")
    assert browser.run("document.getElementById('login').hidden")
    assert browser.run("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie])") == '[0,0,""]'
    assert all("401" in each for each in browser.complaints)  # the refusals, and nothing else


def test_a_pooler_that_went_away_is_said(world: World) -> None:
    browser = world.open()
    assert world.pooler.process is not None
    world.pooler.process.kill()
    browser.wait(lambda: browser.text("#state") == "not answering")
