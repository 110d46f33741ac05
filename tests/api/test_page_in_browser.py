"""The status page in Chromium: content, keyboard, both colour schemes, a phone, and no errors."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from bench.browser import chromium
from llb_core.api.listener import read_only
from llb_core.api.page.live import Look, Moment, live
from llb_core.api.views import Observed, backend_views
from llb_core.datapath.reading import Counters, Traffic
from llb_core.model import Endpoint
from llb_core.recent import Event, RecentEvents
from llb_core.samples import Samples
from tests.api.observed import observed, status_view
from tests.api.test_control_socket import Daemon

LIMIT = 15


class Watched(Daemon):
    """A daemon whose counters grow with each look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.events = RecentEvents()
        self.connections: list[Event] = []
        self.show(observed(services=3, backends=4))

    def show(self, seen: Observed) -> None:
        """Have everything be like that from now on."""
        self.seen = seen
        self.samples = Samples()
        for _ in range(3):
            self._sample()

    def _sample(self) -> None:
        self.looks += 1
        (family,) = self.seen.families
        grown = Traffic(*(self.looks * each for each in (40, 4000, 60, 90_000, 10, 0)))
        counters = Counters(
            {"drop_no_port": self.looks},
            dict.fromkeys(family.installed.services, grown),
            dict.fromkeys(family.installed.backends, grown),
        )
        self.seen = replace(self.seen, families=[replace(family, counters=counters)])
        self.samples.add(float(self.looks), [(family.installed, counters)])

    async def page(self, look: Look) -> bytes:
        self._sample()
        seen = replace(self.seen, rates=self.samples.latest())
        status = status_view(seen) | {"connections": 12_345, "max_connections": 1_000_000}
        for view in status["services"]:
            view["sources"] = view["sources"][:1]
        moment = Moment(
            status, backend_views(seen), self.samples, self.events.newest(), (), time.time()
        )
        return live(moment, look, self.connections if look.connections else ())


