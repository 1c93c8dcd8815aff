"""What the traffic of a scenario asks for: lengths as they will be drawn, and who makes how many candidates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from octavo.profiles.ensemble import ValueModel
from octavo.profiles.policy import Filtered, MeanLogprob
from octavo.profiles.scenario import Scenario
from octavo.simulator.arrivals import Loop, Open
from octavo.simulator.estimate import Floats
from octavo.simulator.load import draw
from octavo.simulator.panel import slots
from octavo.simulator.streams import Streams

WHOLE = ("ensemble", "single", "best_of_n", "majority", "weighted_vote", "mean_logprob", "filtered")
"""Policies that let every candidate finish."""


@dataclass(frozen=True)
class Demand:
    """Queries per second (None: it depends on the fleet), prompts by query, answers by query and candidate."""

    rate: float | None
    prompts: Floats
    answers: Floats
    experts: tuple[str, ...]
    shared: int
    judged: bool
    certain: bool

    @property
    def candidates(self) -> Counter[str]:
        return Counter(self.experts)

    def answers_of(self, names: tuple[str, ...]) -> Floats:
        """The answers by these experts, a column each."""
        return self.answers[:, [index for index, name in enumerate(self.experts) if name in names]]


def demand(scenario: Scenario, seed: int) -> Demand:
    """Of one seed, drawn as the simulator draws it."""
    load = draw(scenario, Streams(seed))
    source = load.source
    queries = [ask.query for ask in source.asks] if isinstance(source, Open) else []
    if isinstance(source, Loop):
        queries = source.queries
    rate = scenario.workload.rate
    if isinstance(source, Open) and rate is None and (last := source.asks[-1].at) > 0:
        rate = len(queries) / last
    policy, ensemble = scenario.ensemble.policy, scenario.ensemble
    return Demand(
        rate,
        np.array([query.prompt_tokens for query in queries], dtype=float),
        np.array(load.truth.totals, dtype=float),
        tuple(name for name, _ in slots(scenario)),
        scenario.workload.shared_prefix_tokens if scenario.engine.prefix_caching else 0,
        isinstance(ensemble.value, ValueModel) and not isinstance(policy, Filtered | MeanLogprob),
        policy.name in WHOLE and ensemble.deadline is None,
    )
