"""Steps told apart into what they compute and what they do in the interpreter, and how a served load corrects that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from octavo.runtime.local import Octavo
from octavo.runtime.overheads import Logged, beside_others, shares
from octavo.runtime.parts import Taken
from octavo.runtime.steps import Cell, time_alone, time_steps


def turn(begun: float, seconds: float) -> Logged:
    return Logged(False, begun, seconds, (1, 8, 0, 0), Taken(0.0, 0.0, 0))


def alone(*sizes: int) -> tuple[float, float]:
    return 1e-3 * sizes[0] + 2e-3, 1e-3


def beside(*sizes: int) -> tuple[float, float]:
    return 2e-3 * sizes[0] + 2e-3, 3e-3


def test_a_turn_knows_for_how_much_of_it_another_lane_ran() -> None:
    turns = beside_others([[turn(0.0, 2.0), turn(2.0, 2.0), turn(10.0, 1.0)], [turn(1.0, 1.5)], [turn(2.25, 0.25)]])
    assert [each.beside for each in turns] == pytest.approx([0.5, 0.375, 0.0, 1.0, 1.0])


def test_what_a_load_adds_to_the_bench_is_found_again() -> None:
    """Decodes take 1.5 times as long on the host, prefills twice; a result takes 0.2 ms more."""
    rng = random.Random(0)
    turns = []
    for _ in range(400):
        rows, prompts, results, share = rng.randint(1, 8), rng.randint(0, 1), rng.randint(0, 4), rng.random()
        sizes = (rows, 8 * rows, 8 * prompts, prompts)
        near, far = alone(*sizes), beside(*sizes)
        computing, hosting = (a + share * (b - a) for a, b in zip(near, far, strict=True))
        taken = Taken(1.1 * computing, (2.0 if prompts else 1.5) * hosting + 2e-4 * results, results)
        turns.append(Logged(False, 0.0, 1.0, sizes, taken, share))
    found = shares(turns, {False: (alone, beside)})
    assert set(found) == {(False, True, False), (False, True, True)}
    for (_, _, prefills), share in found.items():
        assert share.computing == pytest.approx(1.1)
        assert share.hosting == pytest.approx(2.0 if prefills else 1.5, rel=1e-3)
        assert share.per_result == pytest.approx(2e-4, rel=0.01)


def test_steps_are_timed_in_parts_alone_and_beside_others(bundle: Path) -> None:
    with Octavo.load(bundle, devices=["cpu:0", "cpu:1"]) as octavo:
        lanes, contents = octavo.placed.lanes, octavo.loop.contents
        apart = time_alone(lanes, contents, "value", [Cell(2, 2, 16)], 0.4, 0)
        steps = time_steps(lanes, contents, "value", [Cell(2, 2, 16)], 0.4, 0).step_times(judge=False, alone=apart)
    assert steps
    for step in steps:
        assert step.alone is not None
        assert step.beside is not None
        assert step.alone.computing + step.alone.hosting < 0.1
        assert step.beside.computing > 1e-6 < step.beside.hosting
