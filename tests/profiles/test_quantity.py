"""Quantities mean the same with and without a unit, and a wrong unit is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from octavo.profiles import quantity
from octavo.profiles.quantity import BytesPerSecond, Count, FlopPerSecond, Fraction, Seconds, UsdPerHour, UsdRange


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("seconds", "250 ms", 0.25),
        ("seconds", "30 min", 1800),
        ("bytes", "24 GiB", 24 * 2**30),
        ("bytes", "80 GB", 80e9),
        ("bytes/s", "3.35 TB/s", 3.35e12),
        ("bytes/s", "400 Gbit/s", 50e9),
        ("FLOP/s", "989 TFLOP/s", 989e12),
        ("FLOP/s", "67 TOP/s", 67e12),
        ("1/s", "2 /s", 2),
        ("1/s", "90/min", 1.5),
        ("USD/h", "2 $/h", 2),
        ("USD/kWh", "120 USD/MWh", 0.12),
        ("fraction", "90 %", 0.9),
        ("count", "220e9", 220e9),
        ("count", "8.03 B", 8.03e9),
    ],
)
def test_a_string_with_a_unit_is_so_many_base_units(kind: str, text: str, value: float) -> None:
    assert quantity.parse(text, kind) == pytest.approx(value)


@given(
    st.floats(min_value=0, max_value=1e15), st.sampled_from([(k, u) for k in quantity.UNITS for u in quantity.UNITS[k]])
)
def test_every_unit_scales_linearly(number: float, unit: tuple[str, str]) -> None:
    kind, name = unit
    assert quantity.parse(f"{number!r} {name}", kind) == pytest.approx(number * quantity.UNITS[kind][name])


@pytest.mark.parametrize("wrong", ["3 parsec", "fast", "", "3 GB", "--3 s", "3 s s", "nan", "1e"])
def test_what_is_no_time_is_refused_with_the_units_that_are(wrong: str) -> None:
    with pytest.raises(ValidationError, match="a number in seconds, or a string with one of the units s, ms, us"):
        TypeAdapter(Seconds).validate_python(wrong)


@pytest.mark.parametrize("wrong", [True, None, [1], math.inf, math.nan, -1.0])
def test_only_finite_numbers_above_zero_are_durations(wrong: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Seconds).validate_python(wrong)


@pytest.mark.parametrize("kind", [BytesPerSecond, FlopPerSecond])
def test_a_rate_of_zero_is_refused(kind: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(0)


def test_a_fraction_stays_within_one() -> None:
    assert TypeAdapter(Fraction).validate_python("100 %") == 1
    with pytest.raises(ValidationError):
        TypeAdapter(Fraction).validate_python("101 %")


def test_a_count_is_whole() -> None:
    assert TypeAdapter(Count).validate_python("8.03 B") == 8_030_000_000
    with pytest.raises(ValidationError):
        TypeAdapter(Count).validate_python("1.5")


def test_a_range_is_low_then_high_and_one_number_is_both() -> None:
    assert TypeAdapter(UsdRange).validate_python("3 kUSD") == (3000, 3000)
    assert TypeAdapter(UsdPerHour).validate_python("8766 USD/year") == pytest.approx(1)
    with pytest.raises(ValidationError, match="low, high"):
        TypeAdapter(UsdRange).validate_python((2, 1))
