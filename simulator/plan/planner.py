"""`plan`: searches the space for a scenario, its baselines and policies, and asks of the answer what a buyer asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from octavo.profiles.errors import ConfigError
from octavo.profiles.load import baselines, override, vary
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan.lab import Lab
from octavo.simulator.plan.line import Infeasible, Line, planned_line, words
from octavo.simulator.plan.result import Plan, Relaxation, WhatIf
from octavo.simulator.plan.space import Space
from octavo.simulator.plan.traffic import scaled, slowed
from octavo.simulator.plan.trials import Evaluation, Pool
from octavo.simulator.supported import check

Progress = Callable[[str, float], None]
FACTORS = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0)
"""Multiples of the traffic between which headroom is told apart."""


def plan(
    scenario: Scenario,
    *,
    space: Space | None = None,
    seeds: Sequence[int] | None = None,
    queries: int | None = None,
    what_if: Sequence[str] = (),
    jobs: int | None = None,
    progress: Progress = lambda stage, share: None,
) -> Plan:
    """The cheapest fleet for the scenario's traffic and targets. `queries` per seed in runs that decide; the scenario's
    own by default. Each of `what_if` (`a.b*=0.7`, several joined by `;`) is planned on its own.

    Raises Infeasible where nothing meets the targets, ConfigError where something is asked for that is not there.
    """
    check(scenario)
    space, chosen_seeds = space or Space(), tuple(scenario.seeds if seeds is None else seeds)
    with Pool(jobs) as pool:

        def search(name: str, wanted: Scenario, thorough: bool = False) -> Line:
            return planned_line(name, wanted, space, pool, chosen_seeds, queries, partial(progress, name), thorough)

        own = search(scenario.name, scenario, True)
        beside = tuple(search(name, each) for name, each in _variants(scenario, space))
        chosen = _chosen(own, beside, space)
        if chosen is None:
            raise Infeasible(f"{scenario.name}: no fleet meets the targets; {own.why()}", own.closest)
        progress("headroom", 0.0)
        headroom, band = _headroom(chosen), _band(chosen)
        progress("headroom", 1.0)
        relaxed = tuple(sorted(_relaxations(chosen), key=lambda each: (-each.saved, each.target)))
        supposed = tuple(_supposed(scenario, each, search) for each in what_if)
        return Plan(chosen, own, beside, headroom, band, relaxed, supposed, pool.runs)


def _variants(scenario: Scenario, space: Space) -> Iterator[tuple[str, Scenario]]:
    yield from baselines(scenario).items()
    for policy in space.policies:
        name = f"policy {' '.join(str(value) for value in policy.values())}"
        yield name, vary(scenario, {"ensemble": {"policy": dict(policy)}, "baselines": []})


def _chosen(own: Line, beside: Sequence[Line], space: Space) -> Line | None:
    """The scenario's own policy; the cheapest one where a target says how right answers must be."""
    policies = beside[len(beside) - len(space.policies) :] if space.policies else ()
    allowed = [own, *policies] if own.scenario.targets.accuracy is not None else [own]
    found = [line for line in allowed if line.best is not None]
    return min(found, key=_usd, default=None)


def _usd(line: Line) -> float:
    assert line.best is not None
    return line.best.usd_per_hour


def _headroom(line: Line) -> float | None:
    """How many times the traffic the fleet carries within its targets; None where traffic has no rate."""
    assert line.best is not None
    carried = 1.0
    for factor in FACTORS:
        more = scaled(line.scenario, factor)
        if more is None:
            return None
        if not line.rough().on(more).judge(line.best.point).meets(more.targets):
            break
        carried = factor
    return carried


def _band(line: Line) -> tuple[float | None, float | None]:
    """The cost of enough of the same devices where all steps are faster, or slower, by the latency model's error."""
    assert line.best is not None
    ends: list[float | None] = []
    for factor in (1 / (1 + line.best.band), 1 + line.best.band):
        other = slowed(line.scenario, factor)
        ends.append(None if other is None else _recounted(line, other))
    return ends[0], ends[1]


def _recounted(line: Line, other: Scenario) -> float | None:
    """The cheapest count of the chosen shape for other traffic, by short runs."""
    assert line.best is not None
    lab = line.rough().on(other)
    same = [each for each in line.brackets if each.shape == line.best.point.shape]
    return _cheapest_short(lab, line.best, same[0].high)


def _cheapest_short(lab: Lab, start: Evaluation, high: Sequence[int]) -> float | None:
    """Walks replicas up, or down, from where they are, all placements in turn, while the targets say so."""
    replicas = list(start.point.replicas)
    found = _try(lab, start, replicas)
    while found is None and any(have < most for have, most in zip(replicas, high, strict=True)):
        replicas = [min(have + max(1, have // 4), most) for have, most in zip(replicas, high, strict=True)]
        found = _try(lab, start, replicas)
    for index in range(len(replicas)):
        while found is not None and replicas[index] > 1:
            fewer = [*replicas[:index], replicas[index] - 1, *replicas[index + 1 :]]
            less = _try(lab, start, fewer)
            if less is None:
                break
            replicas, found = fewer, less
    return found


def _try(lab: Lab, start: Evaluation, replicas: Sequence[int]) -> float | None:
    judged = lab.judge(replace(start.point, replicas=tuple(replicas)))
    return judged.usd_per_hour if judged.meets(lab.scenario.targets) else None


def _relaxations(line: Line) -> Iterator[Relaxation]:
    """For every target: the cheapest fleet that meets the others."""
    assert line.best is not None
    targets = line.scenario.targets
    for name, wanted in targets:
        if wanted is None or not _stands_in_the_way(line, name):
            continue
        without = line.cheapest(targets.model_copy(update={name: None}))
        if without is not None and (saved := line.best.usd_per_hour - without.usd_per_hour) > 1e-9:
            reached = without[name] if name in without.metrics else None
            yield Relaxation(name, wanted, reached, without.usd_per_hour, saved)


def _stands_in_the_way(line: Line, target: str) -> bool:
    """Whether a cheaper fleet keeps up and misses nothing but this target, or nobody has looked for one."""
    assert line.best is not None
    cheaper = [each for each in line.points if each.usd_per_hour < line.best.usd_per_hour and not each.refused]
    misses = [[miss.target for miss in each.missed(line.scenario.targets)] for each in cheaper if not each.overloaded]
    return not cheaper or [target] in misses


def _supposed(scenario: Scenario, text: str, search: Callable[[str, Scenario], Line]) -> WhatIf:
    changes = [change.strip() for change in text.split(";") if change.strip()]
    if not changes:
        raise ConfigError("what-if: give a change, such as workload.arrivals.rate*=3")
    line = search(f"what if {text}", override(scenario, changes).model_copy(update={"baselines": ()}))
    if line.best is None:
        return WhatIf(text, None, line.why())
    return WhatIf(text, line.best.usd_per_hour, words(line.best, line.scenario))
