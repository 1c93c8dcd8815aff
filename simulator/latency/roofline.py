"""Step times from data sheets: peaks, and the efficiencies and overheads of a hardware profile."""

from __future__ import annotations

from octavo.profiles.hardware import Hardware
from octavo.profiles.model import Model
from octavo.profiles.quantity import Precision
from octavo.simulator.latency.model import Band
from octavo.simulator.latency.physics import Physics, stated

SERVER, WORKSTATION, OTHER = Band(0.13, 0.48), Band(0.1, 0.8), Band(0.25, 1.3)
"""Of GPUs that stand in nodes together, beside 456 operating points of real servers; of other GPUs and of edge devices,
beside the few that others published: docs/benchmarks/simulator.md. Steps are seldom shorter, as efficiencies are of an
engine that is used to the device."""


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
    return Physics("roofline", stated(hardware), band(hardware), None, *shape, lora_rank, adapters, hardware.mixed_tile)


def band(hardware: Hardware) -> Band:
    """What is known of a device's class."""
    if hardware.kind != "gpu":
        return OTHER
    return SERVER if hardware.node_devices > 1 else WORKSTATION
