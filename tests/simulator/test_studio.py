"""The what-if page: its scenarios, and a real browser that clicks through it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("dash", reason="needs octavo[studio]")
from octavo.profiles import ConfigError, load_scenario
from octavo.simulator.estimate import Estimate
from octavo.simulator.studio import make_app
from octavo.simulator.studio.answers import answered, compared, planned
from octavo.simulator.studio.choices import defaults, devices, policies, scenario_of, scenarios

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.parametrize("name", scenarios())
def test_every_scenario_runs_with_every_policy_it_offers(name: str) -> None:
    for policy in policies(name):
        result = answered(replace(defaults(name), policy=policy))
        assert ("accuracy" in result.metrics) == (result.scenario.outcomes.kind != "unknown")
        assert 0 <= result.metrics.get("accuracy", Estimate(0.0)).value <= 1
    assert defaults(name).hardware in devices(name)


def test_what_is_chosen_is_what_is_simulated() -> None:
    choices = replace(defaults("single-box"), hardware="h200", replicas=3, policy="pruned", samples=1, rate=7.0)
    scenario = scenario_of(choices)
    assert {place.hardware for place in scenario.fleet.placement} == {"h200"}
    assert {place.replicas for place in scenario.fleet.placement} == {3}
    assert (scenario.ensemble.policy.name, scenario.ensemble.samples_per_expert) == ("pruned", 1)
    assert scenario.workload.rate == 7.0
    assert scenario.targets.n_minus_1 is None
    spare = scenario_of(replace(choices, spare=True))
    assert spare.targets.n_minus_1.latency_p95 == spare.targets.latency_p95 == choices.latency_p95


def test_more_traffic_is_never_faster_nor_planned_on_less() -> None:
    one = defaults("single-box")
    two = replace(one, rate=2 * one.rate)
    slow, fast = answered(two), answered(one)
    assert slow.overloaded or slow["latency_p95"] >= fast["latency_p95"]
    assert (planned(two).usd_per_hour or float("inf")) >= (planned(one).usd_per_hour or 0.0)


def test_a_dearer_policy_keeps_devices_busier() -> None:
    points = {point.policy: point for point in compared(defaults("single-box"))}
    assert points["single"].usd < points["ensemble"].usd


def test_a_scenario_without_a_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="no scenario 'nowhere' with a rate; there are codex-100"):
        make_app("nowhere")


def test_only_this_machine_is_answered() -> None:
    client = make_app().server.test_client()
    assert client.get("/", headers={"host": "127.0.0.1:8050"}).status_code == 200
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 403


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, make_app().server, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM:
        pytest.skip("no Chromium here: install the Debian package `chromium` to open the page in a real browser")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        opened = browser.new_page(viewport={"width": 1280, "height": 1000})
        opened.set_default_timeout(60_000)
        complaints: list[str] = []
        opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(address)
        opened.wait_for_selector("#side-a .plan p")
        yield opened
        assert complaints == []
        browser.close()


def test_the_numbers_follow_the_controls(page: Any) -> None:
    side = page.locator("#side-a")
    assert side.locator(".good.verdict").is_visible()
    side.get_by_text("also with any one device away").click()
    side.locator(".control.target [role=slider]").focus()
    page.keyboard.press("Home")
    side.get_by_text("without a replica of expert-1").wait_for()
    side.locator(".control.rate [role=slider]").focus()
    page.keyboard.press("End")
    side.locator(".bad.verdict", has_text="Overloaded").wait_for()


def test_two_sides_are_compared_and_one_is_saved(page: Any, tmp_path: Path) -> None:
    assert not page.locator("#side-b").is_visible()
    page.get_by_text("compare two").click()
    b = page.locator("#side-b")
    b.locator(".card").first.wait_for()
    before = b.locator(".cards").inner_text()
    b.locator(".control.policy .dash-dropdown").click()
    page.locator(".dash-dropdown-content").get_by_text("single", exact=True).click()
    page.wait_for_function("was => document.querySelector('#side-b .cards').innerText !== was", arg=before)
    assert b.locator(".cards").inner_text() != page.locator("#side-a .cards").inner_text()
    with page.expect_download() as download:
        b.get_by_text("Save as scenario file").click()
    download.value.save_as(tmp_path / "saved.yaml")
    assert load_scenario(tmp_path / "saved.yaml").ensemble.policy.name == "single"
