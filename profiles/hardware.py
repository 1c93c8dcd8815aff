"""A device that models run on: data-sheet peaks, and apart from them the efficiencies that were measured or assumed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from octavo.profiles.fact import Entry, Fact
from octavo.profiles.quantity import (
    Bytes,
    BytesPerSecond,
    FlopPerSecond,
    Precision,
    Seconds,
    Share,
    UsdPerHour,
    UsdPerHourRange,
    UsdRange,
    Watts,
    middle,
)

Basis = Literal["on_demand", "reserved", "spot", "owned"]

HOURS_PER_YEAR = 8766.0


class HourlyPrice(Entry):
    """What a cloud asks for one device, USD per hour, as [low, high] over providers and regions."""

    on_demand: UsdPerHourRange | None = None
    reserved: UsdPerHourRange | None = None
    spot: UsdPerHourRange | None = None


class DevicePrice(Entry):
    """What a device costs to buy and to rent; energy is priced by the tier that it stands in."""

    purchase_usd: UsdRange | None = Field(default=None, description="with its share of the host")
    amortisation_years: float = Field(default=4.0, gt=0)
    usd_per_hour: HourlyPrice = HourlyPrice()

    def range_on(self, basis: Basis) -> tuple[UsdPerHour, UsdPerHour] | None:
        """USD per device-hour as [low, high], or None where it is not sold so."""
        if basis != "owned":
            return getattr(self.usd_per_hour, basis)  # type: ignore[no-any-return]
        if self.purchase_usd is None:
            return None
        low, high = self.purchase_usd
        hours = self.amortisation_years * HOURS_PER_YEAR
        return low / hours, high / hours


class Hardware(Fact):
    """One device. Peaks are the data sheet's, dense; what software reaches of them is in the efficiencies."""

    kind: Literal["gpu", "cpu", "edge", "npu"]
    vendor: str = ""
    memory: Bytes = Field(description="that a model may use")
    bandwidth: BytesPerSecond = Field(description="of that memory, peak")
    flops: dict[Precision, FlopPerSecond] = Field(min_length=1, description="peak per precision, dense (no sparsity)")
    interconnect: BytesPerSecond | None = Field(default=None, description="to its peers, per direction")
    interconnect_latency: Seconds = Field(default=10e-6, description="of one small message to a peer")
    host_bandwidth: BytesPerSecond = Field(default=8e9, description="host to device; how fast weights are swapped in")
    node_devices: int = Field(default=1, gt=0, description="how many share the interconnect, usually")
    idle_watts: Watts
    peak_watts: Watts
    price: DevicePrice = DevicePrice()

    flops_efficiency: Share = Field(default=0.6, description="reached share of the peak in large matrix products")
    attention_efficiency: Share | None = Field(
        default=None, description="reached share of the peak when prompts attend; None: flops_efficiency"
    )
    mixed_tile: int = Field(
        default=1,
        gt=0,
        description="tokens that attention computes for a row that decodes beside a prefill: 64 in FlashAttention-2",
    )
    bandwidth_efficiency: Share = Field(default=0.8, description="reached share of the peak when weights are read")
    interconnect_efficiency: Share = Field(default=0.7)
    step_overhead: Seconds = Field(default=100e-6, description="per step: launches, sampling, scheduling")
    layer_overhead: Seconds = Field(default=0.0, description="per layer and step")
    sequence_overhead: Seconds = Field(default=0.0, description="per sequence and step")

    def compute_precision(self, precision: Precision) -> Precision:
        """The arithmetic that weights of this precision are multiplied in; those without units go to sixteen bit."""
        choices: tuple[Precision, ...] = (precision, "bf16", "fp16", "tf32", "fp32")
        return next((have for have in choices if have in self.flops), next(iter(self.flops)))

    def flops_at(self, precision: Precision) -> float:
        """Peak FLOP/s when weights of this precision are used."""
        return self.flops[self.compute_precision(precision)]

    def usd_per_hour(self, basis: Basis) -> float | None:
        """The middle of the price range, or None where the device is not sold so."""
        pair = self.price.range_on(basis)
        return None if pair is None else middle(pair)

    def watts(self, utilisation: float) -> float:
        """Power drawn at a utilisation in [0, 1], linear between idle and peak."""
        return self.idle_watts + (self.peak_watts - self.idle_watts) * utilisation
