"""Lanes that share an interpreter: closed forms of how they slow one another, and what a profile says of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np
import pytest

from octavo.profiles.latency import HostTimes, LatencyProfile, Pace, Parts, StepTime
from octavo.runtime.core.scheduler import Chunk, Prompt, Step
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord, StepRecord, to_lines
from octavo.simulator.host import Host, Phase, Split
from octavo.simulator.replay import host_of, replay
from octavo.simulator.validate import validate

TOKENS = 400
COMPUTING, HOSTING = 0.004, 0.003


def steps(alone: tuple[float, float], beside: tuple[float, float]) -> list[StepTime]:
    """Decodes, prefills and both that take equally long each, whatever they do."""
    parts = [Parts(computing=computing, hosting=hosting) for computing, hosting in (alone, beside)]
    sizes = [(1, 0), (2, 0), (0, 8), (0, 16)]
    return [
        StepTime(
            decodes=rows,
            context=8 * rows,
            prefill_tokens=tokens,
            prefill_rows=min(tokens, 1),
            seconds=sum(alone),
            alone=parts[0],
            beside=parts[1],
        )
        for rows, tokens in sizes
    ]


def profile(
    alone: tuple[float, float] = (COMPUTING, HOSTING),
    beside: tuple[float, float] = (COMPUTING, HOSTING),
    **times: object,
) -> LatencyProfile:
    facts = {"hardware": "made-up", "provider": "none", "precision": "fp32", "threads": 1, "measured_on": "2026-01-01"}
    found = {"steps": steps(alone, beside), "host": HostTimes(**times), "machine": {}}
    return LatencyProfile(name="decoder", model="decoder", **facts, **found)  # type: ignore[arg-type]


def served(lanes: int, queries: int = 1, tokens: int = TOKENS) -> list[RunRecord | QueryRecord | InferenceRecord]:
    """A lane for each expert, and queries at one time of which every expert writes so many tokens."""
    experts = tuple("abcdefgh"[:lanes])
    limits: dict[str, int | bool] = {"kv_blocks": 4000, "block_tokens": 16, "max_rows": 16, "max_step_tokens": 256}
    devices = {f"cpu:{index}": [expert] for index, expert in enumerate(experts)}
    head = RunRecord("mean_logprob", {}, experts, 1, None, devices, dict.fromkeys(experts, limits))
    asked = [QueryRecord(number, 0.0, 8, max_new_tokens=tokens) for number in range(queries)]
    written = [
        InferenceRecord(number, expert, 0, False, "", 8, tokens, 0.0, ended=1.0)
        for number in range(queries)
        for expert in experts
    ]
    return [head, *asked, *written]


def seconds(lanes: int, *profiles: LatencyProfile) -> float:
    return max(record.ended or 0.0 for record in replay(served(lanes), profiles) if isinstance(record, QueryRecord))


def test_a_lane_alone_does_one_part_of_a_step_after_the_other() -> None:
    """With one lane there is no host to share, and a step takes what the table says."""
    assert seconds(1, profile()) == pytest.approx(TOKENS * (COMPUTING + HOSTING))


@pytest.mark.parametrize("lanes", [2, 3, 5])
@pytest.mark.parametrize("hosting", [0.5 * COMPUTING, COMPUTING, 2 * COMPUTING])
def test_a_lane_is_as_fast_as_itself_or_as_the_host(lanes: int, hosting: float) -> None:
    """Parts of constant length: a cycle takes what one lane needs, or what the host needs for all of them."""
    both = COMPUTING, hosting
    cycle = max(COMPUTING + hosting, lanes * hosting)
    assert seconds(lanes, profile(both, both)) == pytest.approx(TOKENS * cycle, rel=2 * lanes / TOKENS)


class Random(Host):
    """A host whose lanes' parts have exponential lengths."""

    def begin(self, device: str, lane: str, step: Step, results: int, *, rested: bool, again: bool) -> list[Phase]:
        phases = super().begin(device, lane, step, results, rested=rested, again=again)
        for phase in phases:
            phase.seconds *= RANDOM.exponential()
        return phases


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("lanes", [2, 4])
def test_parts_of_random_length_obey_the_machine_repairman(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """M/M/1 with a finite population (Kleinrock, Queueing Systems I, 1975, section 3.8): lanes are its machines."""
    monkeypatch.setattr("octavo.simulator.replay.Host", Random)
    ratio = HOSTING / COMPUTING
    idle = 1 / sum(factorial(lanes) / factorial(lanes - waiting) * ratio**waiting for waiting in range(lanes + 1))
    trace = replay(served(lanes, tokens=6000), [profile()])
    first = min(record.ended or 0.0 for record in trace if isinstance(record, InferenceRecord))
    done = sum(record.start + record.seconds <= first for record in trace if isinstance(record, StepRecord))
    assert done / first == pytest.approx((1 - idle) / HOSTING, rel=0.03)


def test_a_step_takes_its_own_time_alone_and_another_beside_others() -> None:
    """Queries of one expert only: the other lane never runs."""
    quick, slow = (COMPUTING, HOSTING), (2 * COMPUTING, HOSTING)
    head, query, *written = served(2)
    alone = replay([_single(head), query, *written], [profile(quick, slow)])
    assert _latency(alone) == pytest.approx(TOKENS * sum(quick))
    assert seconds(2, profile(quick, slow)) == pytest.approx(TOKENS * sum(slow), rel=0.01)


def test_arrivals_and_results_take_the_host_too() -> None:
    """A query of two inferences; it arrives when somebody has taken the host for it, and is queued a moment later."""
    bare, more = profile(), profile(arrival=0.5, start=0.2, post=0.1, result=0.25)
    assert seconds(2, more) - seconds(2, bare) == pytest.approx(0.5 + 2 * 0.2 + 0.1 + 2 * 0.25, rel=0.02)


def test_a_step_after_a_rest_takes_longer_and_a_decode_of_the_same_model_is_quicker() -> None:
    """One expert alone: the first step finds the lane at rest, the others follow at once."""
    head, query, *written = served(2)
    assert isinstance(query, QueryRecord)
    query.arrival = 1.0
    usual = replay([_single(head), query, *written], [profile()])
    rest = replay([_single(head), query, *written], [profile(rest=(0.5, 0.25))])
    assert _latency(rest) - _latency(usual) == pytest.approx(0.75)
    quicker = replay([_single(head), query, *written], [profile(again=0.5)])
    assert _latency(usual) - _latency(quicker) == pytest.approx((TOKENS - 1) * COMPUTING / 2)


def test_who_waits_for_the_host_has_it_a_moment_later() -> None:
    """The host is always wanted: each turn costs a handover more. A lane that never waits pays none."""
    busy, idle = (COMPUTING, 2 * COMPUTING), (COMPUTING, 0.1 * COMPUTING)
    for lanes, both, share in ((2, busy, 1.0), (3, busy, 1.0), (1, busy, 0.0), (2, idle, 0.0)):
        longer = seconds(lanes, profile(both, both, handover=0.001)) - seconds(lanes, profile(both, both))
        assert longer == pytest.approx(share * lanes * TOKENS * 0.001, rel=0.01, abs=0.01)


def test_steps_differ_by_the_seed_and_leave_the_mean() -> None:
    pairs = [(0.5, 0.8), (1.0, 0.6), (1.5, 1.6)]
    found = profile(decodes=pairs, prefills=[(1.0, 1.0)])
    one, again, other = (replay(_alone(), [found], seed=seed) for seed in (1, 1, 2))
    assert list(to_lines(one)) == list(to_lines(again)) != list(to_lines(other))
    lengths = {round(r.seconds, 9) for r in one if isinstance(r, StepRecord) and r.decodes}
    assert lengths == {round(c * COMPUTING + h * HOSTING, 9) for c, h in pairs}
    assert _latency(one) == pytest.approx(_latency(replay(_alone(), [profile()])), rel=0.05)


def _alone() -> list[Record]:
    head, *rest = served(2)
    return [_single(head), *rest]


def test_a_step_that_decodes_and_prefills_takes_the_host_twice() -> None:
    split = Split.of(profile(), "alone")
    assert split is not None
    chunks = (Chunk(Prompt(0, 8, ()), 0, 8),)
    for rows, found in ((0, [False, True]), (1, [False, True, False, True])):
        assert [phase.holds for phase in split.phases(Step(rows, 8 * rows, chunks, 1, {}.keys()), 0.0)] == found
    apart = split.phases(Step(1, 8, chunks, 1, {}.keys()), 0.5)
    whole = split.computing.mixed(1, 8, chunks), split.hosting.mixed(1, 8, chunks)
    assert sum(phase.seconds for phase in apart) == pytest.approx(sum(whole) + 0.5)


def test_a_host_that_is_slower_for_a_while_shows_in_the_steps_of_then() -> None:
    pace = Pace(seconds=1.0, lanes=[[1.0] + [3.0] * 60] * 2)
    trace = replay(served(2), [profile().model_copy(update={"pace": pace})], seed=None)
    early = [r.seconds for r in trace if isinstance(r, StepRecord) and r.start < 0.9]
    late = [r.seconds for r in trace if isinstance(r, StepRecord) and r.start > 1.1]
    assert np.mean(late) == pytest.approx(3 * np.mean(early), rel=0.05)


def test_profiles_without_parts_and_single_lanes_have_no_host() -> None:
    head = served(2)[0]
    assert isinstance(head, RunRecord)
    assert host_of(head, [profile()], 2) is not None
    assert host_of(head, [_without_parts(profile())], 2) is None
    one = served(1)[0]
    assert isinstance(one, RunRecord)
    assert host_of(one, [profile()], 1) is None


def test_lanes_wait_for_each_other_at_the_pace_of_each() -> None:
    """A constant pace makes every part of a step longer, and a pace of one changes nothing."""
    for share in (1.0, 1.6):
        longer = profile((share * COMPUTING, share * HOSTING), (share * COMPUTING, share * HOSTING))
        swung = profile().model_copy(update={"pace": Pace(seconds=0.2, lanes=[[share] * 5])})
        assert seconds(3, swung) == pytest.approx(seconds(3, longer), rel=1e-6)


def test_a_replay_of_a_replay_is_the_same() -> None:
    once = replay(served(3, queries=4), [profile(arrival=0.001, result=0.0002)])
    twice = replay(once, [profile(arrival=0.001, result=0.0002)])
    assert all(compared.error.value == 0 for compared in validate(once, twice).metrics)


def _single(head: object) -> RunRecord:
    assert isinstance(head, RunRecord)
    head.policy = "single"
    return head


def _latency(trace: Sequence[object]) -> float:
    return next(record.latency or 0.0 for record in trace if isinstance(record, QueryRecord))


def _without_parts(whole: LatencyProfile) -> LatencyProfile:
    return whole.model_copy(
        update={"steps": [step.model_copy(update={"alone": None, "beside": None}) for step in whole.steps]}
    )
