"""Step times from data sheets: peaks times measured efficiencies, weights and attention one after the other.

Williams et al., Roofline, CACM 2009. A step is the linear layers, bound by FLOPs or by reading the weights, then
attention, bound by FLOPs or by reading keys and values; tensor-parallel devices share both and add two all-reduces a
layer (Shoeybi et al., Megatron-LM, 2019), pipeline stages follow each other and add a transfer each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from octavo.profiles.hardware import Hardware
from octavo.profiles.model import Model
from octavo.profiles.quantity import Precision
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import Line
from octavo.simulator.latency.work import Work

BAND = 0.15
"""Mean relative error of tokens' times beside 456 operating points of real servers: docs/benchmarks/simulator.md."""


@dataclass
class Roofline:
    """A model on `tensor_parallel` x `pipeline_parallel` devices of one kind; `overhead` is the host's, per step."""

    hardware: Hardware
    model: Model
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    overhead: float = 0.0
    lora_rank: int = 0
    adapters: int = 0
    _linear: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hardware, shards = self.hardware, self.tensor_parallel
        self.work = Work(self.model, self.precision, self.kv_precision, self.lora_rank, self.adapters)
        self.flops = hardware.flops_at(self.precision) * hardware.flops_efficiency * shards
        self.bandwidth = hardware.bandwidth * hardware.bandwidth_efficiency * shards
        self.attend_seconds = self.work.attention_flops_per_token / self.flops
        self.read_seconds = self.work.kv_bytes_per_token / self.bandwidth
        self.decode_seconds = max(self.attend_seconds, self.read_seconds)
        self.fixed = hardware.step_overhead + hardware.layer_overhead * self.model.layers + self.overhead

    @property
    def label(self) -> str:
        shards = (
            f" x{self.tensor_parallel * self.pipeline_parallel}"
            if self.pipeline_parallel * self.tensor_parallel > 1
            else ""
        )
        return f"roofline of {self.model.name} {self.precision} on {self.hardware.name}{shards}"

    @property
    def band(self) -> float:
        return BAND

    def decode(self, rows: int, context: int) -> Line:
        base = self._linear.get(rows)
        if base is None:
            base = self._linear[rows] = self._others(rows, rows, rows)
        seen, slope, until = self.work.seen(rows, context)
        return Line(base + seen * self.decode_seconds, slope * self.decode_seconds, until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens, sampled, pairs, reads = self.work.chunk_totals(chunks)
        attention = max(pairs * self.attend_seconds, reads * self.read_seconds)
        if rows:
            attention += self.work.seen(rows, context)[0] * self.decode_seconds
        return self._others(rows + tokens, rows + sampled, rows + len(chunks)) + attention

    def _others(self, tokens: int, sampled: int, sequences: int) -> float:
        """Seconds of a step without its attention."""
        compute = self.work.linear_flops(tokens, sampled) / self.flops
        memory = self.work.weight_bytes(tokens) / self.bandwidth
        return self.fixed + self.hardware.sequence_overhead * sequences + max(compute, memory) + self.transfer(tokens)

    def transfer(self, tokens: int) -> float:
        """Seconds of the all-reduces of tensor parallelism and of the hops between pipeline stages."""
        if self.tensor_parallel == self.pipeline_parallel == 1:
            return 0.0
        hardware, shards = self.hardware, self.tensor_parallel
        bandwidth = (hardware.interconnect or hardware.host_bandwidth) * hardware.interconnect_efficiency
        payload = tokens * self.work.activation_bytes
        ring = hardware.interconnect_latency + 2 * (shards - 1) / shards * payload / bandwidth
        reduces = 2 * self.model.layers * ring if shards > 1 else 0.0
        # Stages of one replica stand in other nodes once a node is full; what is between nodes is no faster than PCIe.
        across = shards * self.pipeline_parallel > hardware.node_devices
        hop_bandwidth = min(bandwidth, hardware.host_bandwidth) if across else bandwidth
        return reduces + (self.pipeline_parallel - 1) * (hardware.interconnect_latency + payload / hop_bandwidth)
