"""Each policy is driven with `send()`: what it starts, what it answers, and when it stops waiting."""

from __future__ import annotations

from itertools import permutations

import pytest

from octavo.runtime.core.policies import POLICIES, Deliberation, policy_named
from octavo.runtime.core.query import Answer, Candidate, Ensemble, Expired, Inference, Lost, NoAnswer, Query, Score

PANEL = Ensemble(("a", "b"), 2, "judge")
UNJUDGED = Ensemble(("a", "b"), 2)
QUERY = Query(0, 10, 8)


def write(inference: Inference, logprob: float = -1.0, answer: str | None = None, finished: bool = True) -> Candidate:
    return Candidate(inference, 4, logprob, answer, finished=finished)


def answer_of(deliberation: Deliberation, *results: object) -> Answer:
    """Send the results; the policy must answer exactly at the last of them."""
    *earlier, last = results
    for result in earlier:
        deliberation.send(result)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as stop:
        deliberation.send(last)  # type: ignore[arg-type]
    answer = stop.value.value
    assert isinstance(answer, Answer)
    return answer


def test_the_ensemble_starts_every_sample_of_every_expert_and_picks_the_highest_value() -> None:
    policy = policy_named("ensemble")(PANEL, QUERY)
    asked = next(policy)
    assert [(i.model, i.sample) for i in asked] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    candidates = [write(inference) for inference in asked]
    judges = [policy.send(candidate)[0] for candidate in candidates]
    assert all(judge.judges is candidate for judge, candidate in zip(judges, candidates, strict=True))
    assert judges[0].prompt_tokens == 14
    values = [0.2, 0.9, 0.4, 0.1]
    scores = [Score(c, v, j) for c, v, j in zip(candidates, values, judges, strict=True)]
    answer = answer_of(policy, *scores)
    assert answer.candidate is candidates[1]
    assert len(answer.scores) == 4


def test_majority_answers_with_the_label_most_candidates_share() -> None:
    policy = policy_named("majority")(UNJUDGED, QUERY)
    one, two, three, four = next(policy)
    answer = answer_of(policy, write(one, -0.1, "x"), write(two, -2, "y"), write(three, -1, "y"), write(four, -3))
    assert answer.candidate.answer == "y"
    assert answer.candidate.inference is three


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("name", ["ensemble", "mean_logprob"])
def test_of_candidates_that_are_alike_the_same_one_wins_whichever_arrived_first(
    name: str, order: tuple[int, ...]
) -> None:
    policy = policy_named(name)(PANEL if name == "ensemble" else UNJUDGED, QUERY)
    asked = next(policy)
    alike = [write(asked[place]) for place in order]
    if name == "ensemble":
        judges = [policy.send(candidate)[0] for candidate in alike]
        results = [Score(candidate, 0.7, judge) for candidate, judge in zip(alike, judges, strict=True)]
        assert answer_of(policy, *results).candidate.inference is asked[0]
    else:
        assert answer_of(policy, *alike).candidate.inference is asked[0]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_of_labels_with_equal_votes_the_likeliest_wins_whichever_arrived_first(order: tuple[int, ...]) -> None:
    policy = policy_named("majority")(UNJUDGED, QUERY)
    asked, logprobs, labels = next(policy), (-3.0, -0.2, -1.0, -2.0), "xyxy"
    results = [write(each, logprob, label) for each, logprob, label in zip(asked, logprobs, labels, strict=True)]
    assert answer_of(policy, *(results[place] for place in order)).candidate is results[1]


def test_mean_logprob_answers_with_the_likeliest() -> None:
    policy = policy_named("mean_logprob")(UNJUDGED, QUERY)
    one, two, three, four = next(policy)
    assert answer_of(policy, write(one), write(two, -0.5), write(three), write(four)).candidate.inference is two


def test_weighted_votes_add_up() -> None:
    panel = Ensemble(("a",), 3, "judge")
    policy = policy_named("weighted_vote")(panel, QUERY)
    written = [write(i, answer=label) for i, label in zip(next(policy), "xyy", strict=True)]
    judges = [policy.send(candidate)[0] for candidate in written]
    scores = [Score(c, v, j) for c, v, j in zip(written, (0.9, 0.5, 0.5), judges, strict=True)]
    assert answer_of(policy, *scores).candidate.answer == "y"


def test_single_and_best_of_n_ask_one_expert() -> None:
    assert [(i.model, i.sample) for i in next(policy_named("single", expert="b")(PANEL, QUERY))] == [("b", 0)]
    asked = next(policy_named("best_of_n", expert="b", samples=16)(PANEL, QUERY))
    assert [(i.model, i.sample) for i in asked] == [("b", sample) for sample in range(16)]


