"""Judges points, and keeps every one: by a sketch or a short run first, by all seeds where it matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from octavo.profiles.scenario import Scenario, Service, Targets
from octavo.simulator.estimate import Estimate, over_seeds
from octavo.simulator.metrics import estimates
from octavo.simulator.plan.cost import usd_per_hour
from octavo.simulator.plan.fixed import searched
from octavo.simulator.plan.sketch import Sketcher, is_sketchable
from octavo.simulator.plan.space import Point, Shape
from octavo.simulator.plan.trials import Evaluation, Pool, Trial, spared
from octavo.simulator.spare import silenced, victims

CLEAR = 0.15
"""A sketch or a short run that misses no target by more than this share may be wrong."""
CLEARISH = 0.08
"""The same of a sketch on one seed's queries, corrected by what a sketch on all seeds' came to elsewhere."""
STORMY = 0.4
"""The same where it does not keep up."""
CLEARER = 0.025
"""The same of a sketch on the very queries of the runs that decide."""
CLEAREST = 0.005
"""The same where the point's simulation on one of these seeds corrects it."""
GLIMPSE = 100
"""Queries of a first sketch. It begins with nothing to do, so what it misses clearly is missed."""
SHORT = 300
"""Queries of a run or a sketch, at least, where nothing else is asked for."""
SPANS = 8
"""A run lasts at least so many times the longest latency that a target allows: it must come to a steady state."""
STATIONARY = ("poisson", "gamma", "weibull", "closed_loop")


