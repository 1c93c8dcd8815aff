"""Joules, where the machine counts them: Intel's and AMD's RAPL, and NVIDIA's NVML. Elsewhere there is no figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
IDLE_SECONDS = 1.0


class Counter(Protocol):
    """Energy since some moment."""

    def joules(self) -> float:
        """Never less than before."""


class Rapl:
    """All processor packages of this machine, from the kernel's powercap folder; a counter that wraps is followed."""

    def __init__(self, packages: Iterable[Path]) -> None:
        self._ranges = {package: int((package / "max_energy_range_uj").read_text()) for package in packages}
        self._last = {package: self._read(package) for package in self._ranges}
        self._microjoules = 0

    def joules(self) -> float:
        for package, range_ in self._ranges.items():
            now = self._read(package)
            gone = now - self._last[package]
            self._microjoules += gone if gone >= 0 else gone + range_
            self._last[package] = now
        return self._microjoules * 1e-6

    def _read(self, package: Path) -> int:
        return int((package / "energy_uj").read_text())


class Nvml:
    """Some GPUs together (from Volta on)."""

    def __init__(self, nvml: Any, indices: Sequence[int]) -> None:
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in indices]

    def joules(self) -> float:
        millijoules = sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(device) for device in self._devices)
        return float(millijoules) * 1e-3


@dataclass(frozen=True, slots=True)
class Meter:
    """What counts energy here, or why nothing does."""

    source: str | None
    reason: str | None = None
    counter: Counter | None = None

    def idle_watts(self, seconds: float = IDLE_SECONDS) -> float | None:
        """Mean power while this process waits."""
        running = Watch(self)
        sleep(seconds)
        return running.watts()


class Watch:
    """Mean power since its making; None where nothing counts energy."""

    def __init__(self, meter: Meter) -> None:
        self._counter = meter.counter
        self._at, self._joules = perf_counter(), self._counter.joules() if self._counter else 0.0

    def watts(self) -> float | None:
        if self._counter is None:
            return None
        return (self._counter.joules() - self._joules) / (perf_counter() - self._at)


def find_meter(devices: Sequence[str], powercap: Path = POWERCAP) -> Meter:
    """The meter of these devices: `cuda:0`, ... are NVML's, everything else the processor's."""
    gpus = [int(name.partition(":")[2] or 0) for name in devices if not name.startswith("cpu")]
    return _nvml(gpus) if gpus else _rapl(powercap)


def _rapl(powercap: Path) -> Meter:
    packages = [path for path in sorted(powercap.glob("*rapl*:*")) if path.name.count(":") == 1]
    if not packages:
        return Meter(None, f"{powercap}: the kernel shows no RAPL counter (virtual machines mostly have none)")
    try:
        return Meter("RAPL", None, Rapl(packages))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Meter(None, f"{packages[0]}: the RAPL counter cannot be read: {why}")


def _nvml(indices: Sequence[int]) -> Meter:
    try:
        import pynvml
    except ImportError:
        return Meter(None, "nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
        meter = Nvml(pynvml, indices)
        meter.joules()
    except pynvml.NVMLError as error:
        return Meter(None, f"NVML: {error}")
    return Meter("NVML", None, meter)
