"""Run documents for the report: simulations as `octavo simulate` writes them, and what goes with them.

The simulations are real ones of a few queries. The evaluation is made of what those simulations assume, and says so;
the step times are the roofline's. Nothing here was measured, and nothing says that it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.profiles import baselines, load_scenario, override
from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.simulator.latency import roofline
from octavo.simulator.report import ReportFiles, write_report
from octavo.simulator.result import Result, document
from octavo.simulator.run import simulate, simulate_all
from octavo.simulator.validate import validate

COMMAND = "octavo report eval.json policies.json --out report.html"


@pytest.fixture(scope="session")
def results() -> list[Result]:
    """Every policy at a rate that so few queries do not make look overloaded."""
    calm = ["workload.queries=60", "workload.arrivals.rate=1 /s", "seeds=2"]
    scenario = load_scenario("policies", calm)
    beside = (simulate(override(line, calm), name=name) for name, line in baselines(scenario).items())
    return [simulate(scenario, trace=True), *beside]


@pytest.fixture(scope="session")
def documents(results: list[Result], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind, in the order in which `octavo report` is given them."""
    folder = tmp_path_factory.mktemp("documents")
    rumour = simulate_all(load_scenario("gpt4-rumour", ["workload.queries=60", "seeds=2"]))
    texts = {
        "evaluation": json.dumps(assumed_evaluation(results)),
        "measurement": roofline_profile().model_dump_json(),
        "validation": validate(results[0].records, results[0].records, "a simulation against itself").to_json(),
        "policies": document(results),
        "rumour": document(rumour),
    }
    paths = {name: folder / f"{name}.json" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    return paths


@pytest.fixture(scope="session")
def report(documents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(list(documents.values()), tmp_path_factory.mktemp("report") / "report.html", command=COMMAND)


def assumed_evaluation(results: list[Result]) -> dict[str, Any]:
    """The accuracies that the simulations assume, in the shape of an evaluation."""
    first = results[0]
    named = [(first.scenario.ensemble.policy.name, first), *((result.name, result) for result in results[1:])]
    rows = [
        {
            "key": key,
            "label": f"assumed {key}",
            "accuracy": result.metrics["accuracy"].to_json(),
            "inferences_per_query": result.scenario.ensemble.inferences_per_query if key != "single" else 1,
            "tokens_per_query": result["tokens_per_query"],
        }
        for key, result in named
        if "accuracy" in result.metrics  # of a model of which nothing is known a scenario assumes nothing
    ]
    only_here = {"key": "unheard-of", "label": "assumed only", "accuracy": {"value": 0.5}}
    bins = [{"said": 0.25, "right": 0.2, "count": 30}, {"said": 0.75, "right": 0.8, "count": 10}]
    return {"kind": "eval", "queries": 60, "policies": [*rows, only_here], "reliability": bins}


def roofline_profile() -> LatencyProfile:
    """Step times of the roofline, as if it were a machine."""
    scenario = load_scenario("policies")
    model = roofline(scenario.hardware["l40s"], scenario.models["llama-3.1-8b"])
    steps = [
        StepTime(
            decodes=rows,
            context=rows * each,
            prefill_tokens=0,
            prefill_rows=0,
            seconds=model.decode(rows, rows * each).seconds,
        )
        for rows in (1, 2, 4, 8)
        for each in (128, 1024)
    ]
    return LatencyProfile(
        name="roofline",
        model="llama-3.1-8b",
        hardware="l40s",
        provider="none, calculated",
        precision="bf16",
        threads=1,
        measured_on="1970-01-01",
        machine={},
        steps=steps,
    )
