"""Laws of the council: every query is answered once, and the books balance whatever comes back."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.runtime.core.council import Council, Motion
from octavo.runtime.core.policies import POLICIES, policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Inference, Lost, Query, Score

PANEL = Ensemble(("a", "b", "c"), 2, "judge")


def play(seed: int, policy: str) -> tuple[Council, list[Motion]]:
    """Open queries and bring random results in random order until nothing runs."""
    rng = random.Random(seed)
    council = Council(PANEL, policy_named(policy))
    running: list[Inference] = []
    closed: list[Motion] = []

    def follow(motion: Motion) -> None:
        running.extend(motion.start)
        for inference in motion.withdraw:
            running.remove(inference)
        if motion.closes:
            closed.append(motion)

    queries = [Query(number, 5, 8) for number in range(6)]
    for query in queries:
        follow(council.ask(query))
    while running:
        inference = running.pop(rng.randrange(len(running)))
        match rng.random():
            case x if x < 0.1:
                follow(council.hear(Lost(inference, "died")))
            case x if x < 0.13:
                running.append(inference)
                follow(council.expire(inference.query))
            case x if x < 0.16:
                running.append(inference)
                follow(council.cancel(inference.query))
            case _ if inference.judges:
                follow(council.hear(Score(inference.judges, rng.random(), inference)))
            case _:
                label = rng.choice("xyz")
                finished = inference.budget == 8 or rng.random() < 0.5
                follow(council.hear(Candidate(inference, 3, -rng.random(), label, finished=finished)))
        books = council.books
        assert books.started == books.finished + books.lost + books.withdrawn + council.running
        assert books.asked == books.answered + books.failed + council.open
        assert council.running == len(running)
    return council, closed


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(POLICIES)))
def test_every_query_is_closed_exactly_once_and_the_books_balance(seed: int, policy: str) -> None:
    council, closed = play(seed, policy)
    assert len(closed) == council.books.asked == 6
    assert council.open == 0
    assert all((motion.answer is None) != (motion.failure is None) for motion in closed)


def test_results_of_a_closed_query_change_nothing() -> None:
    council = Council(PANEL, policy_named("single"))
    query = Query(0, 5, 8)
    (inference,) = council.ask(query).start
    assert council.hear(Candidate(inference, 3)).answer
    before = council.books.finished
    assert not council.hear(Candidate(inference, 3)).closes
    assert council.books.finished == before
