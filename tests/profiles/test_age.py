"""Prices say how old they are, and the scenario's own are not called old."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from octavo.profiles import load_hardware, load_scenario
from octavo.profiles.age import months_old, old_prices, price_date

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("date", "months"),
    [(f"{NOW.year}-{NOW.month:02}-01", 0), (f"{NOW.year - 2}-{NOW.month:02}", 24), (f"{NOW.year}", NOW.month - 1)],
)
def test_months_are_counted_from_a_day_a_month_or_a_year(date: str, months: int) -> None:
    assert months_old(date) == months


def test_every_price_older_than_a_year_is_named_and_no_other() -> None:
    said = list(old_prices("hardware"))
    known = load_hardware("h100-sxm").source_of("price.usd_per_hour")
    assert known
    assert any(line.startswith("hardware/h100-sxm: price.usd_per_hour") for line in said) == (
        months_old(known.date) > 12
    )
    assert all(int(line.split(", ")[1].split()[0]) > 12 for line in said)


def test_a_price_that_the_scenario_sets_is_its_own() -> None:
    change = "hardware.h100-sxm.price.usd_per_hour.on_demand=[2, 2]"
    theirs, own = load_scenario("single-box").hardware, load_scenario("single-box", [change]).hardware
    assert price_date(theirs["h100-sxm"], "on_demand") == "2025-06"
    assert price_date(own["h100-sxm"], "on_demand") is None
