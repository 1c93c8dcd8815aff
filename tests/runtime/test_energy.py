"""Joules are counted where the machine counts them, and never made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.runtime.energy import Watch, find_meter


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
        (tmp_path / name / "energy_uj").write_text("9000000\n")
    return tmp_path


def test_packages_are_added_up_and_their_parts_are_not(powercap: Path) -> None:
    meter = find_meter(["cpu:0"], powercap)
    assert (meter.source, meter.reason) == ("RAPL", None)
    assert meter.counter is not None
    (powercap / "intel-rapl:0" / "energy_uj").write_text("9500000\n")
    (powercap / "intel-rapl:0:0" / "energy_uj").write_text("9900000\n")
    assert meter.counter.joules() == pytest.approx(0.5)


def test_a_counter_that_wraps_goes_on(powercap: Path) -> None:
    meter = find_meter(["cpu:0"], powercap)
    assert meter.counter is not None
    (powercap / "intel-rapl:1" / "energy_uj").write_text("1000000\n")
    assert meter.counter.joules() == pytest.approx(2.0)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("1500000\n")
    assert meter.counter.joules() == pytest.approx(2.5)


def test_without_a_counter_there_is_a_reason_and_no_figure(tmp_path: Path) -> None:
    meter = find_meter(["cpu:0"], tmp_path)
    assert meter.source is None
    assert "no RAPL counter" in (meter.reason or "")
    assert meter.idle_watts(0.0) is None
    assert Watch(meter).watts() is None
