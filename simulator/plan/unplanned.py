"""When there is no plan: nothing meets the targets, or whoever asked would not wait. What was judged is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from octavo.profiles.errors import InfeasibleError
from octavo.simulator.plan.line import Line, evaluation_json, words
from octavo.simulator.plan.trials import Evaluation


class Infeasible(InfeasibleError):
    """No fleet of the space meets the targets; `closest` is the one that misses by least, where one was simulated."""

    def __init__(self, message: str, closest: Evaluation | None, lines: tuple[Line, ...]) -> None:
        super().__init__(message)
        self.closest = closest
        self.lines = lines

    def to_json(self) -> str:
        """A document like a plan's, with the closest fleet in its place; `feasible` is false."""
        return _document(self.lines, self.closest, feasible=False, incomplete=None)


class Interrupted(KeyboardInterrupt):
    """The search was stopped; `lines` are those until then, of which the last may be unfinished."""

    def __init__(self, lines: tuple[Line, ...]) -> None:
        super().__init__(stage(lines))
        self.lines = lines

    @property
    def best(self) -> Evaluation | None:
        """The cheapest fleet of the scenario that is known to meet the targets."""
        return self.lines[0].best if self.lines else None

    def to_json(self) -> str:
        """A document like a plan's, as far as it came; `incomplete` says how far that was."""
        shown = self.best or (self.lines[0].closest if self.lines else None)
        return _document(self.lines, shown, feasible=self.best is not None, incomplete=str(self))


def stage(lines: Sequence[Line]) -> str:
    """How far a search came, and what it had found."""
    if not lines:
        return "stopped before any fleet was judged"
    last = lines[-1]
    while_ = "questions were answered" if last.finished else f"{last.name} was searched"
    best = lines[0].best
    judged = sum(len(line.points) for line in lines)
    said = f"stopped while {while_}, {judged} {'fleet' if judged == 1 else 'fleets'} judged; "
    if best is None:
        return f"{said}none that was simulated meets the targets yet{_likely(lines[0])}"
    cost = f"{words(best, lines[0].scenario)} at {best.usd_per_hour:.2f} USD/h"
    if lines[0].finished:
        return f"{said}the plan is {cost}"
    return f"{said}the cheapest that meets the targets is {cost} so far"


def _likely(line: Line) -> str:
    likely = [each for each in line.points if each.sketched and each.meets(line.scenario.targets)]
    if not likely:
        return ""
    return f"; by a sketch, {words(likely[0], line.scenario)} does at {likely[0].usd_per_hour:.2f} USD/h"


def _document(lines: Sequence[Line], shown: Evaluation | None, *, feasible: bool, incomplete: str | None) -> str:
    own = lines[0] if lines else None
    found: dict[str, Any] = {
        "kind": "plan",
        "name": own.name if own else "",
        "description": own.scenario.description if own else "",
        "feasible": feasible,
        "incomplete": incomplete,
        "why": None if feasible or own is None else own.why(),
        "chosen": own.name if own else "",
        "plan": evaluation_json(shown, own.scenario) if own and shown else None,
        "lines": [line.to_json() for line in lines],
        "scenario": own.scenario.dump() if own else {},
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"
