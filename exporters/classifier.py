"""Classifiers that read a sequence as a whole, an encoder say: traced by Optimum, with one score as their output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from octavo.exporters.checkpoint import Checkpoint, Tensor, read_json
from octavo.exporters.graph import Graph
from octavo.exporters.net import Net
from octavo.exporters.outputs import FLOAT, INT64
from octavo.exporters.tracing import CLASSIFICATION, positions, take_over, trace, traced_tensors
from octavo.profiles.errors import BundleError

KNOWN = ("input_ids", "attention_mask", "token_type_ids")
BEHIND_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "ibert", "mpnet")
LONGEST = 8192  # tokens, of models that say nothing


def traced_classifier(name: str, classifier: Checkpoint, scratch: Path) -> tuple[Graph, Checkpoint]:
    """A classifier's graph and its initializers as a checkpoint. Raises BundleError for what Optimum cannot export."""
    where = classifier.folder
    model = trace(classifier, CLASSIFICATION, scratch)
    tensors: dict[str, Tensor] = dict(traced_tensors(model, where / "config.json"))
    vocabulary = int(classifier.config.get("vocab_size", 1))
    graph = Graph(name, "ort", "fp32", "score", vocabulary, _fitted(model, where), None, route="optimum")
    return graph, replace(classifier, tensors=tensors)


def _fitted(model: ir.Model, where: Path) -> Net:
    """The traced graph with our names, and the one score [batch] that its labels make."""
    net, graph = Net("classifier", model.opset_imports[""]), model.graph
    strange = [str(value.name) for value in graph.inputs if value.name not in KNOWN]
    logits = next(value for value in graph.outputs if value.name == "logits")
    if strange or logits.shape is None or logits.shape[1] not in (1, 2):
        raise BundleError(f"{where}: Optimum's graph is not understood: inputs {strange}, logits {logits.shape}")
    for value in list(graph.inputs):
        assert value.name
        ours = net.input(value.name, INT64, ["batch", "sequence"])
        ir.convenience.replace_all_uses_with(value, ours)
    labels = logits.shape[1]
    take_over(graph, net)
    logits.name = "label_logits"
    net.output(_score(net, logits, int(labels)), "score_logit", FLOAT, ["batch"])
    return net


def _score(net: Net, logits: ir.Value, labels: int) -> ir.Value:
    """The logit of one label; of two, the log-odds of label 1."""
    axis = net.constant([1], "axis")
    if labels == 1:
        return net.op("Squeeze", logits, axis)
    bad, good = net.ops("Split", logits, outputs=2, axis=1, num_outputs=2)
    return net.op("Squeeze", net.op("Sub", good, bad), axis)


def longest(checkpoint: Checkpoint) -> int:
    """Tokens that a classifier reads at most: as many as it has positions, or as its tokenizer says."""
    config = checkpoint.config
    most = positions(config) or LONGEST
    if config.get("model_type") in BEHIND_PADDING:
        most -= int(config.get("pad_token_id", 1)) + 1  # counted from behind the padding's own
    told = _tokenizer_config(checkpoint).get("model_max_length")
    return min(most, int(told) if isinstance(told, int | float) and told >= 1 else most)


def _tokenizer_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    path = checkpoint.folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def has_template(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer has a chat template."""
    return (checkpoint.folder / "chat_template.jinja").is_file() or bool(
        _tokenizer_config(checkpoint).get("chat_template")
    )
