"""What a call on each provider may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octavo.profiles.errors import BundleError, ConfigError, MachineError
from octavo.profiles.manifest import read_manifest
from octavo.runtime.local import Octavo
from octavo.runtime.ort.assignment import check_assignment
from octavo.runtime.ort.binding import Calls
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.engines import Engines
from octavo.runtime.ort.kernels import kernels_for
from octavo.runtime.ort.prefill import batches
from octavo.runtime.ort.providers import CPU, CUDA, TENSORRT
from octavo.runtime.ort.session import Device, Model, demand_one_profile, open_model, providers, runnable
from octavo.runtime.place import demand_recorder


def test_tensorrts_profiles_bound_the_rows_of_a_call(bundle: Path) -> None:
    shapes = {"trt_profile_max_shapes": "input_ids:16x64,held:16"}
    graph = read_manifest(bundle).graphs[0].model_copy(update={"trt_profiles": shapes})
    assert Model("m", None, graph, TENSORRT, Device("tensorrt")).most == 16
    assert Model("m", None, graph, CPU, Device("cpu")).most is None


def test_cuda_is_chosen_unasked_only_for_graphs_that_it_has_kernels_for(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    graph = manifest.graphs[0]
    assert graph.kv is not None
    half = graph.model_copy(update={"kv": graph.kv.model_copy(update={"dtype": "float16"})})
    traced = graph.model_copy(update={"route": "optimum"})
    assert (runnable(graph), runnable(half), runnable(traced)) == ([CPU], [CPU, CUDA], [CPU, CUDA])
    assert kernels_for("m", traced, CPU, None, prepack=False) == "its graph was traced"
    with Octavo.load(bundle) as octavo:
        assert octavo.provider == CPU
    model = open_model(bundle, manifest, "m", manifest.experts[0].weights, CPU, Device("cpu"), 1)
    read = next(bundle.glob("*/model.onnx")).read_bytes
    with pytest.raises(MachineError, match=r"do not run on CUDA.*; export it in fp16 or bf16, or allow a fallback"):
        check_assignment("m", model.session, CUDA, read)


def test_a_graph_of_several_profiles_is_refused_since_only_the_first_would_be_run(bundle: Path) -> None:
    graph = read_manifest(bundle).graphs[0]
    demand_one_profile(bundle, graph.model_copy(update={"trt_profiles": {"trt_profile_min_shapes": "input_ids:1x1"}}))
    two = {"trt_profile_min_shapes": "input_ids:1x1,held:1,input_ids:1x2,held:1"}
    with pytest.raises(BundleError, match="has several shape profiles, and one would be run; export it again"):
        demand_one_profile(bundle, graph.model_copy(update={"trt_profiles": two}))


def test_whole_prompts_are_batched_by_length_and_no_more_than_fit_a_call() -> None:
    from octavo.runtime.core.scheduler import Chunk, Prompt

    chunks = [Chunk(Prompt(number, tokens, ()), 0, tokens) for number, tokens in enumerate((500, 10, 12, 480, 11, 13))]
    grouped = [[chunk.tokens for chunk in batch] for batch in batches(chunks)]
    assert grouped == [[10, 11, 12, 13], [480, 500]]
    assert [len(batch) for batch in batches(chunks, most=3)] == [3, 1, 2]


def test_cuda_graphs_need_one_gpu(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="cuda_graphs: they need one GPU, not cpu:0"):
        Octavo.load(bundle, devices=["cpu:0"], cuda_graphs=True)
    options = dict(providers(CUDA, Device("cuda", 1), None, capture=True)[:1])[CUDA]
    assert options == {"device_id": "1", "arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": "1"}
    with pytest.raises(ConfigError, match="they need one GPU, not cuda:0, cuda:1"):
        demand_recorder(CUDA, [Device("cuda", 0), Device("cuda", 1)])
    demand_recorder(CUDA, [Device("cuda", 1)])


def test_tensorrt_records_no_calls(bundle: Path) -> None:
    """Its provider in ONNX Runtime 1.31 keeps one recorded call, whatever `gpu_graph_id` says."""
    with pytest.raises(ConfigError, match="records a single shape of call; use them with cuda"):
        demand_recorder(TENSORRT, [Device("tensorrt")])
    engines = Engines(bundle, {"trt_engine_cache_enable": "1"})
    assert dict(providers(TENSORRT, Device("tensorrt"), engines, capture=True)[:1])[TENSORRT] == {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
    }


def test_a_recorded_call_computes_what_a_bound_one_does(bundle: Path) -> None:
    """It is told the cache's length as its total, whatever the rows hold, and its results are read from the device."""
    manifest = read_manifest(bundle)
    found = []
    for captures in (False, True):
        model = open_model(bundle, manifest, "m", manifest.experts[0].weights, CPU, Device("cpu"), 1)
        calls = Calls(replace(model, captures=captures), Cache(model.kv, 2, 48, Device("cpu")))
        calls.prefill(0, np.arange(10, 22).reshape(2, 6), np.array([6, 4], np.int32), np.zeros(2, np.int64))
        steps = []
        for step in range(3):
            calls.ids[:, 0], calls.lengths[:] = (30 + step, 40 + step), (7 + step, 5 + step)
            steps.append(next(iter(calls.decode(2).values())).copy())
        found.append(np.stack(steps))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0][0], found[0][1])
