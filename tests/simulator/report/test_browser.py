"""A real browser opens the report: every figure is drawn, nothing is complained of, nothing is fetched."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from octavo.simulator.report import ReportFiles

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


class Browser:
    """Headless Chromium over its DevTools pipe, with one page. `events` are the DevTools events heard so far."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.events: list[dict[str, Any]] = []
        self._heard, self._count, self._session = b"", 0, ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        """What the browser answers. Raises RuntimeError for its errors, TimeoutError where it says nothing."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next(timeout)).get("id") != self._count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, timeout: float) -> dict[str, Any]:
        while b"\0" not in self._heard:
            if not select.select([self.answers], [], [], timeout)[0]:
                raise TimeoutError("the browser is silent")
            self._heard += os.read(self.answers, 1 << 20)
        first, self._heard = self._heard.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        return message

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Until the expression is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not self.ask(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {expression}")
            time.sleep(0.05)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Show a file on a screen of this size, in the light or the dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def complaints(self) -> list[str]:
        """Errors on the console, exceptions that nobody caught, and warnings of the browser itself."""
        return [json.dumps(event["params"]) for event in self.events if _complains(event)]

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        sent = (e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent")
        return list(sent)


def _complains(event: dict[str, Any]) -> bool:
    match event["method"]:
        case "Runtime.exceptionThrown":
            return True
        case "Runtime.consoleAPICalled":
            return event["params"]["type"] in {"error", "warning", "assert"}
        case "Log.entryAdded":
            return event["params"]["entry"]["level"] in {"error", "warning"}
    return False


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in that folder; it is gone afterwards."""
    assert PROGRAM
    from_us, to_us = os.pipe(), os.pipe()

    def as_three_and_four() -> None:
        read, write = os.dup(from_us[0]), os.dup(to_us[1])
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=as_three_and_four,
    )
    os.close(from_us[0])
    os.close(to_us[1])
    try:
        browser = Browser(from_us[1], to_us[0])
        yield browser
        browser._session = ""
        with suppress(Exception):
            browser.send("Browser.close", timeout=5)
    finally:
        _end(process)
        os.close(from_us[1])
        os.close(to_us[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not PROGRAM:
        pytest.skip("no Chromium here: install the Debian package `chromium` to open the report in a real browser")
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def drawn(browser: Browser, report: ReportFiles, **screen: Any) -> int:
    """Open the report and wait for its figures; how many there should be."""
    browser.events.clear()
    browser.open(report.html, **screen)
    browser.wait("document.documentElement.dataset.drawn")
    return int(browser.ask("document.querySelectorAll('.plot').length"))


# The figures of the page in which something is drawn.
MARKED = """[...document.querySelectorAll('.plot')].filter(plot => plot.querySelector(
    '.main-svg :is(.scatterlayer, .barlayer, .heatmaplayer) :is(path, image)'))"""
SCREENS = {
    "desktop": {"width": 1280},
    "phone in the dark": {"width": 390, "height": 844, "scheme": "dark"},
}


@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS)
def test_every_figure_is_drawn_and_nothing_is_complained_of_nor_fetched(
    browser: Browser, report: ReportFiles, screen: dict[str, Any]
) -> None:
    figures = drawn(browser, report, **screen)
    assert figures == len([b for s in _sections(report) for b in s["blocks"] if b["kind"] == "figure"]) > 5
    assert browser.ask(f"{MARKED}.length") == figures
    assert browser.ask("document.documentElement.scrollWidth") == screen["width"], "it never scrolls sideways"
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [report.html.resolve().as_uri()]


def _sections(report: ReportFiles) -> list[dict[str, Any]]:
    sections: list[dict[str, Any]] = json.loads(report.json.read_text())["sections"]
    return sections


def test_figures_take_the_colours_of_the_page(browser: Browser, report: ReportFiles) -> None:
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    ink = "getComputedStyle(document.body).color"
    for scheme in ("light", "dark"):
        drawn(browser, report, scheme=scheme)
        assert browser.ask(colour) == browser.ask(ink)


def test_figures_follow_when_the_reader_changes_the_light_or_turns_the_phone(
    browser: Browser, report: ReportFiles
) -> None:
    drawn(browser, report, width=390, height=844)
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait(
        "getComputedStyle(document.querySelector('.plot .xtick text')).fill === getComputedStyle(document.body).color"
    )
    browser.send("Emulation.setDeviceMetricsOverride", width=844, height=390, deviceScaleFactor=1, mobile=True)
    browser.wait("document.querySelector('.plot .main-svg').clientWidth > 600")
    assert browser.complaints() == []


def test_every_policy_has_its_name_beside_its_point(browser: Browser, report: ReportFiles) -> None:
    drawn(browser, report)
    points = browser.ask("document.querySelectorAll('#figure-picture-0 .annotation').length")
    figure = next(b for s in _sections(report) for b in s["blocks"] if b.get("name") == "picture-0")
    assert points == len(figure["table"]["rows"]) > 5


def test_it_prints(browser: Browser, report: ReportFiles) -> None:
    drawn(browser, report, scheme="dark")
    paper = base64.b64decode(browser.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])
    assert paper.startswith(b"%PDF")
    assert browser.complaints() == []
