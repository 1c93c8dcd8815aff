"""How old prices are. They move: what is older than a year is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from octavo.profiles.errors import ConfigError
from octavo.profiles.fact import Fact
from octavo.profiles.find import kind_of, named
from octavo.profiles.hardware import Basis, Hardware
from octavo.profiles.load import load_hardware, load_price

OLD = 12
"""Months."""
PRICED = {"hardware": load_hardware, "prices": load_price}
FIELDS = ("price.purchase_usd", "price.usd_per_hour", "usd_per_kwh", "egress")


def months_old(date: str) -> int:
    """Whole months since a source's date (a year, a month or a day)."""
    year, month = (int(part) for part in f"{date}-01".split("-")[:2])
    now = datetime.now(UTC)
    return 12 * (now.year - year) + now.month - month


def price_date(hardware: Hardware, basis: Basis) -> str | None:
    """When the price was looked up; None where it is the scenario's own."""
    try:
        changed = load_hardware(hardware.name).price != hardware.price
    except ConfigError:
        changed = False  # the scenario brought the device, with its sources
    source = hardware.source_of("price.purchase_usd" if basis == "owned" else "price.usd_per_hour")
    return None if changed or source is None else source.date


def old_prices(kind: str | None = None) -> Iterator[str]:
    """A line for every price that was looked up more than a year ago."""
    for each, load in PRICED.items():
        if kind is None or kind_of(kind) == each:
            for name in named(each):
                yield from (f"{each}/{name}: {said}" for said in _old(load(name)))


def _old(profile: Fact) -> Iterator[str]:
    for field in FIELDS:
        source = profile.source_of(field)
        if source and (months := months_old(source.date)) > OLD:
            yield f"{field} is of {source.date}, {months} months old"
