"""Simulated points: every one is kept, each seed a task for the process pool, short runs before long ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Self

from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario, Targets
from octavo.simulator.estimate import Estimate
from octavo.simulator.metrics import Sample, estimates
from octavo.simulator.plan.cost import usd_per_hour
from octavo.simulator.plan.space import Point
from octavo.simulator.run import run

AT_LEAST = ("goodput", "availability", "accuracy")
CLEAR = 0.25
"""A short run that misses no target by more than this share may be wrong."""
SHORT = 300
"""Queries of a short run."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One seed's run; `refused` says why there was none."""

    sample: Sample | None
    overloaded: str | None = None
    label: str = ""
    band: float = 0.0
    refused: str | None = None


def trial(task: tuple[Scenario, int]) -> Trial:
    """Runs in a worker; what is sent back is small."""
    try:
        done = run(*task)
    except ConfigError as error:
        return Trial(None, refused=str(error))
    lanes = [lane.latency for device, _ in done.fleet.replicas for lane in device.lanes]
    labels = dict.fromkeys(latency.label for latency in lanes)
    return Trial(done.sample, done.overloaded, "; ".join(labels), max(latency.band for latency in lanes))


@dataclass(frozen=True, slots=True)
class Miss:
    """A target that is not met; `reached` is None where nothing was measured."""

    target: str
    wanted: float
    reached: float | None

    @property
    def ratio(self) -> float:
        """How much worse than wanted, above 1."""
        if self.reached is None:
            return float("inf")
        return badness(self.target, self.wanted, self.reached)

    def __str__(self) -> str:
        if self.reached is None:
            return f"{self.target}: unknown, wanted {self.wanted:g}"
        return f"{self.target} {self.reached:.4g}, wanted {self.wanted:g} ({self.ratio - 1:.0%} off)"


def badness(name: str, wanted: float, reached: float) -> float:
    """Reached over wanted, or the reverse where more is better: at most 1 where the target is met."""
    above, below = (wanted, reached) if name in AT_LEAST else (reached, wanted)
    return above / below if below > 0 else float("inf") if above > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A point as simulated, and its cost without egress, USD/h."""

    point: Point
    metrics: dict[str, Estimate]
    usd_per_hour: float
    overloaded: str | None
    queries: int | None
    seeds: tuple[int, ...]
    label: str = ""
    band: float = 0.0
    refused: str | None = None

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric].value

    def missed(self, targets: Targets) -> tuple[Miss, ...]:
        """The targets that are not met, the worst first."""
        found = []
        for name, wanted in targets:
            if wanted is not None:
                reached = self.metrics[name].value if name in self.metrics else None
                if reached is None or badness(name, wanted, reached) > 1:
                    found.append(Miss(name, wanted, reached))
        return tuple(sorted(found, key=lambda miss: -miss.ratio))

    def meets(self, targets: Targets) -> bool:
        return not self.refused and not self.overloaded and not self.missed(targets)

    def worst(self, targets: Targets) -> float:
        """The largest badness over the targets."""
        if self.refused or self.overloaded:
            return float("inf")
        have = [(name, wanted) for name, wanted in targets if wanted is not None]
        ratios = [badness(n, w, self.metrics[n].value) if n in self.metrics else float("inf") for n, w in have]
        return max(ratios, default=0.0)


class Pool(AbstractContextManager["Pool"]):
    """All cores, or as many jobs as are asked for; results come in the order of the tasks, however many jobs."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or os.cpu_count() or 1
        self._executor: ProcessPoolExecutor | None = None
        self.runs = 0

    def map(self, tasks: Sequence[tuple[Scenario, int]]) -> Iterable[Trial]:
        self.runs += len(tasks)
        if self.jobs == 1 or len(tasks) == 1:
            return [trial(task) for task in tasks]
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self.jobs)
        return list(self._executor.map(trial, tasks))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)


@dataclass
class Lab:
    """Simulates points of one scenario on common random numbers, and remembers every one."""

    scenario: Scenario
    pool: Pool
    seeds: tuple[int, ...]
    queries: int | None = None
    short: dict[Point, Evaluation] = field(default_factory=dict)
    full: dict[Point, Evaluation] = field(default_factory=dict)

    def known(self, point: Point) -> Evaluation | None:
        return self.full.get(point) or self.short.get(point)

    def everything(self) -> list[Evaluation]:
        """The best that is known of every point that was simulated."""
        return [*self.full.values(), *(found for point, found in self.short.items() if point not in self.full)]

    def judge(self, point: Point) -> Evaluation:
        """What is known of the point, at least from a short run."""
        if known := self.known(point):
            return known
        if not self._shortens:
            return self.confirm(point)
        self.short[point] = self._evaluate(point, self.seeds[:1], round(min(SHORT, self._length)))
        return self.short[point]

    def doubtful(self, targets: Targets) -> list[Evaluation]:
        """Short runs that miss a target by so little that a long one may not."""
        return [
            found
            for point, found in self.short.items()
            if point not in self.full and 1 < found.worst(targets) < 1 + CLEAR
        ]

    def confirm(self, point: Point) -> Evaluation:
        """All seeds, at full length."""
        if point not in self.full:
            self.full[point] = self._evaluate(point, self.seeds, self.queries)
        return self.full[point]

    @property
    def _shortens(self) -> bool:
        """Whether a short run says something of the long one: traffic must be stationary, and the long one longer."""
        stationary = self.scenario.workload.arrivals.kind in ("poisson", "gamma", "weibull", "closed_loop")
        return stationary and (len(self.seeds) > 1 or self._length > SHORT)

    @property
    def _length(self) -> float:
        return self.queries or self.scenario.workload.queries or inf

    def _evaluate(self, point: Point, seeds: tuple[int, ...], queries: int | None) -> Evaluation:
        applied = point.applied(self.scenario)
        if queries:
            workload = applied.workload.model_copy(update={"queries": queries, "duration": None})
            applied = applied.model_copy(update={"workload": workload})
        trials = list(self.pool.map([(applied, seed) for seed in seeds]))
        samples = [one.sample for one in trials if one.sample is not None]
        if len(samples) < len(trials):
            refused = next(one.refused for one in trials if one.refused)
            return Evaluation(point, {}, usd_per_hour(applied), None, queries, seeds, refused=refused)
        metrics = estimates(samples)
        paid = usd_per_hour(applied, {name: estimate.value for name, estimate in metrics.items()})
        overloaded = next((one.overloaded for one in trials if one.overloaded), None)
        return Evaluation(point, metrics, paid, overloaded, queries, seeds, trials[0].label, trials[0].band)
