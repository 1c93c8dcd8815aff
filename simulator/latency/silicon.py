"""Step times from measured operators: every layer's products, attention and all-reduces, one after the other.

A step is the sum of its operators, as a framework launches them from a captured graph, and what its host adds per step
and per sequence. Layers with a window attend to its tokens only; adapters are read as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

from octavo.profiles.errors import ConfigError
from octavo.profiles.model import Model
from octavo.profiles.quantity import Precision
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import Band, Line
from octavo.simulator.latency.operators import FRAMEWORKS, SYSTEMS, Operators
from octavo.simulator.latency.table import Curve
from octavo.simulator.latency.work import Work

LONG = 2048
"""Tokens of a prompt whose attention goes at the pace of full tiles."""
ROUGH = Band(0.2, 0.2)


@dataclass(frozen=True, slots=True)
class Host:
    """Seconds that a framework adds: per step, per sequence in it, and per layer whose result devices exchange."""

    step: float = 0.0
    sequence: float = 0.0
    exchange: float = 0.0


@dataclass
class Silicon:
    """A model on `tensor_parallel` x `pipeline_parallel` devices under a framework. Raises ConfigError, MachineError.

    `band` is what was seen on servers that the host's seconds were not fitted to; `tile` is how many tokens attention
    computes for a row that decodes beside a prefill (Hardware.mixed_tile).
    """

    hardware: str
    framework: str
    model: Model
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    overhead: float = 0.0
    lora_rank: int = 0
    adapters: int = 0
    host: Host = Host()
    band: Band = ROUGH
    tile: int = 1
    _bases: dict[tuple[int, int], float] = field(default_factory=dict)
    _curves: dict[int, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model, shards = self.model, self.tensor_parallel
        if model.latent:
            raise ConfigError(f"silicon: {model.name}: latent attention is not supported; use fit or roofline")
        self.operators = operators = operators_of(self.hardware, self.framework)
        heads, kv_heads = max(1, model.heads // shards), max(1, model.kv_heads // shards)
        width, dim = model.hidden, model.head_dim
        attention = (heads, kv_heads, dim, self.kv_precision)
        self._decode = operators.decode_attention(*attention)
        self._prefill = operators.prefill_attention(*attention)
        self._products = [
            self._product((heads + 2 * kv_heads) * dim, width),
            self._product(width, heads * dim, quantised=True),
        ]
        self._dense = self._blocks(model.intermediate // shards) if model.layers > model.sparse_layers else []
        self._sparse = self._experts()
        self._head = operators.product("bf16", model.vocab // shards, width)
        self._reduce = operators.all_reduce(shards) if shards > 1 else None
        exchanges = model.layers if shards > 1 else 0
        self._fixed = self.overhead + self.host.step + self.host.exchange * exchanges
        self._work = Work(model, self.precision, self.kv_precision, self.lora_rank)
        self._adapter_bytes = 2 * self._work.adapter_parameters
        self._pair = self._prefill.at(1, LONG) / (LONG**2 / 2) if self.tile > 1 else 0.0

    @property
    def label(self) -> str:
        return f"silicon of {self.model.name} {self.precision} on {self.hardware} with {self.framework}"

    def decode(self, rows: int, context: int) -> Line:
        curve = self._curves.get(rows)
        if curve is None:
            curve = self._curves[rows] = self._over_context(rows)
        line = curve.line(context)
        return Line(self._others(rows, rows, rows) + line.seconds, line.slope, line.until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens = sum(chunk.tokens for chunk in chunks)
        sampled = rows + sum(chunk.completes for chunk in chunks)
        attention = self.model.layers * self._attend(chunks)
        if rows:
            alone = self.decode(rows, context).seconds - self._others(rows, rows, rows)
            attention += max(alone, self.tile * self._work.seen(rows, context)[0] * self._pair)
        return self._others(rows + tokens, sampled, rows + len(chunks)) + attention

    def _over_context(self, rows: int) -> Curve:
        """Attention of all layers over the context of all rows; a window's layers stop growing at its border."""
        one = self._decode.over_context(rows)
        model, window = self.model, self.model.window
        if window is None:
            return Curve(one.xs, tuple(model.layers * y for y in one.ys))
        kept, border = model.layers - window.layers, float(rows * window.tokens)
        xs = sorted({*one.xs, border})
        return Curve(
            tuple(xs),
            tuple(kept * one.line(x).seconds + window.layers * one.line(min(x, border)).seconds for x in xs),
        )

    def _attend(self, chunks: Sequence[Chunk]) -> float:
        """One layer's attention of chunks: whole prompts of their length, less what was computed before them."""
        count = len(chunks)
        ends = sqrt(sum((chunk.start + chunk.tokens) ** 2 for chunk in chunks) / count)
        pairs = sum(chunk.tokens * chunk.start + chunk.tokens**2 / 2 for chunk in chunks)
        whole = self._prefill.at(count, ends) * pairs / (count * ends**2 / 2)
        return max(whole, self._prefill.at(count, sum(chunk.tokens for chunk in chunks) / count))

    def _others(self, tokens: int, sampled: int, sequences: int) -> float:
        """Seconds of a step without its attention."""
        found = self._bases.get((tokens, sampled))
        if found is None:
            found = self._bases[tokens, sampled] = self._linear(tokens) + self._at(self._head, sampled)
        return found + self._fixed + self.host.sequence * sequences

    def _linear(self, tokens: int) -> float:
        model = self.model
        each = sum(self._at(product, tokens) for product in self._products) + self._between(tokens)
        total = model.layers * each + (model.layers - model.sparse_layers) * sum(
            self._at(product, tokens) for product in self._dense
        )
        if self._sparse:
            total += model.sparse_layers * sum(self._at(product, tokens) for product in self._sparse)
        if self._adapter_bytes and self.adapters:
            total += self.operators.passing(self._adapter_bytes * min(tokens, self.adapters) / self.tensor_parallel)
        return total + (self.pipeline_parallel - 1) * self.operators.hop(2.0 * tokens * model.hidden)

    def _between(self, tokens: int) -> float:
        """What a layer does beside products and attention: two norms with their sums, the activation, all-reduces."""
        model, width = self.model, 2.0 * tokens * self.model.hidden
        gates = (3 if model.gated else 2) * 2.0 * tokens * model.intermediate / self.tensor_parallel
        passes = 2 * self.operators.passing(4 * width) + self.operators.passing(gates)
        reduces = 2 * self._at(self._reduce, int(width)) if self._reduce else 0.0
        return passes + reduces

    def _blocks(self, width: int) -> list[Curve]:
        """The products of a feed-forward block."""
        hidden = self.model.hidden
        wide = (2 if self.model.gated else 1) * width
        return [self._product(wide, hidden), self._product(hidden, width, quantised=True)]

    def _product(self, n: int, k: int, *, quantised: bool = False) -> Curve:
        scales = self.model.block_scales
        return self.operators.product(self.precision, n, k, quantised=quantised, block_scales=scales)

    def _experts(self) -> list[Curve]:
        """Of a sparse layer: its experts, the router, and the block that every token visits."""
        moe, hidden, shards = self.model.moe, self.model.hidden, self.tensor_parallel
        if moe is None:
            return []
        experts = self.operators.experts(self.precision, hidden, moe.intermediate, moe.active, moe.experts, shards)
        router = self.operators.product("bf16", moe.experts, hidden)
        shared = self._blocks(moe.shared * moe.intermediate // shards) if moe.shared else []
        return [experts, router, *shared]

    @staticmethod
    def _at(curve: Curve, x: int) -> float:
        return curve.line(x).seconds if x else 0.0


def operators_of(hardware: str, framework: str) -> Operators:
    """Raises ConfigError naming what is not known."""
    if hardware not in SYSTEMS:
        raise ConfigError(f"silicon: no operators were measured on {hardware}; there are {', '.join(sorted(SYSTEMS))}")
    if framework not in FRAMEWORKS:
        raise ConfigError(f"silicon: no framework {framework!r}; there are {', '.join(FRAMEWORKS)}")
    return Operators(SYSTEMS[hardware], framework)
