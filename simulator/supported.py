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
    operations = scenario.fleet.operations
    found = [
        f"fleet.operations.{name}: not simulated yet; leave it out"
        for name in ("failures", "spot_preemption", "autoscale", "maintenance", "outages")
        if getattr(operations, name)
    ]
    for index, placement in enumerate(scenario.fleet.placement):
        if placement.mode == "swapped":
            found.append(f"fleet.placement.{index}.mode: swapped is not simulated yet; dedicated, co-located or lora")
    if not scenario.engine.chunked_prefill:
        found.append("engine.chunked_prefill: false is not simulated; prompts are always prefilled in chunks")
    value = scenario.ensemble.value
    if isinstance(value, ValueModel) and value.extra_tokens:
        found.append("ensemble.value.extra_tokens: not simulated yet; leave it out")
    return found
