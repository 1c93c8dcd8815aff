"""Whether a run was of a system that keeps up. Above capacity no latency means anything, and none is given."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from octavo.profiles.workload import Arrivals, Diurnal, Workload
from octavo.runtime.core.trace import QueryRecord

STATIONARY = ("poisson", "gamma", "weibull", "recorded", "trace")
FEWEST = 20
"""Queries from which on a growing queue is told from a burst."""
GROWTH = 1.5
"""Open queries at the end of the arrivals over those half-way, from which on a queue counts as growing."""


def overload(arrivals: Arrivals, queries: Sequence[QueryRecord]) -> str | None:
    """Why the system does not keep up, or None.

    In a stable system the number of open queries is as large at the end of the arrivals as half-way; in an overloaded
    one it grows linearly, to twice as many.
    """
    if arrivals.kind in ("closed_loop", "at_once") or len(queries) < FEWEST:
        return None
    came = np.array([query.arrival for query in queries])
    left = np.array([query.ended if query.ended is not None else np.inf for query in queries])
    last = float(came[-1])
    if last <= 0:
        return None
    middle, late = (_open(came, left, np.linspace(a * last, b * last, 25)) for a, b in ((0.45, 0.55), (0.9, 1.0)))
    growth = late - middle
    drain = float(np.max(left[np.isfinite(left)], initial=last)) - last
    if arrivals.kind in STATIONARY and late > GROWTH * middle and growth > 4 * sqrt(late + 1):
        return (
            f"the queue grows: {middle:.0f} queries were open half-way through the arrivals, {late:.0f} at their end, "
            f"and it took {drain:.0f} s more to answer them; capacity is below {len(came) / last:.3g} queries/s"
        )
    if isinstance(arrivals, Diurnal) and late > 0.1 * len(came) and drain > 10 * _first(came, left):
        return (
            f"{late:.0f} of {len(came)} queries were still open when the last came, and it took {drain:.0f} s more to "
            "answer them: what the peak leaves is not made good by the rest of the day"
        )
    if drain > 0.5 * last and late > 0.25 * len(came):
        return f"{late:.0f} of {len(came)} queries were still open when the last came, {drain:.0f} s of work behind"
    return None


def unsaid(workload: Workload, queries: int, seconds: float) -> str | None:
    """What a run of so many queries in so many seconds does not tell of its workload; None when it tells all."""
    arrivals = workload.arrivals
    if isinstance(arrivals, Diurnal) and seconds < 0.9 * arrivals.period:
        return (
            f"the run ends after {seconds / arrivals.period:.0%} of the day that the arrivals swing over, with "
            f"{queries / seconds:.3g} queries/s where the mean is {arrivals.rate:.3g}"
        )
    if queries < FEWEST and arrivals.kind in STATIONARY:
        return f"{queries} queries do not tell whether the fleet keeps up; ask more"
    return None


def _first(came: np.ndarray, left: np.ndarray) -> float:
    """Median latency of the first twentieth of the queries, before a queue has built up."""
    return float(np.median((left - came)[: max(1, len(came) // 20)]))


def _open(came: np.ndarray, left: np.ndarray, at: np.ndarray) -> float:
    """Mean number of open queries at these times."""
    return float(np.mean([np.count_nonzero((came <= time) & (left > time)) for time in at]))
