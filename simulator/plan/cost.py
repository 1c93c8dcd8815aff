"""USD per hour of a fleet: its devices, and the energy of those that are owned."""

from __future__ import annotations

from collections.abc import Mapping

from octavo.profiles.scenario import Scenario
from octavo.simulator.cost import usd_per_hour as device_usd_per_hour

HOURS_PER_MONTH = 730.5


def usd_per_hour(scenario: Scenario, metrics: Mapping[str, float] | None = None) -> float:
    """Without egress, which no fleet changes. Before a run owned devices idle: no fleet costs less than that."""
    if metrics is None:
        return sum(n * idle_usd_per_hour(scenario, tier, name) for (tier, name), n in scenario.devices().items())
    devices = scenario.devices().items()
    rent = sum(n * device_usd_per_hour(scenario, tier, scenario.hardware[name]) for (tier, name), n in devices)
    idle = sum(n * scenario.hardware[name].idle_watts * _tariff(scenario, tier) for (tier, name), n in devices)
    spent = sum(n * scenario.hardware[name].idle_watts for (_, name), n in devices)
    owned = [tier for tier in scenario.fleet.tiers.values() if tier.basis == "owned"]
    if not owned or not spent:
        return rent
    # Watts above idle are not known tier by tier; they are billed where devices are owned, at the dearest tariff there.
    tariff = max(_tariff(scenario, tier) for tier, _ in scenario.devices())
    return rent + idle + max(0.0, metrics["watts"] - spent) * tariff


def idle_usd_per_hour(scenario: Scenario, tier: str, name: str) -> float:
    """Of one device that does nothing."""
    hardware = scenario.hardware[name]
    return device_usd_per_hour(scenario, tier, hardware) + hardware.idle_watts * _tariff(scenario, tier)


def _tariff(scenario: Scenario, tier_name: str) -> float:
    """USD per hour of drawing one watt."""
    tier = scenario.fleet.tiers[tier_name]
    if tier.basis != "owned":
        return 0.0
    price = scenario.prices[tier.price]
    return price.energy_usd(3600 * (price.pue if tier.pue is None else tier.pue))
