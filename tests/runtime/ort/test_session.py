"""How a model is opened on each provider, and where TensorRT keeps its engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.profiles.manifest import read_manifest
from octavo.runtime.ort.prefill import batches
from octavo.runtime.ort.providers import CPU, CUDA, TENSORRT
from octavo.runtime.ort.session import Device, Model, engines, providers


def test_each_models_engines_have_a_folder_named_by_what_they_are_built_from(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = read_manifest(bundle)
    first, second = (engines(manifest, expert.weights[0]) for expert in manifest.experts)
    assert first != second
    assert first == engines(manifest, manifest.experts[0].weights[0])
    (trt, options), *others = providers(TENSORRT, Device("tensorrt", 1), manifest.graphs[0], first)
    assert (trt, options["device_id"], options["trt_engine_cache_path"]) == (TENSORRT, "1", str(first))
    assert [other if isinstance(other, str) else other[0] for other in others] == [CUDA, CPU]
    assert first.is_dir()


def test_tensorrts_profiles_bound_the_rows_of_a_call(bundle: Path) -> None:
    shapes = {"trt_profile_max_shapes": "input_ids:16x1,held:16,input_ids:4x64,held:4"}
    graph = read_manifest(bundle).graphs[0].model_copy(update={"trt_profiles": shapes})
    assert Model("m", None, graph, TENSORRT, Device("tensorrt")).most == (16, 4)
    assert Model("m", None, graph, CPU, Device("cpu")).most == (None, None)


def test_whole_prompts_are_batched_by_length_and_no_more_than_fit_a_call() -> None:
    from octavo.runtime.core.scheduler import Chunk, Prompt

    chunks = [Chunk(Prompt(number, tokens, ()), 0, tokens) for number, tokens in enumerate((500, 10, 12, 480, 11, 13))]
    grouped = [[chunk.tokens for chunk in batch] for batch in batches(chunks)]
    assert grouped == [[10, 11, 12, 13], [480, 500]]
    assert [len(batch) for batch in batches(chunks, most=3)] == [3, 1, 2]