def test_filtered_prefers_what_passes_the_verifier() -> None:
    policy = policy_named("filtered", samples=2, expert="a")(UNJUDGED, QUERY)
    written = [write(i, logprob) for i, logprob in zip(next(policy), (-0.1, -3.0), strict=True)]
    judges = [policy.send(candidate)[0] for candidate in written]
    assert {judge.model for judge in judges} == {"verifier"}
    scores = [Score(c, v, j) for c, v, j in zip(written, (0.0, 1.0), judges, strict=True)]
    assert answer_of(policy, *scores).candidate is written[1]


def test_early_exit_stops_at_a_sure_score() -> None:
    policy = policy_named("early_exit", sure_at=0.9)(PANEL, QUERY)
    first = write(next(policy)[0])
    judge = policy.send(first)[0]
    assert answer_of(policy, Score(first, 0.95, judge)).candidate is first


def test_early_exit_stops_when_no_vote_can_change_the_majority() -> None:
    policy = policy_named("early_exit", by="majority")(UNJUDGED, QUERY)
    one, two, three, _ = next(policy)
    answer = answer_of(policy, write(one, answer="x"), write(two, answer="x"), write(three, answer="x"))
    assert answer.candidate.answer == "x"


def test_a_cascade_asks_everybody_only_when_the_first_is_unsure() -> None:
    for value, more in ((0.9, 0), (0.3, 3)):
        policy = policy_named("cascade", first="b", accept_at=0.8)(PANEL, QUERY)
        (first,) = next(policy)
        candidate = write(first)
        (judge,) = policy.send(candidate)
        score = Score(candidate, value, judge)
        if more:
            assert len(policy.send(score)) == more
        else:
            assert answer_of(policy, score).candidate is candidate


def test_a_cascade_that_has_nobody_to_escalate_to_answers_with_the_first() -> None:
    deliberation = policy_named("cascade")(Ensemble(("a",), 1), QUERY)
    [first] = next(deliberation)
    candidate = write(first, -5.0)
    assert answer_of(deliberation, candidate).candidate is candidate


def test_pruned_continues_only_the_better_half() -> None:
    policy = policy_named("pruned", after_tokens=4, keep=0.5)(PANEL, QUERY)
    asked = next(policy)
    assert {inference.budget for inference in asked} == {4}
    prefixes = [write(inference, finished=False) for inference in asked]
    judges = [policy.send(prefix)[0] for prefix in prefixes]
    scores = [Score(c, v, j) for c, v, j in zip(prefixes, (0.1, 0.8, 0.2, 0.7), judges, strict=True)]
    for score in scores[:-1]:
        assert not policy.send(score)
    going = policy.send(scores[-1])
    assert {inference.continues for inference in going} == {prefixes[1], prefixes[3]}
    assert {(inference.budget, inference.prompt_tokens) for inference in going} == {(4, 14)}


@pytest.mark.parametrize("name", POLICIES)
def test_a_deadline_is_answered_with_what_has_arrived(name: str) -> None:
    policy = policy_named(name)(UNJUDGED, QUERY)
    asked = next(policy)
    if len(asked) > 1:
        policy.send(write(asked[0]))
        answer = answer_of(policy, Expired(QUERY))
        assert answer.candidate.inference is asked[0]
        assert answer.degraded
    else:
        with pytest.raises(NoAnswer):
            policy.send(Expired(QUERY))


@pytest.mark.parametrize("name", ["ensemble", "majority", "mean_logprob", "weighted_vote", "early_exit"])
def test_lost_experts_cost_their_candidates_not_the_query(name: str) -> None:
    policy = policy_named(name)(UNJUDGED, QUERY)
    asked = next(policy)
    answer = answer_of(policy, write(asked[0]), *(Lost(inference, "NaN logits") for inference in asked[1:]))
    assert answer.degraded


def test_too_few_candidates_are_no_answer() -> None:
    policy = policy_named("majority")(Ensemble(("a", "b"), 2, min_candidates=3), QUERY)
    one, two, three, four = next(policy)
    policy.send(write(one))
    policy.send(write(two))
    policy.send(Lost(three, "died"))
    with pytest.raises(NoAnswer, match="2 candidates arrived, 3 are needed"):
        policy.send(Lost(four, "died"))


def test_an_unknown_policy_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="no policy 'best'; there are: ensemble, single"):
        policy_named("best")
