"""A machine whose pace swings: laws of how usual seconds become those that pass, and what is said of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.profiles import load_scenario
from octavo.profiles.latency import LatencyProfile, Pace, StepTime
from octavo.simulator import simulate
from octavo.simulator.pace import Course, said

SWINGING = Pace(seconds=0.2, lanes=[[0.6] * 15 + [1.4] * 15, [1.3] * 8 + [0.7] * 15 + [1.3] * 7])


@given(st.integers(0, 50), st.floats(0, 100), st.floats(0, 30))
def test_what_passes_and_what_is_done_are_inverse(seed: int, now: float, usual: float) -> None:
    clock = Course(SWINGING, seed).of(0)
    assert clock.done(now, now + clock.lasts(now, usual)) == pytest.approx(usual, rel=1e-9, abs=1e-9)
    half = clock.lasts(now, usual / 2)
    assert half + clock.lasts(now + half, usual / 2) == pytest.approx(clock.lasts(now, usual), rel=1e-9, abs=1e-9)


def test_a_step_takes_so_many_times_as_long_as_its_moment_says() -> None:
    clock = Course(Pace(seconds=1.0, lanes=[[1.0, 2.0, 0.5]]), None).of(0)
    assert clock.lasts(0.25, 0.5) == 0.5
    assert clock.lasts(0.5, 1.0) == 1.5  # half a second at 1, the rest at 2
    assert clock.lasts(1.5, 2.25) == 0.5 + 1.0  # 0.25 and 2 usual seconds


def test_lanes_of_one_machine_see_the_same_moments_in_blocks() -> None:
    course = Course(SWINGING, 5)
    places = [course.place(moment) for moment in range(400)]
    assert sum((b - a) % 30 == 1 for a, b in pairwise(places)) > 375
    one, other = course.of(0), course.of(1)
    for moment, place in enumerate(places):
        for clock, lane in ((one, 0), (other, 1)):
            assert clock.lasts(0.2 * moment + 0.01, 1e-3) == pytest.approx(1e-3 * SWINGING.lanes[lane][place])


def test_a_scenario_swings_by_its_seed_and_says_so(tmp_path: Path) -> None:
    steps = [
        StepTime(decodes=rows, context=0, prefill_tokens=tokens, prefill_rows=min(tokens, 1), seconds=0.02)
        for rows, tokens in ((1, 0), (64, 0), (0, 64), (0, 512))
    ]
    facts = {"hardware": "made-up", "provider": "none", "precision": "fp32", "threads": 1, "measured_on": "2026-01-01"}
    found = {}
    for pace in (SWINGING, None):
        path = tmp_path / f"{pace is None}.json"
        profile = LatencyProfile(name="x", model="x", machine={}, steps=steps, pace=pace, **facts)  # type: ignore[arg-type]
        path.write_text(profile.model_dump_json())
        scenario = load_scenario("one-server", [f"latency=table:{path}", "workload.queries=60"])
        found[pace is None] = simulate(scenario, seeds=[0, 1]), simulate(scenario, seeds=[0, 1])
    swung, steady = found[False], found[True]
    assert swung[0].to_json() == swung[1].to_json()
    assert any("pace swung while it was measured" in note for note in swung[0].notes)
    assert not any("pace" in note for note in steady[0].notes)
    assert swung[0]["latency_p95"] != steady[0]["latency_p95"]


def test_a_steady_pace_is_not_worth_a_word() -> None:
    assert said(None) is None
    assert said(Pace(seconds=0.2, lanes=[[0.99, 1.01]])) is None
    assert "x0.60 to x1.40" in (said(SWINGING) or "")
