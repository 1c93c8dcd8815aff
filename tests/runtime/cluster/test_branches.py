"""Branches in this process: the answers are those of one machine, and the loss of one costs its candidates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime.cluster.branch import Branch, Description, news_from
from octavo.runtime.cluster.errand import Errand, News
from octavo.runtime.cluster.front import Front
from octavo.runtime.cluster.lane import BranchLane
from octavo.runtime.local import Octavo, Result

SETTINGS = {"threads": 1, "max_rows": 8, "context": 64}
SPLIT = {"north": ["expert-0"], "south": ["expert-1", "value"]}


class Here:
    """A carrier to a branch of this process, which may go away for a while."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.away = False
        self.errands: list[Errand] = []

    async def describe(self) -> Description:
        if self.away:
            raise ConnectionError("away")
        return self.branch.describe()

    async def carry(self, errand: Errand) -> AsyncIterator[Sequence[News]]:
        self.errands.append(errand)
        async for batch in news_from(self.branch, errand):
            if self.away:
                raise ConnectionError("went away")
            yield batch


@contextmanager
def spread(bundle: Path, **options: object) -> Iterator[tuple[Front, dict[str, Here]]]:
    carriers = {name: Here(Branch(bundle, models, **SETTINGS)) for name, models in SPLIT.items()}
    with Front.connect(bundle, carriers, **options) as front:  # type: ignore[arg-type]
        yield front, carriers
        until(lambda: not any(lane.held for lane in front.loop.lanes if isinstance(lane, BranchLane)))
    for carrier in carriers.values():
        until(lambda branch=carrier.branch: not branch.open)  # type: ignore[misc]
        carrier.branch.close()


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end
        sleep(0.01)


def told(result: Result) -> list[tuple[object, ...]]:
    return [
        (
            *(
                r.expert,
                r.sample,
                r.text,
                r.new_tokens,
                pytest.approx(r.mean_logprob),
                pytest.approx(r.value),
            ),
            *(piece.bytes for piece in r.pieces),
        )
        for r in result.candidates
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"policy": "majority", "stop": ("e", "7"), "label": lambda text: "all agree"},
        {"policy": "pruned", "settings": {"after_tokens": 4}},
        {
            "policy": "pruned",
            "settings": {"after_tokens": 2, "keep": 1.0},  # equal prefixes have equal values, and ties no order
            "grammar": {"enum": ["left", "right"]},
            "top_logprobs": 2,
        },
        {"min_tokens": 12, "top_logprobs": 0},
        {"policy": "cascade", "settings": {"accept_at": 1.0}},
        {"policy": "pruned", "settings": {"after_tokens": 4}, "variants": {"expert-0": "what {prompt}"}},
        {"variants": {"expert-0": "say {prompt}", "expert-1": "{prompt}?"}},
        {"policy": "single", "temperature": 0.0},
        {"policy": "filtered", "verify": lambda text: "a" in text},
    ],
    ids=lambda options: options.get("policy", "ensemble"),
)
def test_a_front_answers_as_one_machine_does(bundle: Path, options: dict[str, object]) -> None:
    prompts = ["what is 6 x 7", "abc", "what is"]
    asked = {"seed": 5, "max_new_tokens": 12, **options}
    with Octavo.load(bundle, **SETTINGS) as octavo, spread(bundle) as (front, _):
        for here, there in zip(octavo.ask_many(prompts, **asked), front.ask_many(prompts, **asked), strict=True):
            assert told(there) == told(here)
            assert (there.text, there.reason, there.degraded) == (here.text, here.reason, here.degraded)


def test_all_candidates_of_a_branch_travel_together(bundle: Path) -> None:
    with spread(bundle, samples=3) as (front, carriers):
        front.ask("what is", policy="majority")
        assert [[len(e.asked) for e in carrier.errands] for carrier in carriers.values()] == [[3], [3]]


def test_text_streams_as_it_grows(bundle: Path) -> None:
    async def told_of(octavo: Octavo) -> tuple[str, Result]:
        events = [event async for event in octavo.stream("what is", policy="single", seed=2, max_new_tokens=9)]
        return "".join(event.text for event in events[:-1]), events[-1]  # type: ignore[return-value]

    with spread(bundle) as (front, _):
        grown, result = asyncio.run(told_of(front))
        assert grown == result.text


def test_a_lost_branch_costs_its_candidates_and_comes_back(bundle: Path) -> None:
    with spread(bundle) as (front, carriers):
        carriers["north"].away = True
        for _ in range(2):  # found out, then known
            result = front.ask("what is", policy="mean_logprob", max_new_tokens=8)
            assert result.degraded
            assert {each.expert for each in result.candidates} == {"expert-1"}
        assert set(front.loop.dead) == {"expert-0"}
        carriers["north"].away = False
        until(lambda: not front.loop.dead)
        assert len(front.ask("what is", policy="mean_logprob", max_new_tokens=8).candidates) == 4


def test_too_few_candidates_are_no_answer(bundle: Path) -> None:
    with spread(bundle, min_candidates=3) as (front, carriers):
        carriers["north"].away = True
        with pytest.raises(MachineError, match="2 candidates arrived, 3 are needed"):
            front.ask("what is", policy="mean_logprob")


def test_leaving_withdraws_everywhere(bundle: Path) -> None:
    with spread(bundle) as (front, carriers):
        futures = [front.submit("what is", policy="majority", max_new_tokens=40, ends=False) for _ in range(40)]
        until(lambda: all(carrier.branch.open for carrier in carriers.values()))
        for future in futures:
            future.cancel()
        front.loop.settle()
        books = front.loop.council.books
        assert books.withdrawn + books.finished == books.started
        assert books.withdrawn > 0


def test_a_deadline_answers_with_what_has_arrived(bundle: Path) -> None:
    with spread(bundle) as (front, _):
        result = front.ask("what is", policy="majority", max_new_tokens=40, ends=False, deadline=30.0)
        assert len(result.candidates) == 4
        with pytest.raises(MachineError, match="no answer"):
            front.ask("what is", policy="majority", max_new_tokens=40, ends=False, deadline=1e-4)


def test_every_model_is_on_one_branch(bundle: Path) -> None:
    branch = Branch(bundle, ["expert-0"], **SETTINGS)
    try:
        with pytest.raises(ConfigError, match="expert-1 must be on one of them, is on none"):
            Front.connect(bundle, {"north": Here(branch)})
    finally:
        branch.close()
    with pytest.raises(ConfigError, match="has no 'expert-9'; there are expert-0, expert-1, value"):
        Branch(bundle, ["expert-9"])
