"""The summary says what the numbers say, for the ensemble and against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.simulator.report import words
from octavo.simulator.report.document import Comparison, Estimate, Evaluation, Line, Measured, Simulation
from octavo.simulator.report.picture import COST, pictures
from octavo.simulator.report.readers import read


def policy(key: str, accuracy: float, inferences: float) -> Measured:
    half = Estimate(value=accuracy, low=accuracy - 0.05, high=accuracy + 0.05)
    return Measured(
        key=key, label=key, accuracy=half, inferences_per_query=inferences, tokens_per_query=10 * inferences
    )


def compared(rival: str, low: float, high: float) -> Comparison:
    return Comparison(rival=rival, difference=Estimate(value=(low + high) / 2, low=low, high=high), tokens_ratio=16.0)


def evaluation(*policies: Measured, comparisons: tuple[Comparison, ...] = ()) -> Evaluation:
    return Evaluation(source="eval.json", queries=100, policies=policies, comparisons=comparisons)


ENSEMBLE, SINGLE, RIVAL = policy("ensemble", 0.6, 16), policy("single", 0.4, 1), policy("rival", 0.7, 1)
ORACLE = policy("oracle", 0.9, 16)


def simulation(**costs: float) -> Simulation:
    lines = [Line(key=key, metrics={COST: Estimate(value=usd)}) for key, usd in costs.items()]
    return Simulation(source="s.json", name="s", lines=tuple(lines))


def test_a_comparison_is_told_on_the_side_that_its_interval_is_on() -> None:
    comparisons = (compared("beaten", 0.1, 0.3), compared("equal", -0.1, 0.1), compared("better", -0.3, -0.1))
    found = evaluation(ENSEMBLE, SINGLE, comparisons=comparisons)
    gains, losses = " ".join(words.gain(found)), " ".join(words.against(found))
    assert "“beaten” by 20 points (10 to 30)" in gains
    assert "“better” is right more often, by 20 points (10 to 30)" in losses
    assert "No difference from “equal” is shown" in losses
    assert "beaten" not in losses
    assert "better" not in gains


def test_without_comparisons_the_intervals_decide() -> None:
    assert "The intervals are apart." in " ".join(words.gain(evaluation(ENSEMBLE, SINGLE)))
    assert "not settled" in " ".join(words.gain(evaluation(ENSEMBLE, policy("single", 0.55, 1))))
    assert "“rival” is right on" in " ".join(words.against(evaluation(ENSEMBLE, SINGLE, RIVAL)))


def test_the_oracle_is_a_bound_and_never_a_rival() -> None:
    found = evaluation(ENSEMBLE, SINGLE, ORACLE)
    assert list(words.against(found)) == []
    assert "A right answer was among the candidates" in " ".join(words.gain(found))


def test_a_further_right_answer_costs_the_extra_dollars_over_the_extra_accuracy() -> None:
    (picture,) = pictures([evaluation(ENSEMBLE, SINGLE)], [simulation(ensemble=0.05, single=0.01)])
    said = " ".join(words.price(picture))
    assert "5 times the $0.0100 of “single”" in said
    assert "Each further right answer costs $0.200" in said


def test_a_policy_as_accurate_for_no_more_money_is_named() -> None:
    (picture,) = pictures([evaluation(ENSEMBLE, SINGLE, RIVAL)], [simulation(ensemble=0.05, single=0.01, rival=0.02)])
    assert "“rival” (70.0" in " ".join(words.against_in(picture))
    assert picture.rival is None


def test_a_policy_as_accurate_but_not_simulated_has_a_level_and_no_cost() -> None:
    (picture,) = pictures([evaluation(ENSEMBLE, SINGLE, RIVAL)], [simulation(ensemble=0.05, single=0.01)])
    assert picture.rival == RIVAL
    assert list(words.against_in(picture)) == []


def test_an_overloaded_line_has_no_cost_and_is_said_to_be_overloaded() -> None:
    whole = simulation(ensemble=0.05, single=0.01, rival=0.02)
    lines = [
        line.model_copy(update={"overloaded": "the queue grows"} if line.key == "rival" else {}) for line in whole.lines
    ]
    late = whole.model_copy(update={"lines": tuple(lines)})
    (picture,) = pictures([evaluation(ENSEMBLE, SINGLE, RIVAL)], [late])
    assert picture.overloaded == ("rival",)
    assert "rival does not keep up" in " ".join(words.overloaded(late))
    assert "rival" not in " ".join(words.beside_baselines(late))


def test_what_an_evaluation_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from octavo.runtime.contest import Row
    from octavo.runtime.evaluate import Evaluation as Written
    from octavo.runtime.evaluate import comparisons

    right = {"single": [0, 1, 0, 0], "best_of_n": [1, 1, 1, 1], "ensemble": [1, 1, 0, 1], "mean_logprob": [0, 1, 0, 1]}
    rows = [Row(key, f"made up {key}", np.array(each, float), 16.0, 160.0) for key, each in right.items()]
    written = Written(4, rows, comparisons(rows), None, {}, {}, "made up", "nothing", [], {"processor": "none"})
    (tmp_path / "eval.json").write_text(written.to_json())
    found = read(tmp_path / "eval.json")
    assert isinstance(found, Evaluation)
    assert [p.key for p in found.policies] == list(right)
    assert [c.rival for c in found.comparisons] == ["made up single", "made up best_of_n", "made up mean_logprob"]
