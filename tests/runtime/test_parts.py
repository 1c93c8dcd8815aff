"""Steps told apart into what they compute and what they do in the interpreter, and how a served load corrects that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from octavo.runtime.calibration import Logged, Seen, logged, mark_beside
from octavo.runtime.handover import handover
from octavo.runtime.local import Octavo
from octavo.runtime.overheads import overheads, shares, spreads
from octavo.runtime.parts import Taken
from octavo.runtime.replay import Arrival
from octavo.runtime.steps import Cell, time_steps


def turn(begun: float, seconds: float) -> Logged:
    return Logged(False, begun, seconds, (1, 8, 0, 0), Taken(0.0, 0.0, 0))


def alone(*sizes: int) -> tuple[float, float]:
    return 1e-3 * sizes[0] + 2e-3, 1e-3


def beside(*sizes: int) -> tuple[float, float]:
    return 2e-3 * sizes[0] + 2e-3, 3e-3


def test_a_turn_knows_for_how_much_of_it_another_lane_ran() -> None:
    lanes = [[turn(0.0, 2.0), turn(2.0, 2.0), turn(10.0, 1.0)], [turn(1.0, 1.5)], [turn(2.25, 0.25)]]
    mark_beside(lanes)
    assert [each.beside for lane in lanes for each in lane] == pytest.approx([0.5, 0.375, 0.0, 1.0, 1.0])


def test_what_a_load_adds_to_the_bench_is_found_again() -> None:
    """Decodes take 1.5 times as long on the host, prefills twice; a result takes 0.2 ms more, a step after a rest 0.3.

    Decodes compute 1.1 times as long, and less where their model took the last step as well.
    """
    rng = random.Random(0)
    turns = []
    for _ in range(600):
        rows, prompts, results, share = rng.randint(1, 8), rng.randint(0, 1), rng.randint(0, 4), rng.random()
        rested, again = rng.random() < 0.1, rng.random() < 0.3
        sizes = (rows, 8 * rows, 8 * prompts, prompts)
        near, far = alone(*sizes), beside(*sizes)
        computing, hosting = (a + share * (b - a) for a, b in zip(near, far, strict=True))
        computing *= 1.1 * (0.8 if again and not prompts else 1.0)
        hosting *= 2.0 if prompts else 1.5
        taken = Taken(computing + 1e-4 * rested, hosting + 2e-4 * results + 3e-4 * rested, results)
        turns.append(Logged(False, 0.0, 1.0, sizes, taken, share, rested, again))
    found = shares(turns, {False: (alone, beside)})
    assert set(found) == {(False, True, False), (False, True, True)}
    for (_, _, prefills), share in found.items():
        assert share.computing == pytest.approx(1.1)
        assert share.hosting == pytest.approx(2.0 if prefills else 1.5, rel=1e-3)
        assert share.per_result == pytest.approx(2e-4, rel=0.01)
        assert share.rest == pytest.approx((1e-4, 3e-4), rel=0.01)
        assert share.again == pytest.approx(1.0 if prefills else 0.8)


def test_like_steps_differ_as_they_did_around_one() -> None:
    """A tenth of the decodes takes twice as long in the interpreter, whatever the pace of the moment."""
    rng, lane, now = random.Random(1), [], 0.0
    for number in range(4000):
        pace, longer = (0.8 if now % 2 < 1 else 1.2), 2.0 if number % 10 == 0 else 1.0
        usual = alone(1, 8, 0, 0)
        taken = Taken(pace * usual[0] * rng.uniform(0.9, 1.1), pace * longer * usual[1], 0)
        lane.append(Logged(False, now, 5e-3, (1, 8, 0, 0), taken))
        now += 5e-3
    split = {False: (alone, alone)}
    seen = Seen([[lane]])
    (pairs,) = spreads(seen, overheads(seen, {False: lambda *_: 4e-3}, split), split).values()
    assert sum(c for c, _ in pairs) == pytest.approx(len(pairs), rel=1e-3) == sum(h for _, h in pairs)
    typical = sorted(h for _, h in pairs)
    assert typical[-1] / typical[len(pairs) // 2] == pytest.approx(2.0, rel=0.1)
    assert sum(h > 1.4 * typical[0] for h in typical) == pytest.approx(len(pairs) / 10, abs=2)


def test_the_interpreter_takes_a_moment_to_change_hands() -> None:
    assert 0 <= handover() < 0.05


def test_a_turn_knows_whether_its_lane_had_rested_and_its_model_took_the_last(bundle: Path) -> None:
    with Octavo.load(bundle, devices=["cpu:0", "cpu:1"], keep_records=True) as octavo:
        first = next(iter(octavo.placed.lanes[0].engines))
        load = [Arrival(0.1 * number, "abc") for number in range(3)]
        _, (own, other) = logged(octavo, load, [], policy="single", max_new_tokens=4, settings={"expert": first})
    assert not other
    prefills = [turn for turn in own if turn.sizes[3]]
    assert any(turn.rested for turn in prefills)
    assert not any(turn.rested for turn in own if not turn.sizes[3])
    assert all(turn.again for turn in own[1:])


def test_steps_are_timed_in_parts_alone_and_beside_others(bundle: Path) -> None:
    with Octavo.load(bundle, devices=["cpu:0", "cpu:1"]) as octavo:
        lanes, contents = octavo.placed.lanes, octavo.loop.contents
        steps = time_steps(lanes, contents, "value", [Cell(2, 2, 16)], 0.8, 0, apart=True).step_times(judge=False)
    assert steps
    for step in steps:
        assert step.alone is not None
        assert step.beside is not None
        assert step.alone.computing + step.alone.hosting < 0.1
        assert step.beside.computing > 1e-6 < step.beside.hosting
