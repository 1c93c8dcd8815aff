"""What a scenario may ask for and this simulator does not do: refused, never ignored."""

from __future__ import annotations

from octavo.profiles.ensemble import ValueModel
from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario


def check(scenario: Scenario) -> None:
    """Raises ConfigError with everything that is asked for and not done, one a line."""
    problems = [f"{scenario.name}: {problem}" for problem in _unsupported(scenario)]
    if problems:
        raise ConfigError("\n".join(problems))


def _unsupported(scenario: Scenario) -> list[str]:
    found = []
    operations = scenario.fleet.operations
    if operations.spot_preemption and not any(tier.basis == "spot" for tier in scenario.fleet.tiers.values()):
        found.append("fleet.operations.spot_preemption: no tier is on the spot basis")
    if operations.autoscale and any(tier.devices for tier in scenario.fleet.tiers.values()):
        found.append(
            "fleet.operations.autoscale: it decides how many devices there are; leave out fleet.tiers.*.devices"
        )
    for index, placement in enumerate(scenario.fleet.placement):
        if placement.mode == "swapped" and placement.pipeline_parallel > 1:
            found.append(f"fleet.placement.{index}: swapped models have no pipeline_parallel; use tensor_parallel")
    if not scenario.engine.chunked_prefill:
        found.append("engine.chunked_prefill: false is not simulated; prompts are always prefilled in chunks")
    value = scenario.ensemble.value
    if isinstance(value, ValueModel) and value.extra_tokens:
        found.append("ensemble.value.extra_tokens: not simulated yet; leave it out")
    return found