@dataclass
class Lab:
    """Judges points of one scenario on common random numbers, and remembers every one.

    Sketches are corrected by ratios of metrics: `corrections` by shape and `common` for the others, of simulations over
    sketches of the same queries; `seeded` of all seeds' queries over the first one's. `energy` is what a query pays
    above idle on owned devices, as simulations of its shape say. Where it is `light` the other seeds of what the first
    one's simulation clearly settles are sketched too.

    What a point comes to without a replica of a model is asked of a laboratory of its own, whose `whole` is this one.
    """

    scenario: Scenario
    pool: Pool
    seeds: tuple[int, ...]
    queries: int | None = None
    light: bool = False
    short: dict[Point, Evaluation] = field(default_factory=dict)
    full: dict[Point, Evaluation] = field(default_factory=dict)
    corrections: dict[Shape, dict[str, float]] = field(default_factory=dict)
    common: dict[str, float] = field(default_factory=dict)
    seeded: dict[str, float] = field(default_factory=dict)
    energy: dict[Shape, float] = field(default_factory=dict)
    whole: Lab | None = None
    _without: dict[str, Lab] = field(default_factory=dict)
    _sketchers: dict[tuple[int, int | None], Sketcher] = field(default_factory=dict)
    _trials: dict[tuple[Point, int, int | None], Trial] = field(default_factory=dict)

    def on(self, scenario: Scenario) -> Lab:
        """The same laboratory for other traffic or targets; what corrects its sketches is kept."""
        same = scenario.workload == self.scenario.workload and scenario.hardware == self.scenario.hardware
        return Lab(
            scenario,
            self.pool,
            self.seeds,
            self.queries,
            corrections=self.corrections,
            common=self.common,
            energy=self.energy,
            _sketchers=self._sketchers if same else {},
        )

    def without(self, model: str) -> Lab:
        """The laboratory of what is left when a replica of the model is away."""
        if model not in self._without:
            scenario, seeded = self.scenario.without(model), dict(self.seeded)
            self._without[model] = Lab(
                *(scenario, self.pool, self.seeds, self.queries, self.light),
                common=self.common,
                seeded=seeded,
                energy=self.energy,
                whole=self,
            )
        self._without[model].pool = self.pool
        return self._without[model]

    def known(self, point: Point) -> Evaluation | None:
        """The best that is known; a sketch as corrected by what simulations of its shape came to."""
        if found := self.full.get(point):
            return found
        if (found := self._known(point)) and self._without:
            down = {model: each for model, lab in self._without.items() if (each := lab.known(point))}
            found = replace(found, down=down)
        return found

    def _known(self, point: Point) -> Evaluation | None:
        found = self.short.get(point)
        if found and found.sketched and (usd := self.energy.get(point.shape)):
            paid = usd_per_hour(point.applied(self.scenario)) + 3600 * usd * (self.scenario.workload.rate or 0.0)
            found = replace(found, usd_per_hour=paid)
        factors = self._factors(point.shape)
        if not (found and factors and self._is_fine(found)):
            return found
        return _corrected(found, factors)

    def _factors(self, shape: Shape) -> dict[str, float]:
        others = self.whole._factors(shape) if self.whole else self.common
        return self.corrections.get(shape, others)

    def _spared(self, found: Evaluation, ask: Callable[[Lab, Point], Evaluation]) -> Evaluation:
        """With what it comes to without each kind of replica, up to the first that it cannot do without."""
        targets = searched(self.scenario)
        if (served := spared(targets)) is None or not found.whole(targets):
            return found
        down: dict[str, Evaluation] = {}
        for model in victims(found.point.applied(self.scenario)):
            lab = self.without(model)
            down[model] = ask(lab, found.point)
            if not down[model].whole(served) and not lab.is_doubtful(down[model], served):
                break
        return replace(found, down=down)

    def everything(self) -> list[Evaluation]:
        """The best that is known of every point that was judged."""
        return [
            *self.full.values(),
            *(self.known(point) or e for point, e in self.short.items() if point not in self.full),
        ]

    def judge(self, point: Point) -> Evaluation:
        """What is known of the point, at least from a sketch or a short run."""
        if point in self.full:
            return self.full[point]
        found = self._spared(self._judged(point), Lab.judge)
        if point in self.full:  # what cannot be shortened ran in full
            self.full[point] = found
        return found

    def _judged(self, point: Point) -> Evaluation:
        if known := self._known(point):
            return known
        if said := self.whole and silenced(point.applied(self.scenario)):
            self.full[point] = Evaluation(point, {}, 0.0, None, self.queries, self.seeds, refused=said)
            return self.full[point]
        found = self._sketched(point)
        if found is None and not self._shortens:
            return self._confirmed(point, self.scenario.targets)
        self.short[point] = found or self._evaluate(point, self.seeds[:1], round(min(self._steady, self.length)))
        return self._known(point) or self.short[point]

    def _sketched(self, point: Point) -> Evaluation | None:
        """On few queries; on those of the runs that decide, where that comes close to a target. None: there is none."""
        if len(self.seeds) < 2:
            return self._sketch(point, self.seeds, self.queries)
        few = round(min(self._steady, self.length))
        if self._is_stationary and few >= 2 * GLIMPSE:
            glimpse = self._sketch(point, self.seeds[:1], GLIMPSE)
            if glimpse and replace(glimpse, overloaded=None).worst(self.scenario.targets) > 1 + STORMY:
                return glimpse
        coarse = self._sketch(point, self.seeds[:1], few)
        if coarse is None:
            return None
        likely = _corrected(coarse, self.seeded)
        doubt = CLEARISH if self.seeded else CLEAR
        # One seed may look overloaded where the others are not.
        worst = replace(likely, overloaded=None).worst(self.scenario.targets)
        if abs(worst - 1) > (STORMY if likely.overloaded else doubt):
            return likely
        finer = self._sketch(point, self.seeds, self.queries)
        if finer and not self.seeded and not (finer.overloaded or coarse.overloaded):
            self.seeded = _ratios(finer, coarse)
        return finer

    def refine(self, point: Point) -> Evaluation:
        """As known, but a sketch is one on the queries of the runs that decide."""
        if point in self.full:
            return self.full[point]
        known = self._judged(point)
        if known.sketched and not self._is_fine(known) and (finer := self._sketch(point, self.seeds, self.queries)):
            self.short[point] = finer
        return self._spared(self._known(point) or known, Lab.refine)

    def rough(self, at: Evaluation) -> Lab:
        """One seed and few queries, corrected by what the simulation of a point came to: for its neighbours."""
        few = round(min(self._steady, self.length))
        lab = Lab(self.scenario, self.pool, self.seeds[:1], few, energy=self.energy, _sketchers=self._sketchers)
        sketch = lab._sketch(at.point, lab.seeds, lab.queries)
        if sketch and not at.overloaded:
            lab.common = _ratios(at, sketch)
        return lab

    def _sketch(self, point: Point, seeds: tuple[int, ...], queries: int | None) -> Evaluation | None:
        if not is_sketchable(self.scenario):
            return None
        found = [self._sketcher(seed, queries if self._is_stationary else None).of(point) for seed in seeds]
        drawn = [each for each in found if each]
        if len(drawn) < len(found):
            return None
        metrics = {name: over_seeds([each.metrics[name] for each in drawn]) for name in drawn[0].metrics}
        overloaded = next((each.overloaded for each in drawn if each.overloaded), None)
        paid = usd_per_hour(point.applied(self.scenario))
        first = drawn[0]
        return Evaluation(
            *(point, metrics, paid, overloaded, queries, seeds), sketched=True, strain=first.strain, where=first.where
        )

    def _sketcher(self, seed: int, queries: int | None) -> Sketcher:
        if (seed, queries) not in self._sketchers:
            stages = self.whole._sketcher(seed, queries).stages if self.whole else {}
            self._sketchers[seed, queries] = Sketcher(_lasting(self.scenario, queries), seed, stages)
        return self._sketchers[seed, queries]

    def doubtful(self, targets: Targets) -> list[Evaluation]:
        """Sketches and short runs that miss a target by so little that a long run may not, or by nothing any more: what
        simulations of the shape came to may correct a sketch that failed.
        """
        found = [self.known(point) or each for point, each in self.short.items() if point not in self.full]
        return [each for each in found if each.meets(targets) or self.is_doubtful(each, targets)]

    def _is_fine(self, found: Evaluation) -> bool:
        """Whether it is a sketch on the queries of the runs that decide."""
        return found.sketched and found.seeds == self.seeds and found.queries == self.queries

    def is_doubtful(self, found: Evaluation, targets: Service) -> bool:
        """Whether a longer run may find it good."""
        if found.point in self.full:
            return False
        doubt = CLEARER if self._is_fine(found) else CLEARISH if found.sketched and self.seeded else CLEAR
        return 1 < found.worst(targets) < 1 + doubt

    def confirm(self, point: Point, targets: Targets | None = None) -> Evaluation:
        """All seeds, at full length; only the first where that one misses a target beyond its interval."""
        if point in self.full:
            return self.full[point]
        found = self._confirmed(point, targets or self.scenario.targets)
        self.full[point] = found = self._spared(found, Lab.confirm)
        return found

    def _confirmed(self, point: Point, targets: Service) -> Evaluation:
        """With every device of this laboratory's scenario there."""
        before = self.short.get(point)
        found = self._evaluate(point, self.seeds[:1], self.queries)
        if len(self.seeds) > 1 and not found.clearly_misses(targets):
            found = self._extended(found, targets) or self._evaluate(point, self.seeds, self.queries)
        self.full[point] = found = replace(found, where=before.where if before else "")
        self._learn_energy(found)
        if (
            before
            and self._is_fine(before)
            and found.seeds == self.seeds
            and not found.overloaded
            and not found.refused
        ):
            self.corrections[point.shape] = _ratios(found, before)
        return found

    def _learn_energy(self, found: Evaluation) -> None:
        """Above idle, where devices are owned and traffic has a rate: the work of a query, however many devices."""
        above = found.usd_per_hour - usd_per_hour(found.point.applied(self.scenario))
        if above > 0 and (rate := self.scenario.workload.rate):
            self.energy[found.point.shape] = above / rate / 3600

    def _extended(self, first: Evaluation, targets: Service) -> Evaluation | None:
        """The first seed's run, with latencies of all seeds by sketches that it corrects; None where that is close."""
        if not self.light:
            return None
        alike, every = (self._sketch(first.point, seeds, self.queries) for seeds in (self.seeds[:1], self.seeds))
        if alike is None or every is None or every.overloaded:
            return None
        factors = _ratios(first, alike)
        seeded = {n: _scaled(e, factors.get(n, 1.0)) for n, e in every.metrics.items()}
        if "accuracy" in first.metrics:
            right = [self._sketcher(seed, every.queries).accuracy for seed in self.seeds]
            known = [share for share in right if share is not None]
            if len(known) < len(right) or abs(known[0] - first["accuracy"]) > 1e-9:
                return None  # answers of one seed's queries are no measure of those of all
            seeded["accuracy"] = over_seeds(known)
        found = replace(first, metrics={**first.metrics, **seeded})
        return None if abs(found.worst(targets) - 1) < CLEAREST else found

    def recheck(self, point: Point, times: int = 10) -> Evaluation:
        """On seeds that nothing was decided by, and so many times as long where the traffic has no end of its own."""
        fresh = tuple(max(self.seeds) + 1 + number for number in range(len(self.seeds)))
        swings = self.scenario.workload.arrivals.kind == "diurnal" and self.length < inf
        found = self._evaluate(point, fresh, round(times * self.length) if self._is_stationary or swings else None)
        return self._spared(found, lambda lab, point: lab.recheck(point, times))

    @property
    def _is_stationary(self) -> bool:
        return self.scenario.workload.arrivals.kind in STATIONARY

    @property
    def _shortens(self) -> bool:
        """Whether a short run says something of the long one: traffic must be stationary, and the long one longer."""
        return self._is_stationary and (len(self.seeds) > 1 or self.length > self._steady)

    @property
    def _steady(self) -> float:
        return self.whole._steady if self.whole else steady(self.scenario)

    @property
    def length(self) -> float:
        """Queries of a full run."""
        return self.queries or self.scenario.workload.queries or inf

    def _evaluate(self, point: Point, seeds: tuple[int, ...], queries: int | None) -> Evaluation:
        applied = _lasting(point.applied(self.scenario), queries)
        missing = [seed for seed in seeds if (point, seed, queries) not in self._trials]
        for seed, one in zip(missing, self.pool.map([(applied, seed) for seed in missing]), strict=True):
            self._trials[point, seed, queries] = one
        trials = [self._trials[point, seed, queries] for seed in seeds]
        samples = [one.sample for one in trials if one.sample is not None]
        if len(samples) < len(trials):
            refused = next(one.refused for one in trials if one.refused)
            return Evaluation(point, {}, usd_per_hour(applied), None, queries, seeds, refused=refused)
        metrics = estimates(samples)
        paid = usd_per_hour(applied, {name: estimate.value for name, estimate in metrics.items()})
        overloaded = next((one.overloaded for one in trials if one.overloaded), None)
        first = trials[0]
        return Evaluation(
            point, metrics, paid, overloaded, queries, seeds, first.label, first.band, strain=first.strain
        )


