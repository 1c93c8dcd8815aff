"""Simulates a scenario on the load of a recording: each request at its time, with its lengths."""

from __future__ import annotations

import json

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario
from octavo.runtime.core.trace import Record
from octavo.simulator.arrivals import Recording
from octavo.simulator.recordings.cached import prefixes
from octavo.simulator.recordings.request import Served
from octavo.simulator.run import prepare


def changes(served: Served) -> list[str]:
    """What the recording says of its engine, as a scenario is changed by `--set`."""
    found = [f"engine.{key}={json.dumps(value)}" for key, value in served.engine.settings.items()]
    return found + [f"fleet.placement.0.{key}={value}" for key, value in served.engine.placement.items()]


def simulate_served(scenario: Scenario, served: Served) -> list[Record]:
    """The simulated trace of the recorded requests. Raises ConfigError unless a query is one inference."""
    ensemble = scenario.ensemble
    if ensemble.inferences_per_query != 1 or len(ensemble.experts) != 1:
        raise ConfigError(
            f"{scenario.name}: a recorded request is one inference, a query of this scenario up to "
            f"{ensemble.inferences_per_query}; start from the scenario one-server"
        )
    requests, block = served.requests, scenario.engine.block_size
    names = prefixes(requests, block)
    if names:  # a name is of one block then
        workload = scenario.workload.model_copy(update={"shared_prefix_tokens": 0})
        scenario = scenario.model_copy(update={"workload": workload})
    load = Recording(
        np.array([request.arrival for request in requests]),
        np.array([request.prompt_tokens for request in requests]),
        np.array([request.answer_tokens for request in requests]),
        names,
    )
    ready = prepare(scenario, 0, trace=True, recorded=load)
    ready.world.run()
    return [*ready.world.queries, *ready.kept, *ready.steps]


def doubts(scenario: Scenario, served: Served) -> list[str]:
    """Where what the recording says of its server is not what is simulated."""
    found = [*served.notes, *served.engine.notes]
    model, hardware = scenario.ensemble.experts[0].model, scenario.fleet.placement[0].hardware
    for what, simulated, recorded in (
        ("model", model, served.engine.model),
        ("device", hardware, served.engine.device),
    ):
        if recorded and not all(word in _plain(recorded) for word in _plain(simulated).split()):
            found.append(f"the recording's {what} is {recorded}, the scenario's {simulated}")
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", " ").replace("/", " ").replace("_", " ")
