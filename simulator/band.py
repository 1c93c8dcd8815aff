"""What the error band of the step times means for the answer: everything again with shorter and with longer steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from octavo.simulator.estimate import Estimate
from octavo.simulator.metrics import estimates
from octavo.simulator.result import Result
from octavo.simulator.run import Run, run


def banded(result: Result) -> Result:
    """The result with its intervals widened by what changes when every step is shorter, or longer, by the band.

    The changes are those of the first seed's run, on the same arrivals and lengths; they are added to the bounds that
    the seeds give. A system that only keeps up when steps are as short as estimated is noted.
    """
    if result.overloaded or not any(result.band):
        return result
    shorter, longer = result.band
    base, fast, slow = (run(result.scenario, result.seeds[0], pace=1 + by) for by in (0.0, -shorter, longer))
    notes = result.notes
    if slow.overloaded:
        notes = (*notes, f"OVERLOADED if steps take {longer:.0%} longer than estimated, which they may")
    changes = [_changes(base, other) for other in (fast, slow)]
    metrics = {name: _widened(each, [c.get(name, 0.0) for c in changes]) for name, each in result.metrics.items()}
    return replace(result, metrics=metrics, notes=notes, banded=True)


def _changes(base: Run, other: Run) -> Mapping[str, float]:
    """By how much each metric of the other run is larger."""
    before, after = estimates([base.sample]), estimates([other.sample])
    return {name: after[name].value - before[name].value for name in before if name in after}


def _widened(estimate: Estimate, changes: list[float]) -> Estimate:
    if estimate.low is None or estimate.high is None:
        if not any(changes):
            return estimate
        estimate = Estimate(estimate.value, estimate.value, estimate.value)
    assert estimate.low is not None
    assert estimate.high is not None
    return Estimate(estimate.value, estimate.low + min(0.0, *changes), estimate.high + max(0.0, *changes))
