"""A plan: the cheapest fleet, what it costs and carries, why no cheaper one does, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.profiles.scenario import Scenario
from octavo.simulator.estimate import tidy
from octavo.simulator.plan.line import Line, evaluation_json, failure, words
from octavo.simulator.plan.pareto import Choice, front
from octavo.simulator.plan.questions import Relaxation, Swing
from octavo.simulator.plan.trials import Evaluation


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The cheapest fleet where something else is so; None where there is none, and then why."""

    changes: str
    usd_per_hour: float | None
    fleet: str


@dataclass(frozen=True)
class Plan:
    """`own` is the scenario's; `beside` are its baselines and the policies that were tried, for the same traffic.

    `carries` is how many times the traffic each line's fleet carries; `band` the cost where steps are as much faster,
    or slower, as the latency model may err (None: no fleet is enough); `one_down` what holds without a replica.
    """

    chosen: Line
    own: Line
    beside: tuple[Line, ...]
    carries: Mapping[str, float | None]
    band: tuple[float | None, float | None]
    relaxations: tuple[Relaxation, ...]
    one_down: tuple[str, ...]
    what_if: tuple[WhatIf, ...]
    sensitivity: tuple[Swing, ...]
    recheck: Evaluation | None
    simulations: int

    @property
    def best(self) -> Evaluation:
        return self.chosen.found

    @property
    def headroom(self) -> float | None:
        return self.carries[self.chosen.name]

    @property
    def scenario(self) -> Scenario:
        """The planned scenario: it runs on the fleet that was found."""
        return self.chosen.planned()

    @property
    def lines(self) -> tuple[Line, ...]:
        return (self.own, *self.beside)

    def choices(self) -> list[Choice]:
        """Every fleet that keeps up. A line's accuracy is that of its longest run: fleets do not change it."""
        return [choice for line in self.lines for choice in _choices(line)]

    def pareto(self) -> list[Choice]:
        return front(self.choices())

    def break_even(self) -> list[str]:
        """Against each of the others: at which price, traffic and accuracy this pays."""
        return [f"against {line.name}: {self._against(line)}" for line in self.lines if line is not self.chosen]

    def _against(self, line: Line) -> str:
        if line.best is None:
            return "it has no fleet that meets the targets"
        return "; ".join([*self._price(line.best), *self._traffic(line), *_worth(self.best, line.best)])

    def _price(self, its: Evaluation) -> Iterator[str]:
        ratio = self.best.usd_per_hour / its.usd_per_hour
        if ratio > 1:
            yield f"costs {ratio:.3g} times as much, the same if its fleet cost {100 / ratio:.3g}% of what it does"
        else:
            yield "costs the same" if ratio == 1 else f"costs {1 - ratio:.0%} less"

    def _traffic(self, line: Line) -> Iterator[str]:
        """From where on as many of the other fleets as carry the traffic cost more than this one."""
        rate, mine, its = line.scenario.workload.rate, self.headroom, self.carries.get(line.name)
        if rate is None or mine is None or its is None or self.best.usd_per_hour <= line.found.usd_per_hour:
            return
        fleets = self.best.usd_per_hour / line.found.usd_per_hour
        enough = rate * its * max(1, int(fleets))
        if enough < 0.9 * rate * mine:
            yield f"cheaper from {enough:.3g} queries/s on"
        else:
            yield f"never cheaper up to the {rate * mine:.3g} queries/s that it carries"

    def next_cheaper(self) -> str | None:
        """Why the next cheaper fleet fails."""
        cheaper = self.chosen.next_cheaper
        if cheaper is None:
            return None
        fleet, targets = words(cheaper, self.chosen.scenario), self.chosen.scenario.targets
        why = f"{fleet}, {cheaper.usd_per_hour:.2f} $/h: {failure(cheaper, targets)}"
        if cheaper.whole(targets) and (model := cheaper.fails_without(targets)):
            cheaper = cheaper.down[model]
        strain = "".join(f"; {text}" for text in (cheaper.strain, cheaper.where) if text)
        strain += " (sketched)" if cheaper.sketched else ""
        return f"{why}{strain}"

    def checked(self) -> str | None:
        """What the longer simulation on fresh seeds says; None where there was none."""
        again = self.recheck
        if again is None:
            return None
        holds = again.meets(self.chosen.scenario.targets)
        verdict = "the targets hold" if holds else f"FAILS: {failure(again, self.chosen.scenario.targets)}"
        length = f" x {again.queries} queries" if again.queries else ""
        return f"{len(again.seeds)} fresh seeds{length}: {verdict}"

    def to_json(self) -> str:
        """A document; the same plan gives the same bytes."""
        scenario = self.chosen.scenario
        data = {
            "kind": "plan",
            "name": self.own.name,
            "description": self.own.scenario.description,
            "feasible": True,
            "incomplete": None,
            "chosen": self.chosen.name,
            "plan": evaluation_json(self.best, scenario),
            "headroom": _tidy(self.headroom),
            "usd_per_hour_band": [_tidy(usd) for usd in self.band],
            "next_cheaper": self.next_cheaper(),
            "relax": [
                {"target": r.target, "usd_per_hour": tidy(r.usd_per_hour), "says": str(r)} for r in self.relaxations
            ],
            "one_down": list(self.one_down),
            "break_even": self.break_even(),
            "what_if": [{"changes": w.changes, "usd_per_hour": w.usd_per_hour, "fleet": w.fleet} for w in self.what_if],
            "sensitivity": [_swing(each) for each in self.sensitivity],
            "recheck": evaluation_json(self.recheck, scenario) if self.recheck else None,
            "pareto": [choice.to_json() for choice in self.pareto()],
            "lines": [line.to_json() for line in self.lines],
            "simulations": self.simulations,
            "scenario": self.scenario.dump(),
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _tidy(value: float | None) -> float | None:
    return None if value is None else tidy(value)


def _swing(each: Swing) -> dict[str, Any]:
    return {"input": each.name, "usd_per_hour_less": _tidy(each.less), "usd_per_hour_more": _tidy(each.more)}


def _choices(line: Line) -> Sequence[Choice]:
    """Sketches have no accuracy and no cost per query of their own: they have their line's."""
    kept = [each for each in line.points if not each.refused and not each.overloaded]
    ran = [each for each in kept if "accuracy" in each.metrics]
    if not ran:
        return []
    longest = max(ran, key=lambda each: (len(each.seeds), each.point.key))
    per_hour = longest["usd_per_query"] / longest.usd_per_hour
    scenario = line.scenario
    return [
        Choice(
            *(line.name, words(e, scenario), longest["accuracy"], per_hour * e.usd_per_hour, e["latency_p95"]),
            meets_targets=e.meets(scenario.targets),
        )
        for e in kept
    ]


def _worth(mine: Evaluation, its: Evaluation) -> Iterator[str]:
    """The price of one more right answer."""
    if "accuracy" not in mine.metrics or "accuracy" not in its.metrics:
        return
    gained, more = mine["accuracy"] - its["accuracy"], mine["usd_per_query"] - its["usd_per_query"]
    if abs(gained) < 0.0005:
        yield "as often right"
    elif more <= 0 or gained <= 0:
        yield f"right {abs(gained):.1%} {'more' if gained > 0 else 'less'} often"
    else:
        yield f"right {gained:.1%} more often, for {more / gained:.2g} $ per right answer more"
