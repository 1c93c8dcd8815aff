"""Step times from fitted physics: nine coefficients on what the shapes of model and hardware say of a step.

The parts are seconds at data-sheet peaks; the coefficients say how many times longer they really take, and what a step,
a layer, a sequence and a message cost beside them. Fitted on some models and devices they carry over to others, since
nothing in them names either (BLIS reports the same of ten coefficients; inference-sim, 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from octavo.profiles.hardware import Hardware
from octavo.profiles.model import Model
from octavo.profiles.quantity import Precision
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.latency.model import LatencyModel, Line
from octavo.simulator.latency.work import Work

BEND = 4
"""Sharpness of the roofline's corner: (memory^4 + compute^4)^(1/4)."""
FIRM = 0.02
"""How firmly a coefficient that the data says little about keeps to where it starts."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per step, layer, sequence and all-reduce; and factors on the seconds at peak of the other parts."""

    step: float = 5e-4
    layer: float = 2e-5
    sequence: float = 1e-5
    weights: float = 1.3
    compute: float = 1.4
    kv: float = 1.3
    attention: float = 2.0
    message: float = 1e-5
    transfer: float = 1.3


@dataclass
class Fit:
    """A model on `tensor_parallel` devices of one kind. `error` is what was seen on what was not in the fit."""

    name: str
    coefficients: Coefficients
    hardware: Hardware
    model: Model
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    overhead: float = 0.0
    error: float = 0.15
    lora_rank: int = 0
    adapters: int = 0
    _bases: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hardware, shards, c = self.hardware, self.tensor_parallel, self.coefficients
        self.work = Work(self.model, self.precision, self.kv_precision, self.lora_rank, self.adapters)
        self._byte = 1 / (hardware.bandwidth * shards)
        self._flop = c.compute / (hardware.flops_at(self.precision) * shards)
        # Attention is computed in sixteen bits, whatever the weights are in.
        self._pair = c.attention * self.work.attention_flops_per_token / (hardware.flops_at("bf16") * shards)
        self._seen = c.kv * self.work.kv_bytes_per_token * self._byte
        layers = self.model.layers
        self._fixed = c.step + c.layer * layers + self.overhead
        if shards > 1:
            self._fixed += 2 * layers * c.message
        ring = 2 * layers * 2 * (shards - 1) / shards * self.work.activation_bytes
        hops = (self.pipeline_parallel - 1) * self.work.activation_bytes
        self._token = c.transfer * (ring + hops) / (hardware.interconnect or hardware.host_bandwidth)

    @property
    def label(self) -> str:
        return f"fit {self.name} of {self.model.name} {self.precision} on {self.hardware.name}"

    @property
    def band(self) -> float:
        return self.error

    def decode(self, rows: int, context: int) -> Line:
        base = self._bases.get(rows)
        if base is None:
            base = self._bases[rows] = self._others(rows, rows, rows)
        seen, slope, until = self.work.seen(rows, context)
        return Line(base + seen * self._seen, slope * self._seen, until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens, sampled, pairs, reads = self.work.chunk_totals(chunks)
        attention = max(pairs * self._pair, reads * self._seen)
        if rows:
            attention += self.work.seen(rows, context)[0] * self._seen
        return self._others(rows + tokens, rows + sampled, rows + len(chunks)) + attention

    def _others(self, tokens: int, sampled: int, sequences: int) -> float:
        """Seconds of a step without its attention."""
        memory = self.coefficients.weights * self.work.weight_bytes(tokens) * self._byte
        compute = self.work.linear_flops(tokens, sampled) * self._flop
        linear = float((memory**BEND + compute**BEND) ** (1 / BEND))
        return self._fixed + self.coefficients.sequence * sequences + linear + self._token * tokens


Predict = Callable[[Coefficients], float]
"""What a measurement would be under some coefficients."""


def fit_coefficients(
    predictions: Sequence[Predict], measured: Sequence[float], start: Coefficients | None = None
) -> Coefficients:
    """Least squares of the logarithm of the error, robust to outliers (soft L1), all coefficients positive."""
    begin = np.log(astuple(start or Coefficients()))
    aim = np.log(measured)

    def residuals(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = coefficients_of(np.exp(logs))
        errors = np.log([predict(found) for predict in predictions]) - aim
        return np.concatenate([errors, FIRM * (logs - begin)])

    return coefficients_of(np.exp(least_squares(residuals, begin, loss="soft_l1", f_scale=0.1).x))


def coefficients_of(values: Sequence[float] | npt.NDArray[np.float64]) -> Coefficients:
    names = [each.name for each in fields(Coefficients)]
    return Coefficients(**{name: float(value) for name, value in zip(names, values, strict=True)})


def closed_loop_tpot(
    model: LatencyModel, batch: float, prompt: int, answer: int, chunk: int = 8192, capacity: float = float("inf")
) -> float:
    """Seconds per output token of `batch` clients that always have a request running, in closed form.

    While a request decodes, each of the others is replaced once: that many steps also prefill a prompt, or a chunk of
    one. `capacity` tokens of KV bound how many run.
    """
    running = max(1, round(min(batch, capacity / (prompt + 0.6 * answer))))
    parts = max(1, -(-prompt // chunk))
    mixed = min(running * parts, answer)
    tokens = max(1, round(running * prompt / mixed))
    context = round(running * (prompt + answer / 2))
    prompts, rest = divmod(tokens, min(prompt, chunk))
    lengths = [min(prompt, chunk)] * prompts + [rest] * (rest > 0)
    joint = model.mixed(running, context, [Chunk(Prompt(0, length, ()), 0, length) for length in lengths])
    share = mixed / answer
    return (1 - share) * model.decode(running, context).seconds + share * joint
