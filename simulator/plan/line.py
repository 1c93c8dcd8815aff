"""One planned scenario: the cheapest fleet for its traffic and targets, and everything that was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from octavo.profiles.load import vary
from octavo.profiles.scenario import Scenario, Service, Targets
from octavo.simulator.estimate import tidy
from octavo.simulator.plan.bracket import Bracket, Brackets
from octavo.simulator.plan.cost import HOURS_PER_MONTH
from octavo.simulator.plan.demand import demand
from octavo.simulator.plan.fixed import fixed, searched
from octavo.simulator.plan.lab import Lab, allowed, deciding, steady
from octavo.simulator.plan.search import Search
from octavo.simulator.plan.space import Space, furnished, shapes, who
from octavo.simulator.plan.trials import Evaluation, Pool, spared

SHOWN = (
    "accuracy",
    "ttft_p95",
    "tpot_p95",
    "latency_p50",
    "latency_p95",
    "usd_per_query",
    "usd_per_million_tokens",
    "joules_per_query",
    "grams_co2e_per_query",
    "utilisation",
    "throughput",
    "availability",
)


class Unfinished(KeyboardInterrupt):
    """The search for a line was interrupted; `line` has what was judged until then."""

    def __init__(self, line: Line) -> None:
        super().__init__(line.name)
        self.line = line


@dataclass
class Line:
    """`best` meets the targets; where nothing does it is None and `closest` misses by least.

    Of a search that was not `finished`, `best` is the cheapest that was simulated so far; others may be cheaper.
    `unmended` is the cheapest that meets all targets but those that no dearer fleet would meet either.
    """

    name: str
    scenario: Scenario
    lab: Lab
    brackets: list[Bracket]
    best: Evaluation | None
    space: Space
    unmended: Evaluation | None = None
    points: list[Evaluation] = field(default_factory=list)
    finished: bool = True
    _rough: Lab | None = None

    def __post_init__(self) -> None:
        self.points = sorted(self.lab.everything(), key=lambda each: (each.usd_per_hour, each.point.key))

    @property
    def found(self) -> Evaluation:
        """`best`, where there is one."""
        assert self.best is not None
        return self.best

    @property
    def closest(self) -> Evaluation | None:
        """Finite misses before overload."""
        if self.unmended:
            return self.unmended
        ran = [each for each in self.points if not each.refused]
        targets = self.scenario.targets
        return min(ran, key=lambda each: (each.worst(targets), -each.usd_per_hour), default=None)

    def far(self) -> float:
        """How far the closest is from the targets."""
        return self.closest.worst(self.scenario.targets) if self.closest else inf

    @property
    def next_cheaper(self) -> Evaluation | None:
        """The dearest of the fleets that cost less and fail; preferably one of the same devices."""
        if self.best is None:
            return None
        targets, limit = self.scenario.targets, self.best.usd_per_hour
        # Where devices are owned a sketch knows no energy above idle, so what looks cheaper may meet the targets.
        cheaper = [e for e in self.points if e.usd_per_hour < limit and not (e.refused or e.meets(targets))]
        alike = [each for each in cheaper if each.point.shape == self.best.point.shape]
        found = alike or cheaper
        return found[-1] if found else None

    def look_at_next_cheaper(self) -> None:
        """Sketch it on all queries; simulate it, where only a sketch says why it fails, and says so by little."""
        cheaper = self.next_cheaper
        if cheaper and cheaper.sketched:
            if self.lab.is_doubtful(self.lab.refine(cheaper.point), self.scenario.targets):
                self.lab.confirm(cheaper.point)
            self.points = sorted(self.lab.everything(), key=lambda each: (each.usd_per_hour, each.point.key))

    def planned(self) -> Scenario:
        """The scenario on the fleet that was found, with no facts that it does not need; checked again."""
        assert self.best is not None
        applied = self.best.point.applied(self.scenario)
        used = {place.hardware for place in applied.fleet.placement}
        kept = {name: facts for name, facts in applied.hardware.items() if name in used}
        return vary(applied.model_copy(update={"hardware": kept, "baselines": ()}), {})

    def rough(self) -> Lab:
        """For questions about the neighbours of the plan."""
        assert self.best is not None
        if self._rough is None:
            self._rough = self.lab.rough(self.best)
        return self._rough

    def cheapest(self, targets: Targets) -> Evaluation | None:
        """The cheapest fleet under other targets, by sketches and what was simulated before."""
        targets = targets.model_copy(update=dict.fromkeys(fixed(self.scenario)))
        scenario = self.scenario.model_copy(update={"targets": targets})
        lab = self.rough().on(scenario)
        alike = targets.n_minus_1 == self.scenario.targets.n_minus_1
        brackets = self.brackets if alike else bracketed(scenario, self.space, self.lab.seeds[0])
        found = Search(
            lab, targets, brackets, most_devices=self.space.most_devices, settles=False, thorough=False
        ).run()
        spare = targets.n_minus_1 is not None
        known = [each for each in (found, *self.points) if each and each.meets(targets) and (each.down or not spare)]
        return min(known, key=lambda each: (each.usd_per_hour, each.point.key), default=None)

    def why(self) -> str:
        """What stands against every fleet."""
        closest = self.closest
        if closest is None:
            # What more devices would mend goes before what none would.
            nearest = min(self.brackets, key=lambda each: (not each.short, each.misses_by), default=None)
            if nearest is None or nearest.refused is None:
                return "the space is empty"
            said = nearest.refused.splitlines()[0]
            return said if nearest.misses_by == inf or nearest.short else f"the closest is {said}"
        fleet = words(closest, self.scenario)
        why = f"the closest is {fleet} at {closest.usd_per_hour:.2f} USD/h: {failure(closest, self.scenario.targets)}"
        return why + (self._too_short() if closest.overloaded else "")

    def _too_short(self) -> str:
        """That runs are too short to tell a queue that grows from queries that take long, where they are."""
        rate, longest, queries = self.scenario.workload.rate, allowed(self.scenario), self.lab.length
        if rate is None or queries >= 2 * longest * rate:
            return ""
        enough = round(steady(self.scenario))
        lasts = f"; but runs last {queries / rate:.3g} s where a query may take {longest:g} s"
        return f"{lasts}; --queries {enough} would tell"

    def to_json(self) -> dict[str, Any]:
        shown = self.best or self.closest
        return {
            "name": self.name,
            "description": self.scenario.description,
            "feasible": self.best is not None,
            "finished": self.finished,
            "plan": evaluation_json(shown, self.scenario) if shown else None,
            "points": [evaluation_json(each, self.scenario) for each in self.points],
            "refused": sum(each.refused is not None for each in self.brackets),
            "shapes": len(self.brackets),
        }


def bracketed(scenario: Scenario, space: Space, seed: int) -> list[Bracket]:
    """Every shape of the space. `scenario` is furnished."""
    asked = Brackets(scenario, demand(scenario, seed), space.most_devices)
    return [asked.of(shape) for shape in shapes(scenario, space)]


def planned_line(
    name: str,
    scenario: Scenario,
    space: Space,
    pool: Pool,
    seeds: tuple[int, ...],
    queries: int | None,
    progress: Callable[[float], None] = lambda share: None,
    thorough: bool = True,
) -> Line:
    """Search the space for one scenario. What is only compared with need not be looked at twice."""
    full = furnished(scenario, space)
    found = bracketed(full, space, seeds[0])
    light = not thorough and full.targets.accuracy is None  # else it may become the plan
    lab = Lab(full, pool, seeds, queries or deciding(full), light)
    try:
        best = Search(lab, searched(full), found, progress, space.most_devices, thorough=thorough).run()
    except KeyboardInterrupt:
        good = [each for each in lab.full.values() if each.meets(full.targets)]
        best = min(good, key=lambda each: (each.usd_per_hour, each.point.key), default=None)
        raise Unfinished(Line(name, full, lab, found, best, space, finished=False)) from None
    if best and not best.meets(full.targets):
        return Line(name, full, lab, found, None, space, unmended=best)
    return Line(name, full, lab, found, best, space)


def words(found: Evaluation, scenario: Scenario) -> str:
    """The devices of a point, in words."""
    parts = []
    for place, replicas in zip(found.point.shape.placements, found.point.replicas, strict=True):
        count = scenario.devices_of(place) * replicas
        shards = f", {place.tensor_parallel} a replica" if place.tensor_parallel > 1 else ""
        mode = f" {place.mode}" if place.mode != "dedicated" else ""
        parts.append(f"{count} {place.hardware} for {who(place)}{mode}{shards}")
    return "; ".join([*parts, *(f"{name} {value}" for name, value in found.point.shape.engine.items())])


def failure(found: Evaluation, targets: Service) -> str:
    """Why a point is no plan."""
    if (served := spared(targets)) and found.whole(targets) and (model := found.fails_without(targets)):
        return f"without a replica of {model}: {failure(found.down[model], served)}"
    if found.refused:
        return found.refused
    if found.overloaded:
        return f"it does not keep up, {found.overloaded.rsplit('; ', 1)[-1]}"
    return "; ".join(map(str, found.missed(targets))) or "nothing; it meets the targets"


def evaluation_json(found: Evaluation, scenario: Scenario) -> dict[str, Any]:
    """A point as a machine reads it."""
    worst = found.worst(scenario.targets)
    return {
        "devices": {f"{tier}/{hw}": n for (tier, hw), n in found.point.applied(scenario).devices().items()},
        "fleet": words(found, scenario),
        "replicas": list(found.point.replicas),
        "usd_per_hour": tidy(found.usd_per_hour),
        "usd_per_month": tidy(found.usd_per_hour * HOURS_PER_MONTH),
        "metrics": _metrics_json(found),
        "overloaded": found.overloaded,
        "refused": found.refused,
        "missed": [str(miss) for miss in found.missed(scenario.targets)] if not found.overloaded else [],
        "n_minus_1": dict(_down_json(found, scenario.targets)),
        "worst_ratio": None if worst == inf else tidy(worst),
        "queries_per_seed": found.queries or scenario.workload.queries,
        "seeds": list(found.seeds),
        "by": "sketch" if found.sketched else "simulation",
        "strain": found.strain,
        "where": found.where,
        "latency_model": found.label,
        "band": {"shorter": tidy(found.band.shorter), "longer": tidy(found.band.longer)},
    }


def _down_json(found: Evaluation, targets: Targets) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same point without a replica of each model."""
    served = spared(targets) or Service()
    for model, each in found.down.items():
        fails = None if each.whole(served) else failure(each, served)
        by = "sketch" if each.sketched else "simulation"
        yield model, {"metrics": _metrics_json(each), "fails": fails, "by": by}


def _metrics_json(found: Evaluation) -> dict[str, Any]:
    """An overloaded one has no latency."""
    timed = ("latency", "ttft", "tpot")
    shown = {n: found.metrics[n] for n in SHOWN if n in found.metrics}
    return {n: e.to_json() for n, e in shown.items() if not (found.overloaded and n.startswith(timed))}
