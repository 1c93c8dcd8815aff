"""Step times from data sheets: peaks, and the efficiencies and overheads of a hardware profile."""

from __future__ import annotations

from octavo.profiles.hardware import Hardware
from octavo.profiles.model import Model
from octavo.profiles.quantity import Precision
from octavo.simulator.latency.physics import Physics, stated

BAND = 0.15
"""Mean relative error of tokens' times beside 456 operating points of real servers: docs/benchmarks/simulator.md."""


def roofline(
    hardware: Hardware,
    model: Model,
    precision: Precision = "bf16",
    kv_precision: Precision = "bf16",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    overhead: float = 0.0,
    lora_rank: int = 0,
    adapters: int = 0,
) -> Physics:
    """Physics with what the hardware profile says is reached."""
    shape = (hardware, model, precision, kv_precision, tensor_parallel, pipeline_parallel, overhead)
    return Physics("roofline", stated(hardware), BAND, None, *shape, lora_rank, adapters, hardware.mixed_tile)
