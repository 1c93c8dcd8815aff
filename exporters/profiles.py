"""TensorRT settings that are written into a bundle: shape profiles, caches, and engines that are refitted."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.profiles.manifest import TensorEntry

ROWS = 16  # one query's candidates decode together
PROMPTS = 4  # prefilled together

OPTIONS = {
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
    "trt_builder_optimization_level": "3",
}
REFIT_OPTIONS = {"trt_weight_stripped_engine_enable": "1"}
EP_CONTEXT_OPTIONS = {"trt_dump_ep_context_model": "1", "trt_ep_context_embed_mode": "0"}


def shape_profiles(inputs: Sequence[TensorEntry], cache_length: int) -> dict[str, str]:
    """ONNX Runtime's `trt_profile_{min,opt,max}_shapes`: a profile for decoding, then one for prefill."""
    longest = max(2, cache_length)
    sizes = {
        "min": ((1, 1), (1, 2)),
        "opt": ((ROWS, 1), (1, max(2, longest // 4))),
        "max": ((ROWS, 1), (PROMPTS, longest)),
    }
    return {
        f"trt_profile_{bound}_shapes": ",".join(
            f"{entry.name}:{_shape(entry, batch, sequence)}" for batch, sequence in calls for entry in inputs
        )
        for bound, calls in sizes.items()
    }


def _shape(entry: TensorEntry, batch: int, sequence: int) -> str:
    known = {"batch": batch, "sequence": sequence, "picks": 1}
    return "x".join(str(known[size] if isinstance(size, str) else size) for size in entry.shape)
