"""What a place costs: electricity, carbon and traffic that leaves."""

from __future__ import annotations

from pydantic import Field

from octavo.profiles.fact import Fact
from octavo.profiles.quantity import GramsPerKilowattHour, UsdPerByte, UsdPerKilowattHourRange, middle


class Price(Fact):
    """A tariff. The PUE multiplies the devices' energy; a cloud's hourly price has electricity in it already."""

    usd_per_kwh: UsdPerKilowattHourRange
    carbon: GramsPerKilowattHour | None = Field(default=None, description="grams of CO2e per kWh of the grid")
    pue: float = Field(default=1.0, ge=1, description="facility energy over device energy, where the tier says none")
    egress: UsdPerByte = 0.0

    def energy_usd(self, joules: float) -> float:
        """USD for this much energy at the middle of the tariff."""
        return joules / 3.6e6 * middle(self.usd_per_kwh)
