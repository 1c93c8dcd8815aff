"""Deadlines of queries that are over are forgotten, however far away they are."""

from __future__ import annotations

import threading

from octavo.runtime.alarms import KEPT, ClockAlarms


def test_dropped_alarms_are_not_kept_till_their_time() -> None:
    alarms = ClockAlarms()
    for _ in range(1000):
        alarms.drop(alarms.set(86400, lambda: None))
    assert len(alarms) <= KEPT + 1
    alarms.close()


def test_an_alarm_rings_once_and_an_earlier_one_first() -> None:
    alarms, rung, done = ClockAlarms(), list[int](), threading.Event()
    late = alarms.set(0.05, lambda: (rung.append(2), done.set()))  # type: ignore[func-returns-value]
    alarms.set(0.01, lambda: rung.append(1))
    dropped = alarms.set(0.02, lambda: rung.append(3))
    alarms.drop(dropped)
    assert done.wait(10)
    alarms.drop(late)
    assert rung == [1, 2]
    alarms.close()
