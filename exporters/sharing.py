"""Weights that all experts have byte for byte in common, found without holding more than two tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from octavo.exporters.checkpoint import Checkpoint
from octavo.exporters.weights import Weight

SMALLEST = 64 * 1024  # bytes; below this a weight is not worth a second file


def shared_weights(weights: Iterable[Weight], checkpoints: Sequence[Checkpoint]) -> set[str]:
    """Names of the weights that are equal in all checkpoints; none when there is one checkpoint."""
    if len(checkpoints) < 2:
        return set()
    large = [weight for weight in weights if weight.sources and weight.bytes >= SMALLEST]
    return {weight.name for weight in large if all(_equal(source, checkpoints) for source in weight.sources)}


def _equal(source: str, checkpoints: Sequence[Checkpoint]) -> bool:
    first, *others = (checkpoint.tensors[source] for checkpoint in checkpoints)
    if any((other.dtype, other.shape) != (first.dtype, first.shape) for other in others):
        return False
    if any(other.head() != first.head() for other in others):
        return False
    content = first.read().tobytes()
    return all(other.read().tobytes() == content for other in others)
