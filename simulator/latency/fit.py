"""Step times from fitted physics: about ten coefficients on what the shape of model and hardware say of a step.

The features are the roofline's parts at data-sheet peaks; the coefficients say how many times longer they really take.
A fit on some models and devices carries over to others (Roy et al., BLIS, 2026, report the same of ten numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from octavo.profiles.hardware import Hardware
from octavo.profiles.model import Model
from octavo.profiles.quantity import Precision
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import Line
from octavo.simulator.latency.work import Work

COEFFICIENTS = ("step", "layer", "sequence", "weights", "compute", "kv", "attention", "messages", "transfer", "hop")
"""Times the seconds of each part at peak; the first three are seconds themselves."""


@dataclass
class Parts:
    """The seconds at peak of each part of a step, for one model on one replica's devices."""

    hardware: Hardware
    model: Model
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    def __post_init__(self) -> None:
        shards = self.tensor_parallel
        self.work = Work(self.model, self.precision, self.kv_precision)
        self.flops = self.hardware.flops_at(self.precision) * shards
        self.bandwidth = self.hardware.bandwidth * shards

    def of(
        self, tokens: int, sampled: int, sequences: int, seen: float, pairs: float, reads: float
    ) -> tuple[float, ...]:
        """In the order of COEFFICIENTS; `seen` are KV tokens of decodes, `pairs` and `reads` those of prefills."""
        work, shards = self.work, self.tensor_parallel
        payload = tokens * work.activation_bytes / (self.hardware.interconnect or self.hardware.host_bandwidth)
        layers = float(self.model.layers)
        return (
            1.0,
            layers,
            float(sequences),
            work.weight_bytes(tokens) / self.bandwidth,
            work.linear_flops(tokens, sampled) / self.flops,
            (seen + reads) * work.kv_bytes_per_token / self.bandwidth,
            pairs * work.attention_flops_per_token / self.flops,
            2 * layers if shards > 1 else 0.0,
            2 * layers * 2 * (shards - 1) / shards * payload,
            float(self.pipeline_parallel - 1),
        )


@dataclass
class Fit:
    """Parts times coefficients. `error` is the relative error that was seen on what was not in the fit."""

    name: str
    parts: Parts
    coefficients: Sequence[float]
    error: float = 0.15
    overhead: float = 0.0
    _bases: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slope = self._seconds(self.parts.of(0, 0, 0, 1.0, 0.0, 0.0)) - self._seconds(
            self.parts.of(0, 0, 0, 0.0, 0.0, 0.0)
        )

    @property
    def label(self) -> str:
        return f"fitted {self.name} of {self.parts.model.name} on {self.parts.hardware.name}"

    @property
    def band(self) -> float:
        return self.error

    def decode(self, rows: int, context: int) -> Line:
        base = self._bases.get(rows)
        if base is None:
            base = self._bases[rows] = self._seconds(self.parts.of(rows, rows, rows, 0.0, 0.0, 0.0)) + self.overhead
        seen, slope, until = self.parts.work.seen(rows, context)
        return Line(base + seen * self._slope, slope * self._slope, until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens, sampled, pairs, reads = self.parts.work.chunk_totals(chunks)
        seen = self.parts.work.seen(rows, context)[0] if rows else 0.0
        parts = self.parts.of(rows + tokens, rows + sampled, rows + len(chunks), seen, pairs, reads)
        return self._seconds(parts) + self.overhead

    def _seconds(self, parts: tuple[float, ...]) -> float:
        return float(sum(c * part for c, part in zip(self.coefficients, parts, strict=True)))


def fit_coefficients(parts: Sequence[tuple[float, ...]], seconds: Sequence[float]) -> tuple[float, ...]:
    """Non-negative least squares of the relative error."""
    matrix = np.array(parts) / np.array(seconds)[:, None]
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    solution, _ = nnls(matrix / scale, np.ones(len(seconds)))
    return tuple(float(c) for c in solution / scale)