def deciding(scenario: Scenario) -> int | None:
    """Queries per seed that decide: enough for a steady state and no more than the scenario has. None: all of them."""
    own = scenario.workload.queries
    if own is None or scenario.workload.arrivals.kind not in STATIONARY:
        return None
    return round(min(own, steady(scenario)))


def steady(scenario: Scenario) -> float:
    """Queries of a run that is long enough to come to a steady state, however high the traffic."""
    return max(SHORT, SPANS * allowed(scenario) * (scenario.workload.rate or 0.0))


def allowed(scenario: Scenario) -> float:
    """The longest that a latency target lets a query take."""
    served = [each for each in (scenario.targets, spared(scenario.targets)) if each]
    return max((t for each in served for t in (each.latency_p50, each.latency_p95, each.latency_p99) if t), default=0.0)


def _lasting(scenario: Scenario, queries: int | None) -> Scenario:
    """The scenario with so many queries, where a number is given."""
    if queries is None:
        return scenario
    workload = scenario.workload.model_copy(update={"queries": queries, "duration": None})
    return scenario.model_copy(update={"workload": workload})


def _ratios(better: Evaluation, rougher: Evaluation) -> dict[str, float]:
    """By what the rougher one's metrics are to be multiplied."""
    both = [name for name, estimate in rougher.metrics.items() if estimate.value > 0 and name in better.metrics]
    return {name: better[name] / rougher[name] for name in both}


def _corrected(found: Evaluation, factors: Mapping[str, float]) -> Evaluation:
    return replace(found, metrics={n: Estimate(e.value * factors.get(n, 1.0)) for n, e in found.metrics.items()})


def _scaled(found: Estimate, factor: float) -> Estimate:
    low, high = (None if end is None else end * factor for end in (found.low, found.high))
    return Estimate(found.value * factor, low, high)
