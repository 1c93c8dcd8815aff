"""Which provider is chosen, and that nothing falls back in silence."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime.ort.identity import identity_model
from octavo.runtime.ort.providers import CPU, CUDA, TENSORRT, Probe, check_session, choose_provider, probe_providers


def fake(*working: str):  # type: ignore[no-untyped-def]
    return lambda provider: Probe(provider, provider in working, "libcuda.so.1: not found")


def test_the_fastest_provider_that_works_and_is_targeted_is_chosen() -> None:
    assert choose_provider([CPU, CUDA], try_provider=fake(CPU, CUDA, TENSORRT)).provider == CUDA
    assert choose_provider([CPU, CUDA, TENSORRT], try_provider=fake(CPU, TENSORRT)).provider == TENSORRT
    assert choose_provider([CPU, CUDA], try_provider=fake(CPU)).provider == CPU


def test_what_was_asked_for_is_had_or_refused_and_a_permitted_fallback_is_recorded() -> None:
    with pytest.raises(MachineError, match="cuda does not work here: libcuda"):
        choose_provider([CPU, CUDA], "cuda", try_provider=fake(CPU))
    choice = choose_provider([CPU, CUDA], "cuda", allow_fallback=True, try_provider=fake(CPU))
    assert choice.provider == CPU
    assert choice.fallback is not None
    assert "libcuda" in choice.fallback


def test_a_name_that_is_none_and_a_graph_that_is_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="'gpu' is none of tensorrt, cuda, cpu"):
        choose_provider([CPU], "gpu")
    with pytest.raises(ConfigError, match="no graph for tensorrt, only for cpu"):
        choose_provider([CPU], "tensorrt")
    with pytest.raises(MachineError, match="tensorrt does not work here"):
        choose_provider([TENSORRT], try_provider=fake(CPU))


def test_every_built_in_provider_is_really_tried() -> None:
    found = {probe.provider: probe for probe in probe_providers()}
    assert set(found) == set(ort.get_available_providers())
    assert found[CPU].works
    assert all(probe.detail for probe in found.values())


def test_a_session_on_another_provider_is_an_error() -> None:
    session = ort.InferenceSession(identity_model(1), providers=[CPU])
    check_session(session, CPU, "m")
    with pytest.raises(MachineError, match="opened for CUDAExecutionProvider, but ONNX Runtime runs it on CPU"):
        check_session(session, CUDA, "m")


def test_the_identity_model_copies_and_is_valid_onnx() -> None:
    model = identity_model(3, 1, (2, 200))
    session = ort.InferenceSession(model, providers=[CPU])
    feeds = {f"x{i}": np.full((2, 200), i, np.float32) for i in range(3)}
    assert [output[0, 0] for output in session.run(None, feeds)] == [0, 1, 2]
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
