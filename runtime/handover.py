"""How long the interpreter lies idle when it changes hands: the thread that waits for it must wake first."""

from __future__ import annotations

import hashlib
from statistics import median
from threading import Thread
from time import perf_counter, thread_time

TURNS, TRIES = 60, 12
TABLE = 4_000  # what a thread does with the interpreter: some tenths of a millisecond
BUFFER = bytes(40_000)  # hashed without the interpreter, in less


def handover() -> float:
    """Seconds: of two threads that both want the interpreter most of the time, a cycle less what both do with it."""
    return max(0.0, median(_try() for _ in range(TRIES)))


def _try() -> float:
    held: list[float] = []

    def turns() -> None:
        for _ in range(TURNS):
            begun, total = thread_time(), 0
            for number in range(TABLE):
                total += number
            held.append(thread_time() - begun)
            hashlib.sha256(BUFFER)

    threads = [Thread(target=turns) for _ in range(2)]
    begun = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (perf_counter() - begun - sum(held)) / len(held)
