"""What a fleet costs: device-seconds times price, energy on the owner's bill, traffic that leaves, and joules.

Energy = idle power of every device that is there, and of what lies between idle and peak a part for any step that
runs, one for the share of its reached bandwidth and one for that of its reached FLOP/s. The three are fitted to what
Llama-2-70B and BLOOM-176B drew on A100s (Patel et al., Splitwise, ISCA 2024), where computing comes to the rated power.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Placement
from octavo.profiles.hardware import Hardware
from octavo.profiles.scenario import Scenario
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane
from octavo.simulator.latency.work import Work
from octavo.simulator.network import CLIENT

ACTIVE_POWER, MEMORY_POWER, COMPUTE_POWER = 0.19, 0.61, 0.79
"""Shares of the power between idle and peak: while a step runs, at the reached bandwidth, at the reached FLOP/s."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Of one run: USD by what is paid for, joules at the devices, kWh at the meter, grams of CO2e where known."""

    usd: Mapping[str, float]
    joules: float
    kwh: float
    grams: float | None

    @property
    def total(self) -> float:
        return sum(self.usd.values())


def bill(
    scenario: Scenario,
    seconds: Mapping[tuple[str, str], float],
    dynamic: Mapping[tuple[str, str], float],
    bytes_sent: Mapping[tuple[str, str], float],
) -> Bill:
    """`seconds` are device-seconds and `dynamic` joules above idle, both per tier and hardware."""
    usd = {"devices": 0.0, "energy": 0.0, "egress": 0.0}
    joules = kwh = grams = 0.0
    metered = True
    for (tier_name, name), there in seconds.items():
        tier, hardware = scenario.fleet.tiers[tier_name], scenario.hardware[name]
        price = scenario.prices[tier.price]
        used = hardware.idle_watts * there + dynamic.get((tier_name, name), 0.0)
        at_meter = used * (price.pue if tier.pue is None else tier.pue)
        usd["devices"] += there / 3600 * usd_per_hour(scenario, tier_name, hardware)
        if tier.basis == "owned":
            usd["energy"] += price.energy_usd(at_meter)
        joules += used
        kwh += at_meter / 3.6e6
        metered &= price.carbon is not None
        grams += at_meter / 3.6e6 * (price.carbon or 0.0)
    for (start, _), sent in bytes_sent.items():
        if start != CLIENT and scenario.fleet.tiers[start].basis != "owned":
            usd["egress"] += sent * scenario.prices[scenario.fleet.tiers[start].price].egress
    return Bill(usd, joules, kwh, grams if metered else None)


def usd_per_hour(scenario: Scenario, tier: str, hardware: Hardware) -> float:
    """Of one device in a tier. Raises ConfigError where it is not sold so."""
    price = hardware.usd_per_hour(scenario.fleet.tiers[tier].basis)
    if price is None:
        raise ConfigError(f"{scenario.name}: {unsold(scenario, tier, hardware.name)}")
    return price


def unsold(scenario: Scenario, tier: str, name: str) -> str | None:
    """Which price is missing of a device on the basis of its tier; None when none is."""
    basis = scenario.fleet.tiers[tier].basis
    if scenario.hardware[name].usd_per_hour(basis) is not None:
        return None
    field = "purchase_usd" if basis == "owned" else f"usd_per_hour.{basis}"
    return f"hardware.{name}.price.{field} is unknown; tier {tier} is {basis}"


def dynamic_joules(scenario: Scenario, replicas: Iterable[tuple[Device, Placement]]) -> dict[tuple[str, str], float]:
    """Joules above idle of all that the devices computed, per tier and hardware."""
    found: dict[tuple[str, str], float] = {}
    for device, placement in replicas:
        key = placement.tier, placement.hardware
        found[key] = found.get(key, 0.0) + _above_idle(scenario, device, placement)
    return found


def _above_idle(scenario: Scenario, device: Device, placement: Placement) -> float:
    """Joules of one replica's work."""
    hardware = scenario.hardware_of(placement)
    effort = sum(_effort(scenario, placement, hardware, lane) for lane in device.lanes)
    most = device.busy * placement.devices
    return (hardware.peak_watts - hardware.idle_watts) * min(ACTIVE_POWER * most + effort, most)


def watts(scenario: Scenario, device: Device, placement: Placement, utilisation: Sequence[float]) -> list[float]:
    """What a replica draws where it is busy for such shares of the time; its steps are taken to be alike in power."""
    idle = scenario.hardware_of(placement).idle_watts * placement.devices
    working = _above_idle(scenario, device, placement) / device.busy if device.busy else 0.0
    return [idle + working * share for share in utilisation]


def _effort(scenario: Scenario, placement: Placement, hardware: Hardware, lane: Lane) -> float:
    """Device-seconds at full power that the lane's work is worth beyond what any step draws."""
    name, done = lane.models[0], lane.work
    model = scenario.model_of(name)
    if model is None or not done.passes:
        return 0.0
    work = Work(model, scenario.precision_of(name), scenario.engine.kv_precision)
    layers = model.layers
    flops = done.tokens * work.token_flops + layers * (done.pairs + done.context) * work.attention_flops_per_token
    per_pass = max(1, round(done.tokens / done.passes))
    moved = done.passes * work.weight_bytes(per_pass) + layers * done.context * work.kv_bytes_per_token
    compute = flops / (hardware.flops_at(scenario.precision_of(name)) * hardware.flops_efficiency)
    return COMPUTE_POWER * compute + MEMORY_POWER * moved / (hardware.bandwidth * hardware.bandwidth_efficiency)
