"""Closed forms lie inside the simulator's intervals; Little's law holds exactly."""

from __future__ import annotations

import pytest

from octavo.simulator.theory import QUICK, Law, laws, littles_gap, row


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name)
def test_a_closed_form_lies_inside_the_interval(law: Law) -> None:
    customers, seeds = QUICK
    found = row(law, max(300, customers // law.queue.experts), range(seeds))
    assert found.holds, found
    assert abs(found.error) < 0.4


def test_littles_law_holds_exactly() -> None:
    """The integral of the number in the system is the sum of the times in it."""
    assert littles_gap() < 1e-12
