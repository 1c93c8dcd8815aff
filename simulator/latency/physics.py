"""Step times from what a step computes and moves, at the peaks of a data sheet times factors that say what is reached.

Williams et al., Roofline, CACM 2009. A step is the linear layers, bound by FLOPs or by reading the weights, then
attention, bound by FLOPs or by reading keys and values; tensor-parallel devices share both and add two all-reduces a
layer (Shoeybi et al., Megatron-LM, 2019), pipeline stages follow each other and add a transfer each. Nothing names a
model or a device, so factors that were fitted on some carry over to others (BLIS reports the same of ten; 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from octavo.profiles.hardware import Hardware
from octavo.profiles.model import VOCABULARY_BITS, Model
from octavo.profiles.quantity import BITS, Precision
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import Band, Line
from octavo.simulator.latency.work import Work


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per step, layer, sequence and all-reduce; and factors on the seconds at peak of the other parts.

    They start where the tables of aiconfigurator-core 0.12.0 have single operators: a layer is a dozen kernels, none of
    which takes less than some four microseconds on a data-centre GPU, however little it does; large products reach the
    peak over `compute` in sixteen bits, over `halved` times that wherever bits are halved (fp8, fp4), and over `blocks`
    times that where fp8 weights are scaled block by block.
    """

    step: float = 3e-4
    layer: float = 5e-5
    sequence: float = 1e-5
    weights: float = 1.3
    compute: float = 1.3
    kv: float = 1.2
    attention: float = 2.0
    message: float = 1e-5
    transfer: float = 1.3
    halved: float = 1.2
    blocks: float = 1.1


def stated(hardware: Hardware) -> Coefficients:
    """Those of the efficiencies and overheads in a hardware profile."""
    return Coefficients(
        step=hardware.step_overhead,
        layer=hardware.layer_overhead,
        sequence=hardware.sequence_overhead,
        weights=1 / hardware.bandwidth_efficiency,
        compute=1 / hardware.flops_efficiency,
        kv=1 / hardware.bandwidth_efficiency,
        attention=1 / (hardware.attention_efficiency or hardware.flops_efficiency),
        message=hardware.interconnect_latency,
        transfer=1 / hardware.interconnect_efficiency,
    )


HALVINGS: Mapping[Precision, int] = {"fp8": 1, "int8": 1, "fp4": 2}
"""How often sixteen bits are halved in what is multiplied."""
BEND = 4
"""Sharpness of a fitted roofline's corner."""


@dataclass
class Physics:
    """A model on `tensor_parallel` x `pipeline_parallel` devices of one kind; `overhead` is the host's, per step.

    `bend` is how sharp the roofline's corner is, (memory^bend + compute^bend)^(1/bend); None: the larger of both.
    `tile` is how many tokens attention computes for a row that decodes beside a prefill (Hardware.mixed_tile).
    """

    name: str
    coefficients: Coefficients
    band: Band
    bend: int | None
    hardware: Hardware
    model: Model
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    overhead: float = 0.0
    lora_rank: int = 0
    adapters: int = 0
    tile: int = 1
    _linear: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hardware, shards, c = self.hardware, self.tensor_parallel, self.coefficients
        self.work = Work(self.model, self.precision, self.kv_precision, self.lora_rank, self.adapters)
        byte = 1 / (hardware.bandwidth * shards)
        self.weight_byte = c.weights * byte
        self.flop = c.compute * self._narrow() / (hardware.flops_at(self.precision) * shards)
        # The head and attention are computed in sixteen bits, whatever the weights are in.
        wide = self.precision if BITS[self.precision] > VOCABULARY_BITS else "bf16"
        self.head_flop = c.compute / (hardware.flops_at(wide) * shards)
        self.passed = c.weights * byte * (self.work.passed_bytes * shards + self.work.gate_bytes)
        self.pair = c.attention * self.work.attention_flops_per_token / (hardware.flops_at("bf16") * shards)
        self.read = c.kv * self.work.kv_bytes_per_token * byte
        self.seen = max(self.pair, self.read)
        self.fixed = c.step + c.layer * self.model.layers + self.overhead

    def _narrow(self) -> float:
        """Of the share of a peak that sixteen bits reach, how many times less fewer bits do."""
        kind = self.hardware.compute_precision(self.precision)
        blocks = self.coefficients.blocks if self.model.block_scales and self.precision == "fp8" else 1.0
        return blocks * self.coefficients.halved ** HALVINGS.get(kind, 0)

    @property
    def label(self) -> str:
        devices = self.tensor_parallel * self.pipeline_parallel
        shards = f" x{devices}" if devices > 1 else ""
        return f"{self.name} of {self.model.name} {self.precision} on {self.hardware.name}{shards}"

    def decode(self, rows: int, context: int) -> Line:
        base = self._linear.get(rows)
        if base is None:
            base = self._linear[rows] = self._others(rows, rows, rows)
        seen, slope, until = self.work.seen(rows, context)
        return Line(base + seen * self.seen, slope * self.seen, until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens, sampled, pairs, reads = self.work.chunk_totals(chunks)
        attention = max(pairs * self.pair, reads * self.read)
        if rows:
            attention += self.work.seen(rows, context)[0] * max(self.seen, self.tile * self.pair)
        return self._others(rows + tokens, rows + sampled, rows + len(chunks)) + attention

    def _others(self, tokens: int, sampled: int, sequences: int) -> float:
        """Seconds of a step without its attention."""
        compute = tokens * self.work.token_flops * self.flop + sampled * self.work.head_flops * self.head_flop
        memory = self.work.weight_bytes(tokens) * self.weight_byte
        linear = max(compute, memory)
        if self.bend:
            linear = float((memory**self.bend + compute**self.bend) ** (1 / self.bend))
        others = self.coefficients.sequence * sequences + tokens * self.passed + self.transfer(tokens)
        return self.fixed + linear + others

    def transfer(self, tokens: int) -> float:
        """Seconds of the all-reduces of tensor parallelism and of the hops between pipeline stages."""
        if self.tensor_parallel == self.pipeline_parallel == 1:
            return 0.0
        hardware, shards, c = self.hardware, self.tensor_parallel, self.coefficients
        bandwidth = (hardware.interconnect or hardware.host_bandwidth) / c.transfer
        payload = tokens * self.work.activation_bytes
        ring = c.message + 2 * (shards - 1) / shards * payload / bandwidth
        reduces = 2 * self.model.layers * ring if shards > 1 else 0.0
        # Stages of one replica stand in other nodes once a node is full; what is between nodes is no faster than PCIe.
        across = shards * self.pipeline_parallel > hardware.node_devices
        hop_bandwidth = min(bandwidth, hardware.host_bandwidth) if across else bandwidth
        return reduces + (self.pipeline_parallel - 1) * (c.message + payload / hop_bandwidth)
