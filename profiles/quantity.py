"""Quantities: a number in the base unit, or a string with a unit such as "250 ms", "24 GiB" or "989 TFLOP/s"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]

BITS: Mapping[str, float] = {
    "fp32": 32,
    "tf32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    "fp4": 4.25,
    "int4": 4.25,
}
"""Bits per stored weight; four-bit formats carry an eight-bit scale per 32 weights (as MXFP4 does)."""

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY = re.compile(rf"\s*({NUMBER})\s*([^\d\s].*?)?\s*")

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_BYTE = {f"{prefix}B": factor for prefix, factor in (_DECIMAL | _BINARY).items()}
_BIT = {f"{prefix}bit": factor / 8 for prefix, factor in _DECIMAL.items()}
_TIME = {
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
    "min": 60.0,
    "h": 3600.0,
    "day": 86400.0,
    "days": 86400.0,
    "year": 8766 * 3600.0,
    "years": 8766 * 3600.0,
}
_HOURS = {"h": 1.0, "day": 24.0, "month": 730.5, "year": 8766.0}
_DOLLARS = ("USD", "$")

UNITS: dict[str, dict[str, float]] = {
    "seconds": _TIME,
    "bytes": _BYTE,
    "bytes/s": {f"{unit}/s": factor for unit, factor in (_BYTE | _BIT).items()},
    "FLOP/s": {f"{prefix}{op}/s": f for prefix, f in _DECIMAL.items() for op in ("FLOP", "OP")},
    "watts": {"W": 1.0, "mW": 1e-3, "kW": 1e3, "MW": 1e6},
    "USD": {**dict.fromkeys(_DOLLARS, 1.0), "kUSD": 1e3},
    "USD/h": {f"{dollar}/{unit}": 1 / hours for dollar in _DOLLARS for unit, hours in _HOURS.items()},
    "USD/kWh": {f"{dollar}/{unit}": f for dollar in _DOLLARS for unit, f in (("kWh", 1.0), ("MWh", 1e-3))},
    "USD/byte": {f"{dollar}/{unit}": 1 / _BYTE[unit] for dollar in _DOLLARS for unit in ("GB", "GiB", "TB")},
    "gCO2e/kWh": {"g/kWh": 1.0, "kg/kWh": 1e3, "g/MWh": 1e-3},
    "1/s": {f"/{unit}": 1 / _TIME[unit] for unit in ("s", "min", "h", "day")},
    "fraction": {"%": 0.01},
    "joules": {"J": 1.0, "kJ": 1e3, "Wh": 3600.0, "kWh": 3.6e6},
    "count": {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12},
}
"""Per kind of quantity, which units a string may carry and how many base units each is worth."""


def parse(value: object, kind: str) -> object:
    """The value in the base unit of `kind`; what is no string passes through. Raises ValueError naming the units."""
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value)
    if not match:
        raise ValueError(allowed(kind))
    number, unit = float(match[1]), match[2]
    if unit is None:
        return number
    if unit not in UNITS[kind]:
        raise ValueError(allowed(kind))
    return number * UNITS[kind][unit]


def allowed(kind: str) -> str:
    """What a quantity of this kind may look like, in words."""
    return f"a number in {kind}, or a string with one of the units {', '.join(UNITS[kind])}"


def _reader(kind: str) -> Callable[[object], object]:
    return lambda value: parse(value, kind)


def _whole(value: object) -> object:
    """A count such as "220 B" or 220e9 is a whole number."""
    number = parse(value, "count")
    return round(number) if isinstance(number, float) and abs(number - round(number)) < 1e-6 * number else number


def _schema(kind: str, **bounds: float) -> WithJsonSchema:
    units = "|".join(re.escape(unit) for unit in UNITS[kind])
    text: dict[str, Any] = {"type": "string", "pattern": rf"^\s*{NUMBER}\s*({units})?\s*$"}
    return WithJsonSchema({"anyOf": [{"type": "number", **bounds}, text], "description": allowed(kind)})


def _pair(value: object) -> object:
    """A single number is a range of no width."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("a range is [low, high]; a single number stands for both")
    return pair


def middle(pair: tuple[float, float]) -> float:
    """The middle of a [low, high] range."""
    return (pair[0] + pair[1]) / 2


_FINITE = Field(strict=True, allow_inf_nan=False, ge=0)
_POSITIVE = Field(strict=True, allow_inf_nan=False, gt=0)

Seconds = Annotated[float, _FINITE, BeforeValidator(_reader("seconds")), _schema("seconds", minimum=0)]
Bytes = Annotated[float, _FINITE, BeforeValidator(_reader("bytes")), _schema("bytes", minimum=0)]
BytesPerSecond = Annotated[
    float, _POSITIVE, BeforeValidator(_reader("bytes/s")), _schema("bytes/s", exclusiveMinimum=0)
]
FlopPerSecond = Annotated[float, _POSITIVE, BeforeValidator(_reader("FLOP/s")), _schema("FLOP/s", exclusiveMinimum=0)]
Watts = Annotated[float, _FINITE, BeforeValidator(_reader("watts")), _schema("watts", minimum=0)]
Joules = Annotated[float, _FINITE, BeforeValidator(_reader("joules")), _schema("joules", minimum=0)]
Usd = Annotated[float, _FINITE, BeforeValidator(_reader("USD")), _schema("USD", minimum=0)]
UsdPerHour = Annotated[float, _FINITE, BeforeValidator(_reader("USD/h")), _schema("USD/h", minimum=0)]
UsdPerKilowattHour = Annotated[float, _FINITE, BeforeValidator(_reader("USD/kWh")), _schema("USD/kWh", minimum=0)]
UsdPerByte = Annotated[float, _FINITE, BeforeValidator(_reader("USD/byte")), _schema("USD/byte", minimum=0)]
GramsPerKilowattHour = Annotated[float, _FINITE, BeforeValidator(_reader("gCO2e/kWh")), _schema("gCO2e/kWh", minimum=0)]
PerSecond = Annotated[float, _POSITIVE, BeforeValidator(_reader("1/s")), _schema("1/s", exclusiveMinimum=0)]
Fraction = Annotated[float, _FINITE, Field(le=1), BeforeValidator(_reader("fraction")), _schema("fraction", minimum=0)]
Share = Annotated[
    float, _POSITIVE, Field(le=1), BeforeValidator(_reader("fraction")), _schema("fraction", exclusiveMinimum=0)
]
Count = Annotated[int, Field(strict=True, gt=0), BeforeValidator(_whole), _schema("count", exclusiveMinimum=0)]

UsdRange = Annotated[tuple[Usd, Usd], BeforeValidator(_pair), AfterValidator(_ordered)]
UsdPerHourRange = Annotated[tuple[UsdPerHour, UsdPerHour], BeforeValidator(_pair), AfterValidator(_ordered)]
UsdPerKilowattHourRange = Annotated[
    tuple[UsdPerKilowattHour, UsdPerKilowattHour], BeforeValidator(_pair), AfterValidator(_ordered)
]
