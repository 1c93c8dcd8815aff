"""Where TensorRT's engines are kept: named by all that they depend on, found again, never mistaken for others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.profiles.errors import BundleError, MachineError
from octavo.profiles.manifest import GraphEntry, Manifest, read_manifest
from octavo.runtime.ort import engines
from octavo.runtime.ort.build import build_engines, check_tensorrt, for_tensorrt
from octavo.runtime.ort.engines import CONTEXT, ahead, find_engines, make_room
from octavo.runtime.ort.providers import CPU, CUDA, TENSORRT, Probe, probe
from octavo.runtime.ort.session import Device, providers

CACHED = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}


@pytest.fixture
def manifest(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Manifest:
    """The bundle's manifest, its graphs as if they were drawn for TensorRT."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = read_manifest(bundle)
    settings = {
        "lowering": "tensorrt",
        "trt_profiles": {"trt_profile_min_shapes": "input_ids:1x1"},
        "trt_options": CACHED,
        "trt_context_options": CACHED | {"trt_dump_ep_context_model": "1"},
        "trt_refit_options": CACHED | {"trt_weight_stripped_engine_enable": "1"},
    }
    return manifest.model_copy(update={"graphs": [g.model_copy(update=settings) for g in manifest.graphs]})


def graph_of(manifest: Manifest) -> GraphEntry:
    return manifest.graphs[0]


def folder(manifest: Manifest, graph: GraphEntry, expert: int = 0, device: int = 0, *, stripped: bool = False) -> Path:
    return ahead(manifest, graph, manifest.experts[expert].weights[0], device, stripped=stripped).folder


def test_an_engines_folder_is_named_by_graph_weights_settings_and_machine(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(manifest)
    first = folder(manifest, graph)
    assert folder(manifest, graph) == first
    redrawn = graph.model_copy(update={"sha256": "1" * 64})
    wider = graph.model_copy(update={"trt_profiles": {"trt_profile_min_shapes": "input_ids:2x1"}})
    others = [folder(manifest, graph, 1), folder(manifest, redrawn), folder(manifest, wider)]
    others += [folder(manifest, graph, stripped=True), folder(manifest, graph, 1, stripped=True)]
    for name, found in (("device_name", "NVIDIA H200 sm90"), ("tensorrt_version", "10.14.1")):
        monkeypatch.setattr(engines, name, lambda *_, found=found: found)
        others.append(folder(manifest, graph))
    assert len({first, *others}) == 1 + len(others)


def test_what_was_built_ahead_is_used_whole_before_stripped_before_none(manifest: Manifest) -> None:
    graph, weights = graph_of(manifest), manifest.experts[0].weights[0]
    plain = find_engines(manifest, graph, weights, 0)
    assert (plain.model, plain.options["trt_engine_cache_path"]) == (None, str(plain.folder))
    assert "trt_weight_stripped_engine_enable" not in plain.options
    stripped = ahead(manifest, graph, weights, 0, stripped=True)
    make_room(stripped)
    (stripped.folder / "graph_sm90.stripped.engine").touch()
    assert find_engines(manifest, graph, weights, 0) == stripped
    whole = ahead(manifest, graph, weights, 0, stripped=False)
    make_room(whole)
    (whole.folder / CONTEXT).touch()
    found = find_engines(manifest, graph, weights, 0)
    assert found.model == whole.folder / CONTEXT
    assert "trt_dump_ep_context_model" not in found.options
    assert find_engines(manifest, graph, manifest.experts[1].weights[0], 0).model is None


def test_an_engine_lies_beside_its_context_model_and_timings_are_shared(manifest: Manifest) -> None:
    """ONNX Runtime refuses a context model whose engine lies anywhere else."""
    graph = graph_of(manifest)
    first, second = (ahead(manifest, graph, expert.weights[0], 0, stripped=False) for expert in manifest.experts[:2])
    assert first.options["trt_ep_context_file_path"] == str(first.folder / CONTEXT)
    assert first.options["trt_engine_cache_path"] == ""
    assert first.options["trt_timing_cache_path"] == second.options["trt_timing_cache_path"]
    (trt, options), *others = providers(TENSORRT, Device("tensorrt", 1), first)
    assert (trt, options["device_id"]) == (TENSORRT, "1")
    assert [other if isinstance(other, str) else other[0] for other in others] == [CUDA, CPU]
    assert first.folder.is_dir()
    assert Path(options["trt_timing_cache_path"]).is_dir()


def test_every_model_has_one_engine(manifest: Manifest, bundle: Path) -> None:
    assert [name for name, _ in for_tensorrt(manifest)] == [*(e.name for e in manifest.experts), "value"]
    assert not list(for_tensorrt(read_manifest(bundle)))
    with pytest.raises(BundleError, match="no graph is for TensorRT; export with --target tensorrt"):
        list(build_engines(bundle, read_manifest(bundle)))


def test_without_tensorrt_it_is_said_what_is_missing() -> None:
    with pytest.raises(MachineError, match=r"--build-engines: .*libnvinfer"):
        check_tensorrt(lambda provider: Probe(provider, False, "libnvinfer.so.10: cannot open"))
    if not probe(TENSORRT).works:
        with pytest.raises(MachineError, match=r"NVIDIA driver|CUDA 13|TensorRT 10|built without it"):
            check_tensorrt()


LIBRARIES = {
    "libnvinfer.so.10": "int getInferLibVersion() { return 101401; }",
    "libcuda.so.1": """
        #include <string.h>
        int cuInit(unsigned flags) { return flags; }
        int cuDeviceGet(int *device, int index) { *device = 7 + index; return index > 1; }
        int cuDeviceGetName(char *name, int length, int device) { strcpy(name, "Stub"); return device != 8; }
        int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute - 70; return device != 8; }
    """,
}


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc")
def test_driver_and_library_are_asked_in_their_own_calling_conventions(tmp_path: Path) -> None:
    for name, source in LIBRARIES.items():
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{name}", "-o", str(tmp_path / name)]
        subprocess.run(command, input=source.encode(), check=True)
    code = "from octavo.runtime.ort.gpu import *; print(device_name(1), device_name(2), tensorrt_version(), sep='|')"
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == "Stub sm56|None|10.14.1"
