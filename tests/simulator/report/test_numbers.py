"""How numbers are written for people."""

from __future__ import annotations

import pytest

from octavo.simulator.report.numbers import NARROW, Number, digits, times, write


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.505, "share", "50.5 %"),
        (0.0003, "s", "300 µs"),
        (0.9999, "s", "1.00 s"),
        (59.94, "s", "59.9 s"),
        (3600, "s", "60.0 min"),
        (86400, "s", "24.0 h"),
        (0, "s", "0 s"),
        (0.0123456, "USD", "$0.0123"),
        (3.5, "USD", "$3.50"),
        (12345.6, "USD", "$12,300"),
        (-0.05, "error", "−5.0 %"),
        (0.05, "error", "+5.0 %"),
        (16, "", "16"),
        (11.25, "", "11.2"),
        (1234.5, "J", "1,230 J"),
    ],
)
def test_a_number_has_three_digits_and_its_unit(value: float, unit: str, said: str) -> None:
    assert write(value, unit).replace(NARROW, " ") == said


def test_an_interval_says_its_unit_once() -> None:
    assert str(Number(0.5, "share", 0.45, 0.55)).replace(NARROW, " ") == "50.0 % (45.0–55.0 %)"
    assert str(Number(0.9, "s", 0.5, 1.5)).replace(NARROW, " ") == "900 ms (500 ms – 1.50 s)"
    assert str(Number(2.0, "USD", 1.5, 2.5)) == "$2.00 ($1.50–$2.50)"


def test_no_number_is_written_with_an_exponent() -> None:
    for power in range(-12, 15):
        assert "e" not in digits(1.234 * 10.0**power)


def test_a_ratio_is_said_in_times() -> None:
    assert times(9.13) == "9.1 times"
    assert times(15.96) == "16 times"
    assert times(0.5) == "0.5 times"
