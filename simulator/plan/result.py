"""A plan: the cheapest fleet, what it costs and carries, why no cheaper one does, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.profiles.scenario import Scenario
from octavo.simulator.estimate import tidy
from octavo.simulator.plan.line import Line, evaluation_json, failure, words
from octavo.simulator.plan.pareto import Choice, front
from octavo.simulator.plan.trials import Evaluation


@dataclass(frozen=True, slots=True)
class Relaxation:
    """What the plan would cost without one target, and what it would reach instead."""

    target: str
    wanted: float
    reached: float | None
    usd_per_hour: float
    saved: float

    def __str__(self) -> str:
        reached = "nothing" if self.reached is None else f"{self.reached:.4g}"
        return f"{self.target} {self.wanted:g} -> {reached} saves {self.saved:.2f} USD/h"


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The cheapest fleet where something else is so; None where there is none, and then why."""

    changes: str
    usd_per_hour: float | None
    fleet: str


@dataclass(frozen=True)
class Plan:
    """`own` is the scenario's; `beside` are its baselines and the policies that were tried, for the same traffic.

    `headroom` is how many times the traffic the fleet carries; `band` the cost where steps are as much faster, or
    slower, as the latency model may err (None: no fleet is enough).
    """

    chosen: Line
    own: Line
    beside: tuple[Line, ...]
    headroom: float | None
    band: tuple[float | None, float | None]
    relaxations: tuple[Relaxation, ...]
    what_if: tuple[WhatIf, ...]
    simulations: int

    @property
    def best(self) -> Evaluation:
        assert self.chosen.best is not None
        return self.chosen.best

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
        """Where this costs as much as each of the others, and what its right answers must then be worth."""
        return [text for line in self.lines if line is not self.chosen for text in self._against(line)]

    def _against(self, line: Line) -> list[str]:
        if line.best is None:
            return [f"{line.name}: no fleet meets the targets"]
        mine, its = self.best, line.best
        found = []
        if mine.usd_per_hour > its.usd_per_hour:
            ratio = its.usd_per_hour / mine.usd_per_hour
            found.append(f"price: costs what {line.name} costs at {ratio:.0%} of today's device prices")
        if "accuracy" in mine.metrics and "accuracy" in its.metrics:
            found += _worth(mine, its, line.name, self.headroom)
        return found

    def to_json(self) -> str:
        """A document; the same plan gives the same bytes."""
        data = {
            "kind": "plan",
            "name": self.own.name,
            "description": self.own.scenario.description,
            "chosen": self.chosen.name,
            "plan": evaluation_json(self.best, self.chosen.scenario),
            "headroom": None if self.headroom is None else tidy(self.headroom),
            "usd_per_hour_band": [None if usd is None else tidy(usd) for usd in self.band],
            "next_cheaper": self.next_cheaper(),
            "relax": [
                {"target": r.target, "usd_per_hour": tidy(r.usd_per_hour), "says": str(r)} for r in self.relaxations
            ],
            "break_even": self.break_even(),
            "what_if": [{"changes": w.changes, "usd_per_hour": w.usd_per_hour, "fleet": w.fleet} for w in self.what_if],
            "pareto": [choice.to_json() for choice in self.pareto()],
            "lines": [line.to_json() for line in self.lines],
            "simulations": self.simulations,
            "scenario": self.scenario.dump(),
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    def next_cheaper(self) -> str | None:
        """Why the next cheaper fleet fails."""
        cheaper = self.chosen.next_cheaper
        if cheaper is None:
            return None
        fleet = words(cheaper, self.chosen.scenario)
        return f"{fleet} at {cheaper.usd_per_hour:.2f} USD/h: {failure(cheaper, self.chosen.scenario.targets)}"


def _choices(line: Line) -> Sequence[Choice]:
    ran = [each for each in line.points if not each.refused and not each.overloaded and "accuracy" in each.metrics]
    if not ran:
        return []
    longest = max(ran, key=lambda each: (len(each.seeds), each.point.key))["accuracy"]
    fleets = [(words(each, line.scenario), each) for each in ran]
    return [Choice(line.name, fleet, longest, e["usd_per_query"], e["latency_p95"]) for fleet, e in fleets]


def _worth(mine: Evaluation, its: Evaluation, name: str, headroom: float | None) -> list[str]:
    """The price of one more right answer, now and when the fleet is full."""
    gained, more = mine["accuracy"] - its["accuracy"], mine["usd_per_query"] - its["usd_per_query"]
    if more <= 0:
        return [f"{name}: costs no less a query, with {-gained:+.1%} accuracy"]
    if gained <= 0:
        return [f"accuracy: pays against {name} at no price, being {gained:+.1%} as often right"]
    full = mine["usd_per_query"] / (headroom or 1) - its["usd_per_query"]
    later = f"; {max(full, 0) / gained:.3g} at {headroom:.2f}x the traffic" if headroom and headroom > 1 else ""
    return [f"accuracy: pays against {name} if a right answer more is worth {more / gained:.3g} USD{later}"]
