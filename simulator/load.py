"""The load of one seed: queries with their arrivals, and the truth about their answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from octavo.profiles.ensemble import ValueHead
from octavo.profiles.errors import ConfigError
from octavo.profiles.policy import Filtered
from octavo.profiles.scenario import Records, Scenario, Stated, Unknown
from octavo.profiles.workload import ClosedLoop, FromTrace, TraceFile
from octavo.runtime.core.query import Query
from octavo.simulator.arrivals import Loop, Open, Recording, arrival_times, read_recording
from octavo.simulator.fleet import hash_tokens
from octavo.simulator.lengths import Floats, Ints, draw_lengths, quantile
from octavo.simulator.outcomes import Drawn, Outcomes, stated, unknown
from octavo.simulator.panel import slots
from octavo.simulator.recorded import recorded
from octavo.simulator.streams import Streams
from octavo.simulator.world import Ask, Source


@dataclass(frozen=True, slots=True)
class Load:
    """Who asks what, what is true of it, and how many tokens a context may have."""

    source: Source
    truth: Drawn
    queries: int
    context: int


def draw(scenario: Scenario, streams: Streams, recorded: Recording | None = None) -> Load:
    """The same streams give the same load, whatever the policy or the fleet; `recorded` goes before the workload."""
    columns = slots(scenario)
    context = min(scenario.models[expert.model].max_context for expert in scenario.ensemble.experts)
    trace = recorded or _trace(scenario)
    times = trace.times if trace else arrival_times(scenario.workload, streams.of("arrivals"))
    if not len(times):
        raise ConfigError(f"{scenario.name}: workload: no query arrives; a longer duration or a higher rate")
    if recorded:
        prompts, answers = recorded.prompts, np.repeat(recorded.answers[:, None], len(columns), axis=1)
    else:
        prompts, answers = _lengths(scenario, trace, len(times), len(columns), streams)
    top = int(answers.max())
    prefixes = trace.prefixes if trace and trace.prefixes else [()] * len(times) if recorded else None
    queries = [
        Query(i, int(tokens), max(1, min(top, context - int(tokens))), prefixes[i] if prefixes else _prefix(scenario))
        for i, tokens in enumerate(prompts)
    ]
    truth = Drawn(
        answers,
        _outcomes(scenario, columns, len(times), streams),
        {slot: column for column, slot in enumerate(columns)},
        isinstance(scenario.ensemble.value, ValueHead),
        _verifier_seconds(scenario),
    )
    return Load(_source(scenario, times, queries, streams, recorded=recorded is not None), truth, len(times), context)


def _source(
    scenario: Scenario, times: Floats, queries: list[Query], streams: Streams, *, recorded: bool = False
) -> Source:
    arrivals = scenario.workload.arrivals
    if isinstance(arrivals, ClosedLoop) and not recorded:
        think = arrivals.think * streams.of("think").standard_exponential(len(queries))
        return Loop(queries, arrivals.clients, think)
    return Open([Ask(float(time), query) for time, query in zip(times, queries, strict=True)])


def _trace(scenario: Scenario) -> Recording | None:
    arrivals = scenario.workload.arrivals
    if not isinstance(arrivals, TraceFile):
        return None
    found = read_recording(arrivals, scenario.workload.queries)
    duration = scenario.workload.duration
    kept = len(found.times) if duration is None else int(np.searchsorted(found.times, duration))
    return Recording(found.times[:kept], found.prompts[:kept], found.answers[:kept], found.prefixes)


def _lengths(
    scenario: Scenario, trace: Recording | None, queries: int, answers: int, streams: Streams
) -> tuple[Ints, Ints]:
    """Of a trace where the workload says so; all candidates of a query are then as long as its recorded answer."""
    workload = scenario.workload
    of_prompts, of_answers = (isinstance(d, FromTrace) for d in (workload.prompt_tokens, workload.answer_tokens))
    if trace and of_prompts and of_answers:
        return trace.prompts, np.repeat(trace.answers[:, None], answers, axis=1)
    if trace and of_prompts:
        uniform = streams.of("answers").random((answers, queries)).T
        return trace.prompts, quantile(workload.answer_tokens, uniform)
    if trace and of_answers:
        uniform = streams.of("prompts").random(queries)
        return quantile(workload.prompt_tokens, uniform), np.repeat(trace.answers[:, None], answers, axis=1)
    return draw_lengths(workload, queries, answers, streams.of("prompts"), streams.of("answers"))


def _outcomes(scenario: Scenario, columns: list[tuple[str, int]], queries: int, streams: Streams) -> Outcomes:
    outcomes = scenario.outcomes
    if isinstance(outcomes, Unknown):
        return unknown(len(columns), queries)
    if isinstance(outcomes, Records):
        return recorded(scenario, outcomes.file, queries, streams)
    return stated(outcomes, [_accuracy(scenario, outcomes, name) for name, _ in columns], queries, streams)


def _accuracy(scenario: Scenario, facts: Stated, name: str) -> float:
    own = scenario.expert(name).accuracy
    return facts.p_correct if own is None else own


def _verifier_seconds(scenario: Scenario) -> float | None:
    policy = scenario.ensemble.policy
    return policy.verifier_seconds if isinstance(policy, Filtered) else None


def _prefix(scenario: Scenario) -> tuple[int, ...]:
    """The chunk that every prompt begins with, where there is one."""
    shared = scenario.workload.shared_prefix_tokens
    return (0,) if shared >= scenario.engine.block_size and hash_tokens(scenario) <= shared else ()
