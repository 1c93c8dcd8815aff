"""What a scenario may ask for and this simulator does not do: refused, never ignored."""

from __future__ import annotations

from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario
from octavo.simulator.cost import unsold
from octavo.simulator.spare import silenced


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
    if operations.autoscale and (operations.down or scenario.targets.n_minus_1):
        found.append(
            "fleet.operations.autoscale: it would replace what operations.down or targets.n_minus_1 takes away"
        )
    if operations.down and (why := silenced(scenario)):
        found.append(f"fleet.operations.down: {why}")
    for tier, name in scenario.devices():
        if (problem := unsold(scenario, tier, name)) is not None:
            found.append(problem)
    for index, placement in enumerate(scenario.fleet.placement):
        if placement.mode == "swapped" and placement.pipeline_parallel > 1:
            found.append(f"fleet.placement.{index}: swapped models have no pipeline_parallel; use tensor_parallel")
    return found