class Server:
    """The page, served from a thread with an event loop of its own; it can be stopped."""

    def __init__(self, daemon: Watched) -> None:
        self.daemon = daemon
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.start()

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        self._runner = web.AppRunner(read_only(self.daemon), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    def stop(self) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"


class Browser:
    """Chromium, and what the tests look for in it."""

    def __init__(self, folder: Path) -> None:
        self.driver = chromium(folder)

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        for command, arguments in (
            (
                "Emulation.setEmulatedMedia",
                {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
            ),
            (
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
            ),
        ):
            self.driver.execute_cdp_cmd(command, arguments)
        self.driver.get(url)
        self.until(lambda: self.text("#connection") == "live", "the page is live")

    def script(self, text: str, *arguments: object) -> Any:
        return self.driver.execute_script(text, *arguments)

    def text(self, selector: str) -> str:
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def texts(self, selector: str) -> list[str]:
        found = "[...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        return list(self.script(f"return {found}", selector))

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def keys(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, condition: Any, what: str) -> None:
        WebDriverWait(self.driver, LIMIT, 0.05).until(lambda _: condition(), what)

    def requested(self) -> list[str]:
        entries = [
            json.loads(each["message"])["message"] for each in self.driver.get_log("performance")
        ]
        return [
            each["params"]["request"]["url"]
            for each in entries
            if each["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        return [f"{each['level']}: {each['message']}" for each in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.driver.quit()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(Watched())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_wrong(browser: Browser, server: Server) -> Iterator[None]:
    """No complaint in the console, and no request to elsewhere, in any of these tests."""
    browser.driver.get("about:blank")
    browser.complaints(), browser.requested()
    yield
    browser.driver.get("about:blank")
    strangers = [url for url in browser.requested() if not url.startswith((server.url, "about:"))]
    assert strangers == []
    refused = "net::ERR_CONNECTION_REFUSED"  # of the test that stops the server
    assert [each for each in browser.complaints() if refused not in each] == []


def test_shows_services_backends_drops_and_events(browser: Browser, server: Server) -> None:
    differing = {"service-1": {Endpoint.parse("10.0.0.3:8080"): (2, 1)}}
    server.daemon.show(replace(observed(services=3, backends=4), differing=differing))
    server.daemon.events.add("service-3: 10.0.0.11:8080 turned unhealthy", level="warning")
    browser.open(server.url)
    assert browser.driver.title == "(1) llb"
    rows = browser.texts("#services-table tbody tr")
    assert [row.split()[0] for row in rows] == ["service-1", "service-2", "service-3"]
    assert "1 of 4 unhealthy" in rows[2]
    assert browser.text("#backends-count") == "12"
    (unhealthy,) = (row for row in browser.texts("#backends-table tbody tr") if "unhealthy" in row)
    assert "10.0.0.11:8080" in unhealthy
    assert "connection refused · gets traffic all the same" in unhealthy
    (differs,) = (row for row in browser.texts("#backends-table tbody tr") if "providers" in row)
    assert "10.0.0.3:8080" in differs
    assert "its providers say weight 2 and 1" in differs
    assert "no port" in browser.text("#drops-table")
    assert "snat_addresses" in browser.text("#drops-table")
    assert "turned unhealthy" in browser.text("#event-list")
    assert "service-3: 1 of 4 backends unhealthy" in browser.text("#troubles")
    assert "12,345" in browser.text("#tiles")


def test_shows_connections_where_they_are_wanted(browser: Browser, server: Server) -> None:
    text = "web: 192.0.2.1:4000 to 203.0.113.10:80/tcp, served by 10.0.0.2:8080, is opened"
    server.daemon.connections = [Event(-1, time.time(), "info", text)]
    browser.open(server.url)
    assert text not in browser.text("#event-list")
    browser.script("document.getElementById('connections').focus()")
    browser.driver.switch_to.active_element.send_keys(" ")
    browser.until(lambda: text in browser.text("#event-list"), "it is told of")
    assert browser.driver.current_url.endswith("?connections=1")
    browser.open(browser.driver.current_url)
    assert text in browser.text("#event-list")
    browser.click("#connections")
    browser.until(lambda: text not in browser.text("#event-list"), "it is gone")


def test_lives_and_changes_only_what_has_changed(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    browser.script("document.querySelectorAll('tbody tr').forEach((each) => each.marked = true)")
    before = browser.texts("#drops-table tbody td")[0]
    plot = "return document.querySelector('#services-table .stroke').getAttribute('d')"
    drawn = browser.script(plot)
    browser.until(lambda: browser.texts("#drops-table tbody td")[0] != before, "it has grown")
    assert browser.script(plot) != drawn
    rows = "[...document.querySelectorAll('tbody tr')]"
    assert browser.script(f"return {rows}.every((each) => each.marked)")


def test_says_so_when_the_daemon_is_gone_and_when_it_is_back(
    browser: Browser, server: Server
) -> None:
    browser.open(server.url)
    server.stop()
    browser.until(lambda: browser.text("#connection") == "the daemon does not answer", "it says so")
    assert browser.texts("#services-table tbody tr"), "what was known stays"
    server.start()
    browser.until(lambda: browser.text("#connection") == "live", "it is back")


def test_stays_light_with_a_thousand_backends(browser: Browser, server: Server) -> None:
    seen = observed(services=100, backends=10)
    server.daemon.show(seen)
    browser.open(server.url)
    browser.script(
        "window.long = []; new PerformanceObserver((list) => list.getEntries().forEach((each) => "
        "window.long.push(each.duration))).observe({type: 'longtask', buffered: true})"
    )
    assert len(browser.texts("#backends-table tbody tr")) == 25
    assert browser.text("#backends-pager") == "Previous\nPage 1 of 40\nNext"
    browser.click("#backends-pager button:last-child")
    browser.until(lambda: "Page 2 of 40" in browser.text("#backends-pager"), "the next page")
    first = backend_views(seen)[25]
    shown = browser.texts("#backends-table tbody th")[0].split()
    assert shown == [first["backend"], first["service"]]
    assert len(browser.script("return document.querySelectorAll('*')")) < 3000
    print("tasks of more than 50 ms, in ms:", browser.script("return window.long"))


def test_finds_backends_and_the_address_keeps_what_is_looked_at(
    browser: Browser, server: Server
) -> None:
    server.daemon.show(observed(services=30, backends=10))
    browser.open(server.url)
    browser.click("#services-table tbody tr:nth-child(3) button")
    browser.until(lambda: browser.text("#backends-count") == "10 of 300", "one service's")
    browser.click("#only-troubled")
    browser.until(lambda: browser.text("#backends-count") == "1 of 300", "the unhealthy one")
    url = browser.driver.current_url
    assert url.endswith("?service=service-3&only_troubled=1")
    browser.open(url)
    assert browser.text("#backends-count") == "1 of 300"
    browser.click("#service")
    browser.until(lambda: browser.text("#backends-count") == "30 of 300", "of every service")
    browser.click("#text")
    browser.keys("10.0.0.21:")
    browser.until(lambda: browser.text("#backends-count") == "1 of 300", "the one that is named")


def test_sorts_by_a_column(browser: Browser, server: Server) -> None:
    server.daemon.show(observed(services=5, backends=10))
    browser.open(server.url)
    column = "#backends-table thead th:nth-child(3)"
    browser.click(f"{column} button")
    numbers = "#backends-table tbody td:nth-child(3)"
    browser.until(lambda: browser.texts(numbers)[0] == "49", "the largest first")
    assert browser.script(f"return document.querySelector('{column}').ariaSort") == "descending"
    browser.click(f"{column} button")
    browser.until(lambda: browser.texts(numbers)[0] == "0", "the smallest first")
    assert browser.script(f"return document.querySelector('{column}').ariaSort") == "ascending"


def test_can_be_used_by_keyboard_alone(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    focused = "return document.activeElement.innerText || document.activeElement.id"
    browser.keys(Keys.TAB)
    assert browser.script(focused) == "Skip to services"
    seen = []
    for _ in range(40):
        browser.keys(Keys.TAB)
        seen.append(browser.script(focused))
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        assert browser.script(outline) != "none", f"{seen[-1]}: where the focus is can't be seen"
        if seen[-1] == "service-2":
            break
    assert seen[:4] == ["Services", "Backends", "Drops", "Events"]
    assert seen[-1] == "service-2"
    browser.keys(Keys.ENTER)
    browser.until(lambda: browser.text("#backends-count") == "4 of 12", "one service's")
    assert browser.script("return document.activeElement.id") == "backends"
    for _ in range(2):
        browser.keys(Keys.TAB)
    browser.keys(Keys.SPACE)
    browser.until(lambda: browser.text("#backends-count") == "12", "all are shown again")


def test_a_screen_reader_finds_its_way(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and "role" in node
    }
    roles = {role for role, _ in named}
    assert {"banner", "main", "navigation", "contentinfo", "region", "search"} <= roles
    for name in ("Services", "Backends", "Drops by reason", "Recent events"):
        assert ("region", name) in named
        assert ("heading", name) in named
    assert ("table", "Backends: health, connections and traffic") in named
    assert ("columnheader", "Opened, over time") in named
    assert ("rowheader", "service-1 203.0.113.2:80/tcp") in named
    assert ("searchbox", "Find a backend") in named
    nameless = {role for role, name in named if not name} & {
        "button",
        "link",
        "searchbox",
        "checkbox",
    }
    assert nameless == set()
    assert len(browser.script("return document.querySelectorAll('[aria-live]')")) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_colour_scheme(browser: Browser, server: Server, scheme: str) -> None:
    browser.open(server.url, scheme=scheme)
    ground = browser.script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground.strip("rgb()").split(","))
    assert (brightness > 600) is (scheme == "light")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("width", [320, 375, 768, 1280, 1920])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, server: Server, width: int, family: int
) -> None:
    server.daemon.show(observed(services=2, backends=10, family=family))
    server.daemon.events.add("x" * 500)
    browser.open(server.url, width=width)
    assert browser.script("return document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.frame')].filter((e) => e.scrollWidth > e.clientWidth)"
    cut_off = browser.script(f"return {wide}.map((e) => e.firstElementChild.id)")
    assert cut_off == []


def test_what_a_name_contains_is_shown_and_never_run(browser: Browser, server: Server) -> None:
    server.daemon.events.add("<img src=x onerror=alert(1)> & <b>bold</b>")
    browser.open(server.url + "?text=%3Cscript%3E&service=%22%3E%3Cb%3E")
    assert "<img src=x onerror=alert(1)> & <b>bold</b>" in browser.text("#event-list")
    assert browser.text("#backends-table tbody") == "No backend is like that"
    assert browser.texts("main b, main img") == []
