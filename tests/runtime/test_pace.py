"""The pace of lanes is found in what their steps took, and taken out of what they usually take."""

from __future__ import annotations

import random
from statistics import median

import numpy as np
import pytest

from octavo.runtime.pace import course, levels, swings
from octavo.runtime.parts import Taken
from octavo.runtime.steps import Kind, Timed

USUAL = {1: 1e-3, 2: 1.5e-3, 8: 4e-3}


def bench(seconds: float) -> list[Timed]:
    """Two lanes at two speeds, each changing to the other every second or so, out of step; batches in any order."""
    rng, found = random.Random(0), []
    for lane, period in enumerate((1.1, 1.7)):
        now = 0.0
        while now < seconds:
            rows = rng.choice(list(USUAL))
            taken = USUAL[rows] * (0.7 if now / period % 2 < 1 else 1.3)
            parts = Taken(0.6 * taken, 0.4 * taken, 0)
            found.append(Timed(Kind(False, rows, 0, 0, 0, 8), lane, 8 * rows, now, 1.2 * taken, parts))
            now += 1.2 * taken
    return found


def test_steps_of_a_bench_are_told_at_one_pace() -> None:
    steps = bench(12.0)
    found = levels(steps, "spent")
    for rows, usual in USUAL.items():
        before, after = ([each.spent for each in taken if each.kind.decodes == rows] for taken in (steps, found))
        assert np.std(before) > 0.25 * usual
        assert np.std(after) < 0.1 * usual
        ratio = median(after) / usual
        assert ratio == pytest.approx(median(each.spent for each in found if each.kind.decodes == 1) / 1e-3, rel=0.01)
    assert sum(each.spent for each in found) == pytest.approx(sum(each.spent for each in steps), rel=0.02)
    assert all(each.seconds == pytest.approx(1.2 * each.spent) for each in found)


def test_a_machine_that_keeps_its_pace_is_left_as_it_is() -> None:
    steps = [each._replace(taken=Taken(USUAL[each.kind.decodes], 0.0, 0)) for each in bench(2.0)]
    assert [each.spent for each in levels(steps, "spent")] == pytest.approx([each.spent for each in steps])
    assert levels([], "spent") == []


def test_the_course_follows_the_steps_and_stays_where_there_are_none() -> None:
    """A lane that is twice as slow from the second on, idle in between; another that never runs."""
    begun = np.array([0.0, 0.1, 0.9, 2.0, 2.1])
    taken = np.array([0.1, 0.1, 0.1, 0.2, 0.2])
    found = course(np.zeros(5, int), begun, taken, np.full(5, 0.1), 2, 0.5)
    assert found[0] == pytest.approx([1, 1, 1, 1, 2], rel=0.1)
    assert found[1] == pytest.approx(1)


def test_what_is_kept_has_a_mean_of_one() -> None:
    pace = swings([np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[4.0], [2.0]])], 0.2)
    assert pace is not None
    assert np.mean(pace.lanes) == pytest.approx(1, abs=1e-3)
    assert [len(lane) for lane in pace.lanes] == [3, 3]
    assert swings([], 0.2) is None
