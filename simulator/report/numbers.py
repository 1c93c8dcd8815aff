"""Numbers with a unit and perhaps an interval, and how people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from octavo.simulator.report.document import Estimate

NARROW = "\u202f"  # a space that does not break
_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


@dataclass(frozen=True, slots=True)
class Number:
    """A value in a base unit (`s`, `USD`, `J`, `share`, ...) with its 95 % interval where one is known."""

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate, unit: str) -> Number:
        return cls(estimate.value, unit, estimate.low, estimate.high)

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return write(self.value, self.unit)
        return f"{write(self.value, self.unit)} ({span(self.low, self.high, self.unit)})"


Cell: TypeAlias = str | Number | None


def write(value: float, unit: str = "") -> str:
    """The value with three digits, in the unit's usual multiple; a number and its unit stay on one line."""
    match unit:
        case "share":
            return f"{digits(100 * value)}{NARROW}%"
        case "error":
            return f"{'+' if value >= 0 else '−'}{digits(abs(100 * value), 2)}{NARROW}%"
        case "USD":
            return f"{'−' if value < 0 else ''}${money(abs(value))}"
        case "s":
            return _seconds(value)
    said = f"{value:,.0f}" if value == round(value) else digits(value)
    return f"{said}{NARROW}{unit}" if unit else said


NEVER_NEGATIVE = ("share", "s", "USD", "J", "kWh", "/s")


def span(low: float, high: float, unit: str) -> str:
    """An interval, its unit said once where both ends have the same; no longer than what it is of can be."""
    if unit in NEVER_NEGATIVE:
        low = max(0.0, low)
    if unit == "share":
        high = min(1.0, high)
    one, other = write(low, unit), write(high, unit)
    (first, _, name), (second, _, same) = one.partition(NARROW), other.partition(NARROW)
    return f"{first}–{second}{NARROW}{name}".rstrip(NARROW) if name == same else f"{one} – {other}"


def digits(value: float, count: int = 3) -> str:
    """Three significant digits without an exponent: 0.00123, 1.23, 123, 12,300."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    rounded = float(f"{value:.{count - 1}e}")
    places = count - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, places)}f}".replace("-", "−")


def money(value: float) -> str:
    """Cents where cents matter; three digits below."""
    return f"{value:,.2f}" if 1 <= value < 1000 else digits(value)


def _seconds(value: float) -> str:
    if abs(value) >= 120:
        return f"{digits(value / 60)}{NARROW}min" if abs(value) < 7200 else f"{digits(value / 3600)}{NARROW}h"
    size, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s * 0.9995), (1.0, ""))
    return f"{digits(value / size)}{NARROW}{prefix}s"


def times(ratio: float) -> str:
    """How many times as much: `9.1 times`."""
    return f"{ratio:.2g} times" if ratio < 10 else f"{digits(ratio, 2)} times"
