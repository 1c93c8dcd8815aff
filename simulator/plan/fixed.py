"""Which targets a fleet is looked for by: those that more devices may meet, with one of them away or not."""

from __future__ import annotations

from octavo.profiles.scenario import Scenario, Service, Targets


def fixed(scenario: Scenario) -> tuple[str, ...]:
    """Targets that no fleet meets if the cheapest that meets the others does not: what is paid for a query grows with
    what a fleet costs, and as many answers are right on all of them, unless some are late or lost.
    """
    operations = scenario.fleet.operations
    moving = (operations.failures, operations.spot_preemption, operations.autoscale, operations.maintenance)
    same = scenario.ensemble.deadline is None and not any(moving) and not operations.outages
    return ("usd_per_query", "usd_per_million_tokens", *(("accuracy",) if same else ()))


def searched(scenario: Scenario) -> Targets:
    """The others: what a fleet is looked for by."""
    return scenario.targets.model_copy(update=dict.fromkeys(fixed(scenario)))


def served(targets: Targets) -> Service:
    """How queries must be served, without what that may cost."""
    wanted = {name: value for name, value in targets.wanted.items() if name in Service.model_fields}
    return Service().model_copy(update=wanted)


def enduring(scenario: Scenario) -> Scenario:
    """The scenario whose targets must hold with any one device away, too."""
    targets = scenario.targets.model_copy(update={"n_minus_1": served(scenario.targets)})
    return scenario.model_copy(update={"targets": targets})
