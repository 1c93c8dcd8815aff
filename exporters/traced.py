"""The `optimum` route: a graph that Optimum traced, fitted with the inputs and outputs of the `ort` contract.

The traced graph appends each call's keys to its past. Here what the rows hold is handed to it as the past, each row's
moved to the end and the rest masked, as transformers pads a batch on the left: so places in it are as far apart as
positions are, which ALiBi and sliding windows go by. The call's new keys are then taken from the end of what it returns
and written to their place in the cache. Slower than the native graphs, and the same to whoever runs it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Checkpoint, Tensor
from octavo.exporters.families import LONGEST
from octavo.exporters.graph import Graph
from octavo.exporters.net import Net
from octavo.exporters.outputs import FLOAT, PICKS, Outputs
from octavo.exporters.settings import Settings
from octavo.exporters.spec import Head
from octavo.exporters.tracing import GENERATION, positions, take_over, trace, traceable, traced_tensors
from octavo.exporters.value import SCORE
from octavo.profiles.errors import BundleError
from octavo.profiles.manifest import KVLayout

PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)$")
KNOWN = {"input_ids", "attention_mask", "position_ids"}


def traced_graph(name: str, checkpoint: Checkpoint, settings: Settings, scratch: Path) -> tuple[Graph, Checkpoint]:
    """A model's graph by Optimum, in the `ort` contract, and its initializers as a checkpoint.

    Raises BundleError for what Optimum cannot export, and for a precision or target that this route does not have.
    """
    where = checkpoint.folder
    if settings.precision != "fp32" or settings.lowerings != ["ort"] or settings.outputs != Outputs():
        raise BundleError(f"{where}: the optimum route exports all logits in fp32, for the targets cpu and cuda")
    if checkpoint.base is not None or not traceable(checkpoint.model_type):
        raise BundleError(f"{where}: Optimum cannot trace {checkpoint.model_type!r} models with a cache")
    model = trace(checkpoint, GENERATION, scratch)
    tensors: dict[str, Tensor] = dict(traced_tensors(model, where / "config.json"))
    net, kv = Fitting(model, checkpoint, _context(checkpoint, settings)).fit()
    graph = Graph(name, "ort", "fp32", "logits", _vocabulary(net), net, kv, route="optimum")
    return graph, replace(checkpoint, tensors=tensors)


def traced_score(name: str, classifier: Checkpoint, settings: Settings, scratch: Path) -> tuple[Graph, Checkpoint]:
    """The same of a decoder with a score head, always in fp32."""
    where = classifier.folder
    model = trace(classifier, GENERATION, scratch, classifier.read(SCORE))
    tensors: dict[str, Tensor] = dict(traced_tensors(model, where / "config.json"))
    net, kv = Fitting(model, classifier, _context(classifier, settings), "score").fit()
    vocabulary = int(classifier.config.get("vocab_size", 1))
    graph = Graph(name, "ort", "fp32", "score", vocabulary, net, kv, route="optimum")
    return graph, replace(classifier, tensors=tensors)


def _context(checkpoint: Checkpoint, settings: Settings) -> int:
    """Tokens that the model's positions reach to."""
    return min(positions(checkpoint.config) or LONGEST, settings.max_length or LONGEST)


def _vocabulary(net: Net) -> int:
    assert net.outputs[0].shape is not None
    return int(net.outputs[0].shape[2])


