"""Closed forms lie inside the simulator's intervals; Little's law holds exactly."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.simulator.estimate import over_seeds
from octavo.simulator.theory import Law, Queueing, Row, laws


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name)
def test_a_closed_form_lies_inside_the_interval(law: Law) -> None:
    customers = max(300, 4000 // law.queue.experts)
    row = Row(law, over_seeds([law.measure(law.queue.run(customers, seed)) for seed in range(4)]))
    assert row.holds, row
    assert abs(row.error) < 0.4


def test_littles_law_holds_exactly() -> None:
    """The integral of the number in the system is the sum of the times in it."""
    queries = Queueing(0.7).run(1000, 0).queries
    changes = sorted([(q.arrival, 1) for q in queries] + [(q.ended or 0.0, -1) for q in queries])
    times, steps = np.array(changes).T
    integral = float(np.sum(np.cumsum(steps)[:-1] * np.diff(times)))
    assert integral == pytest.approx(sum(q.latency or 0.0 for q in queries), rel=1e-12)
