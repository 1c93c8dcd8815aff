"""What a buyer asks of a plan: how much more it carries, what relaxing saves, what moves its cost, one device fewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from octavo.profiles.errors import ConfigError
from octavo.profiles.load import override
from octavo.profiles.policy import Cascade
from octavo.profiles.scenario import Scenario, Service, Targets
from octavo.simulator.panel import VALUE, slots
from octavo.simulator.plan.fixed import enduring
from octavo.simulator.plan.lab import Lab
from octavo.simulator.plan.line import Line, failure
from octavo.simulator.plan.space import Point
from octavo.simulator.plan.traffic import scaled, slowed
from octavo.simulator.plan.trials import Evaluation, spared
from octavo.simulator.spare import lost, silenced, victims

MOST_TRAFFIC = 8.0
"""Headroom is looked for up to so many times the traffic."""
SWING = 0.2
"""Relative change of an input, either way, of the sensitivity."""
INPUTS = 10
LITTLE = 0.002
"""Of the cost; less is nothing saved."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """What the plan would cost without one target, and what it would reach instead."""

    target: str
    wanted: float | None
    reached: float | None
    usd_per_hour: float
    saved: float

    def __str__(self) -> str:
        if self.wanted is None:
            return f"without {self.target}: saves {self.saved:.2f} $/h"
        reached = "nothing" if self.reached is None else f"about {self.reached:.3g}"
        return f"{self.target} from {self.wanted:g} to {reached}: saves {self.saved:.2f} $/h"


@dataclass(frozen=True, slots=True)
class Swing:
    """USD/h of enough of the same devices where an input is 20 % smaller, and larger; None: no count is enough."""

    name: str
    less: float | None
    more: float | None

    @property
    def size(self) -> float:
        if self.less is None or self.more is None:
            return float("inf")
        return abs(self.more - self.less)


def headroom(line: Line) -> float | None:
    """How many times the traffic the fleet carries within its targets, to 3 %; None where traffic has no rate."""
    low, high = 1.0, 1.1
    while high <= MOST_TRAFFIC:
        carried = _carries(line, line.found, high)
        if carried is None:
            return None
        if not carried:
            break
        low, high = high, high * 1.4
    high = min(high, MOST_TRAFFIC)
    while high > 1.03 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if _carries(line, line.found, middle) else (low, middle)
    return low


def _carries(line: Line, best: Evaluation, factor: float) -> bool | None:
    more = scaled(line.scenario, factor)
    return None if more is None else line.rough().on(more).judge(best.point).meets(more.targets)


def band(line: Line) -> tuple[float | None, float | None]:
    """The cost of enough of the same devices where all steps are faster, or slower, by the latency model's error."""
    faster, slower = 1 - line.found.band.shorter, 1 + line.found.band.longer
    return _recounted(line, slowed(line.scenario, faster)), _recounted(line, slowed(line.scenario, slower))


def _recounted(line: Line, other: Scenario) -> float | None:
    """The cheapest count of the chosen shape for another scenario."""
    same = next(each for each in line.brackets if each.shape == line.found.point.shape)
    return _cheapest(line.rough().on(other), line.found.point, [2 * most for most in same.high])


def _cheapest(lab: Lab, start: Point, high: Sequence[int]) -> float | None:
    """Walks replicas up, or down, from where they are, all placements in turn, while the targets say so."""
    replicas = list(start.replicas)
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


def _try(lab: Lab, start: Point, replicas: Sequence[int]) -> float | None:
    judged = lab.judge(replace(start, replicas=tuple(replicas)))
    return judged.usd_per_hour if judged.meets(lab.scenario.targets) else None


def relaxations(line: Line) -> Iterator[Relaxation]:
    """For every target that stands in the way: the cheapest fleet that meets the others."""
    targets = line.scenario.targets
    spare = {} if targets.n_minus_1 is None else {"n_minus_1": None}
    for name, wanted in (*targets.wanted.items(), *spare.items()):
        if not _stands_in_the_way(line, name):
            continue
        without = line.cheapest(targets.model_copy(update={name: None}))
        if without is None or without.point == line.found.point:
            continue
        if line.lab.energy and without.point.shape not in line.lab.energy:
            without = line.lab.confirm(without.point)  # a sketch does not know what energy other devices take
        if (saved := line.found.usd_per_hour - without.usd_per_hour) > LITTLE * line.found.usd_per_hour:
            reached = without[name] if name in without.metrics else None
            yield Relaxation(name, wanted, reached, without.usd_per_hour, saved)


