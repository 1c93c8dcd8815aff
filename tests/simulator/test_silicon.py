"""Fitted physics carries over: to a model that was not in the fit, and to a device that was not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import silicon

from octavo.profiles import load_scenario
from octavo.simulator import simulate


@pytest.mark.parametrize("kind", ["model", "hardware"])
def test_what_was_left_out_is_predicted(kind: str) -> None:
    if not silicon.DATA.exists():
        pytest.skip(f"{silicon.DATA} is not here: published operating points of real servers")
    found = silicon.left_out(silicon.points(), lambda point: str(getattr(point, kind).name))
    for name, errors in found.items():
        if f"{name} without the odd 14" not in found:
            assert errors.mape < 0.15, (name, errors)


def test_the_fit_that_is_shipped_can_be_asked_for() -> None:
    result = simulate(load_scenario("single-box", ["latency='fit:servers'", "workload.queries=30"]), seeds=[0])
    shipped = json.loads(silicon.OUT.read_text())
    assert result.latency_model.startswith("fit servers")
    assert result.band == shipped["error"] < 0.15
