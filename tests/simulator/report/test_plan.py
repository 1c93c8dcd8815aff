"""A plan in the report says what to buy and why, and what would change that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.profiles import load_scenario
from octavo.simulator.plan import Plan, Space, plan
from octavo.simulator.report import write_report
from octavo.simulator.report.numbers import write

SMALL = [
    "ensemble.experts={model: llama-3.2-3b, count: 2, accuracy: 0.55}",
    "ensemble.value={kind: none}",
    "ensemble.policy={name: majority}",
    "fleet.placement=[{of: experts, tier: cloud, hardware: l4}]",
    "workload.queries=60",
    "workload.arrivals.rate=2 /s",
    "workload.answer_tokens={kind: lognormal, mean: 80, cv: 0.7, min: 2, max: 400}",
    "targets={latency_p95: 10 s}",
    "baselines=[]",
    "seeds=1",
]


@pytest.fixture(scope="module")
def found() -> Plan:
    space = Space(hardware=("l4", "l40s"), tensor_parallel=(1,), most_devices=8)
    return plan(load_scenario("single-box", SMALL), space=space, jobs=1, sensitive=True)


@pytest.fixture(scope="module")
def shown(found: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("plan")
    (folder / "plan.json").write_text(found.to_json())
    made = write_report([folder / "plan.json"], folder / "report.html")
    sections = json.loads(made.json.read_text())["sections"]
    return next(section for section in sections if section["name"] == "plan")


def test_the_report_of_a_plan_says_what_to_buy_and_why_nothing_cheaper(found: Plan, shown: dict[str, Any]) -> None:
    said = " ".join(shown["blocks"][0]["items"])
    assert f"{write(found.best.usd_per_hour, 'USD')} an hour" in said
    cheaper = found.next_cheaper()
    assert cheaper is None or cheaper in said
    assert all(str(each) in said for each in found.relaxations)


def test_every_fleet_that_no_other_beats_and_every_swing_is_in_the_report(found: Plan, shown: dict[str, Any]) -> None:
    figures = {block["name"]: block["table"]["rows"] for block in shown["blocks"] if block["kind"] == "figure"}
    assert [row["fleet"] for row in figures["pareto-0"]] == [choice.fleet for choice in found.pareto()]
    assert [row["input"] for row in figures["tornado-0"]] == [swing.name for swing in found.sensitivity]