def _stands_in_the_way(line: Line, target: str) -> bool:
    """Whether a cheaper fleet keeps up and misses nothing but this target, or nobody has looked for one."""
    cheaper = [each for each in line.points if each.usd_per_hour < line.found.usd_per_hour and not each.refused]
    return not cheaper or [target] in [_misses(each, line.scenario.targets) for each in cheaper if not each.overloaded]


def _misses(found: Evaluation, targets: Targets) -> list[str]:
    spare = ["n_minus_1"] if found.fails_without(targets) else []
    return [miss.target for miss in found.missed(targets)] + spare


def one_down(line: Line) -> list[str]:
    """What is left of the targets when one replica is away for long, for each kind of replica."""
    scenario, point = line.scenario, line.found.point
    asked = scenario if scenario.targets.n_minus_1 else enduring(scenario)
    lab, wanted = line.rough().on(asked), asked.targets.n_minus_1 or Service()
    said = []
    for model in victims(point.applied(scenario)):
        found = line.found.down.get(model) or lab.without(model).judge(point)
        holds = "targets hold" if found.whole(wanted) else failure(found, wanted)
        said.append(f"a replica of {model}: {holds}{_left(point.applied(scenario).without(model))}")
    return said


def _left(scenario: Scenario) -> str:
    """What of the ensemble is left where models have no device at all."""
    gone = lost(scenario)
    makers = [name for name, _ in slots(scenario)]
    left = sum(name not in gone for name in makers)
    if not gone or silenced(scenario):
        return ""
    if isinstance(policy := scenario.ensemble.policy, Cascade) and policy.first in gone:
        return "; every query goes to the others"
    judge = "; nobody judges" if VALUE in gone else ""
    return f"{judge}; answers from {left} of {len(makers)} candidates" if left < len(makers) else judge


def sensitivity(line: Line) -> tuple[Swing, ...]:
    """The inputs that move the cost most, the largest first."""
    found = []
    for name, changes in _inputs(line):
        ends = [_changed(line, changes, factor) for factor in (1 - SWING, 1 + SWING)]
        if all(end is not False for end in ends):
            found.append(Swing(name, *(None if end is False else end for end in ends)))
    moving = [swing for swing in found if swing.size]
    return tuple(sorted(moving, key=lambda swing: (-swing.size, swing.name)))[:INPUTS]


def _inputs(line: Line) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each input in words, and the keys that are scaled."""
    names = dict.fromkeys(place.hardware for place in line.found.point.shape.placements)

    def each(*fields: str) -> tuple[str, ...]:
        return tuple(f"hardware.{name}.{field}" for name in names for field in fields)

    arrivals = line.scenario.workload.arrivals
    yield "traffic", (f"workload.arrivals.{'clients' if arrivals.kind == 'closed_loop' else 'rate'}",)
    yield "answer length", ("workload.answer_tokens.mean",)
    yield "prompt length", ("workload.prompt_tokens.mean",)
    yield "spread of answer lengths", ("workload.answer_tokens.cv",)
    yield "device price", each("price.usd_per_hour")
    yield "device price", each("price.purchase_usd")
    yield "memory bandwidth", each("bandwidth")
    yield "FLOP/s", each("flops")
    yield "memory", each("memory")
    yield "overheads of a step", each("step_overhead", "layer_overhead", "sequence_overhead")
    yield "shared prefix", ("workload.shared_prefix_tokens",)
    for target in line.scenario.targets.wanted:
        yield f"target {target}", (f"targets.{target}",)
    if served := spared(line.scenario.targets):
        for target in served.wanted:
            yield f"target n_minus_1.{target}", (f"targets.n_minus_1.{target}",)


def _changed(line: Line, keys: Sequence[str], factor: float) -> float | bool | None:
    """USD/h of the chosen shape with scaled inputs; False where they cannot be scaled, or change nothing."""
    try:
        other = override(line.scenario, [f"{key}*={factor:g}" for key in keys])
    except ConfigError:
        return False
    changed = other.model_copy(update={"baselines": line.scenario.baselines})
    return False if changed == line.scenario else _recounted(line, changed)
