"""What a call on each provider may hold."""

from __future__ import annotations

from pathlib import Path

from octavo.profiles.manifest import read_manifest
from octavo.runtime.ort.prefill import batches
from octavo.runtime.ort.providers import CPU, TENSORRT
from octavo.runtime.ort.session import Device, Model


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
