"""What libraries complain of is said in words, with what helps; the complaints are ONNX Runtime's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime.ort.providers import CUDA, TENSORRT, probe
from octavo.runtime.trouble import explain, said, told

LOADER = "Failed to load library /x/libonnxruntime_providers_{}.so with error: {}"
GONE = "{}: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (LOADER.format("cuda", GONE.format("libcublasLt.so.13")), "CUDA 13 and cuDNN 9"),
        (LOADER.format("cuda", GONE.format("libcudart.so.13")), "CUDA 13 and cuDNN 9"),
        (LOADER.format("cuda", GONE.format("libcuda.so.1")), "no NVIDIA driver"),
        (LOADER.format("tensorrt", GONE.format("libcudnn.so.9")), "cuDNN 9"),
        (LOADER.format("tensorrt", GONE.format("libnvinfer.so.10")), "needs TensorRT 10"),
        (LOADER.format("tensorrt", GONE.format("libnvonnxparser.so.10")), "needs TensorRT 10"),
        (
            LOADER.format("cuda", "/x/p.so: undefined symbol: cudaMallocHost, version libcudart.so.13"),
            "another release",
        ),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1", "driver is too old"),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "sees no GPU"),
        ("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);", "no memory: lower max_rows"),
        ("AllocateRawInternal(...) Failed to allocate memory for requested buffer of size 274877906944", "274.88 GB"),
        ("Available memory of 12 is smaller than requested bytes of 4000000000", "4.00 GB more"),
    ],
)
def test_a_known_complaint_has_a_meaning(text: str, meaning: str) -> None:
    assert meaning in (explain(text) or "")
    assert meaning in said(text)


def test_what_is_not_known_is_quoted_in_one_line() -> None:
    assert explain("Some other thing") is None
    assert said(RuntimeError("\n  first\nsecond")) == "first"
    assert said(ValueError()) == "ValueError"


def test_another_tensorrt_than_the_one_needed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "tensorrt_cu13-11.4.0.106.dist-info"
    wheel.mkdir()
    (wheel / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt-cu13\nVersion: 11.4.0.106\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    meaning = explain(GONE.format("libnvinfer.so.10"))
    assert meaning is not None
    assert "needs TensorRT 10" in meaning
    assert "nvinfer" in meaning or "tensorrt-cu13 11.4.0.106 is another" in meaning


def test_real_allocations_that_fail_are_explained() -> None:
    with pytest.raises(MachineError, match="the cache: there is no memory: lower max_rows"), told("the cache"):
        ort.OrtValue.ortvalue_from_shape_and_type([1 << 45], np.float32)
    onnx = pytest.importorskip("onnx")
    sizes, big = (onnx.helper.make_tensor_value_info(n, t, [None]) for n, t in (("n", 7), ("y", 1)))
    node = onnx.helper.make_node("ConstantOfShape", ["n"], ["y"])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [sizes], [big]), opset_imports=opset, ir_version=8
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(MachineError, match=r"there is no memory for 17592\.19 GB more"), told("a step"):
        ort.InferenceSession(model.SerializeToString(), options).run(None, {"n": np.array([1 << 42])})


def test_our_own_errors_and_bugs_pass_through() -> None:
    with pytest.raises(KeyError), told("a step"):
        raise KeyError("a bug")
    with pytest.raises(ConfigError, match="as it was"), told("a step"):
        raise ConfigError("as it was")


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_does_not_work_says_what_helps(provider: str) -> None:
    found = probe(provider)
    if found.works:
        pytest.skip(f"{provider} works here")
    assert any(word in found.detail for word in ("NVIDIA driver", "CUDA 13", "TensorRT 10", "built without it", "GPU"))