class Fitting:
    """A traced graph being fitted: cache and positions before it, new keys and picked logits after it."""

    def __init__(self, model: ir.Model, checkpoint: Checkpoint, max_length: int, head: Head = "logits"):
        self.graph = model.graph
        self.net = Net("decoder", model.opset_imports[""])
        self.max_length = max_length
        self.head = head
        self.inputs = {str(value.name): value for value in model.graph.inputs}
        self.pasts = [value for name, value in self.inputs.items() if PAST.match(name)]
        self.where = str(checkpoint.folder)
        strange = [name for name in self.inputs if name not in KNOWN and not PAST.match(name)]
        if strange or not self.pasts or any(len(past.shape or ()) != 4 for past in self.pasts):
            raise BundleError(
                f"{self.where}: Optimum's graph has inputs that are not understood: {strange or 'its cache'}"
            )

        if len({str(past.shape) for past in self.pasts}) > 1:
            raise BundleError(f"{self.where}: its layers, or its keys and values, are of different sizes in the cache")

    def fit(self) -> tuple[Net, KVLayout]:
        """Draw everything; the cache's layout is the past's."""
        self._call_inputs()
        caches = [self.net.input(str(past.name), FLOAT, self._cache(past)) for past in self.pasts]
        self._replace({"input_ids": self.ids, "attention_mask": self._mask(), "position_ids": self.positions})
        self._replace({str(past.name): self._past(cache) for past, cache in zip(self.pasts, caches, strict=True)})
        outputs = {str(value.name): value for value in self.graph.outputs}
        take_over(self.graph, self.net)
        every = outputs["logits"]
        assert every.shape is not None
        picked = self.net.op("GatherND", every, self.picks, batch_dims=1)
        every.name = "all_logits"
        if self.head == "logits":
            self.net.output(picked, "logits", FLOAT, [*PICKS, int(every.shape[2])])
        else:
            score = self.net.op("Squeeze", picked, self.net.constant([2], "axis"))
            self.net.output(score, "score_logit", FLOAT, PICKS)
        for past, cache in zip(self.pasts, caches, strict=True):
            self._present(outputs[str(past.name).replace("past_key_values", "present")], cache)
        _, heads, _, size = self._cache(self.pasts[0])
        return self.net, KVLayout(
            layers=len(self.pasts) // 2,
            kv_heads=int(heads),
            head_dim=int(size),
            dtype="float32",
            shared_buffer=True,
            max_length=self.max_length,
        )

    def _call_inputs(self) -> None:
        """The contract's inputs, and from them how much each row holds, the longest too, and where new tokens go."""
        net, integer = self.net, ir.DataType.INT64
        self.ids = net.input("input_ids", integer, ["batch", "sequence"])
        lengths = net.op("Cast", net.input("lengths", ir.DataType.INT32, ["batch"]), to=integer)
        total = net.op("Cast", net.input("total_length", ir.DataType.INT32, [1]), to=integer)
        positions = net.input("logit_positions", integer, ["batch", "picks"])
        self.picks = net.op("Unsqueeze", positions, net.constant([2], "axis"))
        width = net.op("Shape", self.ids, start=1, end=2)
        self.longest = net.op("Sub", total, width)
        before = net.op("Sub", lengths, width)
        held = net.op("Where", net.op("Equal", total, width), net.op("Sub", before, before), before)
        self.held = net.op("Unsqueeze", held, net.constant([1], "axis"))
        steps = net.op("Range", net.constant(0, "zero"), net.op("Squeeze", width), net.constant(1, "one"))
        self.positions = net.op("Add", self.held, steps)
        places = net.op("Range", net.constant(0, "zero"), net.op("Squeeze", self.longest), net.constant(1, "one"))
        self.origins = net.op("Sub", places, net.op("Sub", self.longest, self.held))  # in the cache; below 0: masked
        self.moved: ir.Value | None = None

    def _past(self, cache: ir.Value) -> ir.Value:
        """What the rows hold, each row's at the end: [batch, heads, longest, size]."""
        net = self.net
        if self.moved is None:
            heads = net.constant([1, int(self._cache(self.pasts[0])[1]), 1, 1], "every_head")
            zero = net.constant(0, "zero")
            found = net.op("Unsqueeze", net.op("Max", self.origins, zero), net.constant([1, 3], "axes"))
            self.moved = net.op("Expand", found, heads)
        return net.op("GatherND", cache, self.moved, batch_dims=2)

    def _mask(self) -> ir.Value:
        """[batch, longest + sequence]: one for what is held and for the call's own tokens."""
        net = self.net
        old = net.op("Cast", net.op("GreaterOrEqual", self.origins, net.constant(0, "zero")), to=ir.DataType.INT64)
        new = net.op("Cast", net.op("GreaterOrEqual", self.positions, self.held), to=ir.DataType.INT64)
        return net.op("Concat", old, new, axis=1)

    def _present(self, grown: ir.Value, cache: ir.Value) -> None:
        """Write the new keys or values, the last of `grown`, to their place in the cache."""
        net, name = self.net, str(grown.name)
        grown.name = f"{name}.grown"
        end = net.constant([np.iinfo(np.int64).max], "end")
        new = net.op("Slice", grown, self.longest, end, net.constant([2], "axis"))
        places = net.op("Unsqueeze", self.positions, net.constant([1, 3], "axes"))
        target = net.op("Expand", places, net.op("Shape", new))
        present = net.op("ScatterElements", cache, target, new, axis=2)
        assert cache.shape is not None
        net.output(present, name, FLOAT, self._cache(cache))

    def _cache(self, past: ir.Value) -> list[int | str]:
        assert past.shape is not None
        heads, size = past.shape[1], past.shape[3]
        if not isinstance(heads, int) or not isinstance(size, int):
            raise BundleError(f"{self.where}: Optimum's graph does not say how many heads its cache has")
        return ["batch", heads, "cache_length", size]

    def _replace(self, values: dict[str, ir.Value]) -> None:
        for name, value in values.items():
            if name in self.inputs:
                ir.convenience.replace_all_uses_with(self.inputs[name], value)
