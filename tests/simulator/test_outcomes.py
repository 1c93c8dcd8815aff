"""Recorded outcomes are dealt to the experts of a scenario, and what is not as the scenario has it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from octavo.profiles import ConfigError, load_scenario
from octavo.simulator import simulate
from octavo.simulator.load import draw
from octavo.simulator.streams import Streams

PLENTY = ["workload.arrivals.rate=0.1 /s", "workload.queries=300", "ensemble.samples_per_expert=1", "baselines=[]"]


def records(folder: Path, experts: dict[str, list[bool]], *, queries: int = 4, without: str = "") -> list[str]:
    """An evaluation in which each of an expert's samples is always right or always wrong. The last lacks `without`."""
    file = folder / "outcomes.jsonl"
    rows = [
        {"query": f"task-{query}", "expert": expert, "correct": right, "value": float(right), "answer": str(right)}
        for query in range(queries)
        for expert, samples in experts.items()
        if expert != without or query < queries - 1
        for right in samples
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"outcomes={{kind: records, file: {file}}}"]


def two(first: str, second: str) -> str:
    return f"ensemble.experts=[{{name: {first}, model: llama-3.1-8b}}, {{name: {second}, model: llama-3.1-8b}}]"


def accuracy(changes: list[str]) -> tuple[float, tuple[str, ...]]:
    result = simulate(load_scenario("single-box", [*PLENTY, *changes]), seeds=[0])
    return result["accuracy"], result.notes


def test_experts_have_the_outcomes_of_their_name_and_else_of_their_place(tmp_path: Path) -> None:
    told = records(tmp_path, {"a": [True], "b": [False]})
    for first, second, right in (("a", "b", 1.0), ("b", "a", 0.0), ("x", "y", 1.0)):
        changes = [*told, two(first, second), "ensemble.policy.name=single", f"ensemble.policy.expert={first}"]
        found, notes = accuracy(changes)
        assert found == right
        assert any("x has those of a, y of b" in note for note in notes) == (first == "x")


def test_one_alone_has_those_of_the_expert_that_was_sampled_most(tmp_path: Path) -> None:
    told = records(tmp_path, {"a": [False], "b": [True, True]})
    found, notes = accuracy([*told, two("a", "b"), "ensemble.policy={name: single}"])
    assert found == 1.0
    assert "recorded outcomes are those of b, which was sampled most" in notes


def test_samples_that_repeat_and_queries_left_out_are_said(tmp_path: Path) -> None:
    told = records(tmp_path, {"a": [True], "b": [False]}, without="b")
    _, notes = accuracy([*told, two("a", "b"), "ensemble.samples_per_expert=2"])
    assert any(note.startswith("1 samples of a were recorded, 2 are asked for") for note in notes)
    assert "1 of 4 recorded queries are left out: an expert has no candidate" in notes


def test_no_two_experts_have_the_outcomes_of_one(tmp_path: Path) -> None:
    told = records(tmp_path, {"a": [True]})
    with pytest.raises(ConfigError, match=r"outcomes\.file: 2 experts answer, 1 were recorded \(a\)"):
        accuracy([*told, two("x", "y")])


def test_a_query_has_the_outcomes_of_one_recorded_query(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    rows = [{"query": n, "expert": e, "correct": True, "value": n / 100} for n in range(50) for e in "ab"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scenario = load_scenario("single-box", [*PLENTY, two("a", "b"), f"outcomes={{kind: records, file: {file}}}"])
    value = draw(scenario, Streams(0)).truth.outcomes.value
    assert (value[:, 0] == value[:, 1]).all()
    assert len(set(value[:, 0])) > 40
