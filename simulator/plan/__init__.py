"""How many of which devices for this traffic and these targets, at what cost, and is the ensemble worth it."""

from __future__ import annotations

from octavo.simulator.plan.emit import emit
from octavo.simulator.plan.planner import plan
from octavo.simulator.plan.policies import policies
from octavo.simulator.plan.result import Plan
from octavo.simulator.plan.space import Space
from octavo.simulator.plan.unplanned import Infeasible, Interrupted
from octavo.simulator.plan.words import lines, lines_so_far

__all__ = ["Infeasible", "Interrupted", "Plan", "Space", "emit", "lines", "lines_so_far", "plan", "policies"]
