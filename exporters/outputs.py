"""What a graph gives besides its cache: logits or the largest of them, a score, the last hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from octavo.exporters.linear import Dense, Linear, Matrix
from octavo.exporters.net import Net
from octavo.exporters.spec import Decoder
from octavo.profiles.errors import ConfigError

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
VALUE_HEAD = "value_head"
PICKS: list[int | str] = ["batch", "picks"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """All logits, or the `top_k` largest with the logsumexp of all.

    With `hidden`, the last hidden state as well; with `judged`, the logit of a value head that reads it.
    """

    top_k: int | None = None
    hidden: bool = False
    judged: bool = False


class Head:
    """Draws the outputs from the final norm's hidden state, [batch, picks, hidden_size]."""

    def __init__(self, net: Net, decoder: Decoder, linear: Linear, dtype: ir.DataType, outputs: Outputs):
        self.net = net
        self.decoder = decoder
        self.linear = linear
        self.dtype = dtype
        self.outputs = outputs

    def draw(self, hidden: ir.Value, table: ir.Value) -> None:
        """`table` is the embedding [vocab_size, hidden_size], which a tied head multiplies by."""
        if self.decoder.head == "score":
            self.score(hidden, "score")
        elif self.outputs.top_k:
            self.largest(self.logits(hidden, table), self.outputs.top_k)
        else:
            self.net.output(self.logits(hidden, table), "logits", FLOAT, [*PICKS, self.decoder.vocab_size])
        if self.outputs.judged and self.decoder.head == "logits":
            self.score(hidden, VALUE_HEAD)
        if self.outputs.hidden:
            self.net.output(self.net.op("Cast", hidden, to=FLOAT), "hidden", FLOAT, [*PICKS, self.decoder.hidden_size])

    def score(self, hidden: ir.Value, name: str) -> None:
        matrix = Matrix(name, (name,), self.decoder.hidden_size, 1)
        logit = self.float32(Dense(self.dtype)(self.net, hidden, matrix))
        self.net.output(self.net.op("Squeeze", logit, self.net.constant([2], "axis")), "score_logit", FLOAT, PICKS)

    def logits(self, hidden: ir.Value, table: ir.Value) -> ir.Value:
        shared = self.decoder.tied and self.linear.shares_table
        logits = self.float32(self.tied(hidden, table) if shared else self.untied(hidden))
        if not (cap := self.decoder.logit_cap):
            return logits
        factor = self.net.constant(cap, "logit_cap")
        return self.net.op("Mul", self.net.op("Tanh", self.net.op("Div", logits, factor)), factor)

    def untied(self, hidden: ir.Value) -> ir.Value:
        source = "model.embed_tokens" if self.decoder.tied else "lm_head"
        matrix = Matrix("lm_head", (source,), self.decoder.hidden_size, self.decoder.vocab_size)
        return self.linear(self.net, hidden, matrix)

    def tied(self, hidden: ir.Value, table: ir.Value) -> ir.Value:
        """The table is stored once, as the embedding has it, and read transposed."""
        rows = self.net.op("Reshape", hidden, self.net.constant([-1, self.decoder.hidden_size], "rows"))
        flat = self.net.op("Gemm", rows, table, transB=1)
        shape = self.net.op("Concat", self.net.op("Shape", hidden, end=2), self.net.constant([-1], "rest"), axis=0)
        return self.net.op("Reshape", flat, shape)

    def largest(self, logits: ir.Value, k: int) -> None:
        if k > self.decoder.vocab_size:
            raise ConfigError(f"top_k: {k}, of a vocabulary of {self.decoder.vocab_size} tokens")
        values, ids = self.net.ops("TopK", logits, self.net.constant([k], "k"), outputs=2, axis=-1)
        total = self.net.op("ReduceLogSumExp", logits, self.net.constant([2], "axis"), keepdims=0)
        self.net.output(values, "top_values", FLOAT, [*PICKS, k])
        self.net.output(ids, "top_ids", INT64, [*PICKS, k])
        self.net.output(total, "logsumexp", FLOAT, PICKS)

    def float32(self, x: ir.Value) -> ir.Value:
        return x if self.dtype == FLOAT else self.net.op("Cast", x, to=FLOAT)
