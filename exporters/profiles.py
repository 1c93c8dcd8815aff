"""TensorRT settings that are written into a bundle: shape profiles, caches, and engines that are refitted."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.profiles.manifest import TensorEntry

ROWS = 16  # one query's candidates decode together

OPTIONS = {
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
    "trt_builder_optimization_level": "3",
}
REFIT_OPTIONS = {"trt_weight_stripped_engine_enable": "1"}
EP_CONTEXT_OPTIONS = {"trt_dump_ep_context_model": "1", "trt_ep_context_embed_mode": "0"}


def shape_profiles(inputs: Sequence[TensorEntry], cache_length: int) -> dict[str, str]:
    """ONNX Runtime's `trt_profile_{min,opt,max}_shapes`: one profile for all calls, best at decoding.

    Its TensorRT provider builds engines of several profiles, and then runs the first of them only
    (onnxruntime#31624): one for decodes alone would refuse every prompt.
    """
    longest = max(2, cache_length)
    calls = {"min": (1, 1), "opt": (ROWS, 1), "max": (ROWS, longest)}
    return {
        f"trt_profile_{bound}_shapes": ",".join(f"{entry.name}:{_shape(entry, *call)}" for entry in inputs)
        for bound, call in calls.items()
    }


def _shape(entry: TensorEntry, batch: int, sequence: int) -> str:
    known = {"batch": batch, "sequence": sequence, "picks": 1}
    return "x".join(str(known[size] if isinstance(size, str) else size) for size in entry.shape)
