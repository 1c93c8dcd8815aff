"""On a GPU: the exported graphs run on the CUDA provider, cache on the device, and compute what the CPU does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.profiles.manifest import Manifest

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver here")]


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(folder)
    return folder


def logits(bundle: Path, manifest: Manifest, provider: str, steps: int = 8) -> np.ndarray:
    """A prefill of two ragged rows, then decoding: [rows, steps, vocabulary]."""
    import onnxruntime as ort

    entry, weights = manifest.graphs[0], manifest.experts[0].weights[0]
    assert entry.kv is not None
    session = ort.InferenceSession(bundle / weights.model, providers=[provider])
    assert session.get_providers()[0] == provider
    device = "cpu" if provider == "CPUExecutionProvider" else "cuda"
    shape = (2, entry.kv.kv_heads, 64, entry.kv.head_dim)
    names = [f"{layer}.{part}" for layer in range(entry.kv.layers) for part in ("key", "value")]
    caches = {name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, entry.kv.dtype), device) for name in names}
    ids, lengths, found = np.arange(1, 15).reshape(2, 7), np.array([7, 4]), []
    for _ in range(steps):
        binding = session.io_binding()
        total = ids.shape[1] if ids.shape[1] > 1 else lengths.max()
        feeds: dict[str, Any] = {
            "input_ids": ids.astype(np.int64),
            "lengths": lengths.astype(np.int32),
            "total_length": np.array([total], np.int32),
            "logit_positions": (lengths - 1 if ids.shape[1] > 1 else lengths * 0).astype(np.int64)[:, None],
        }
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name, cache in caches.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", cache)
            binding.bind_ortvalue_output(f"present.{name}", cache)
        binding.bind_output("logits")
        session.run_with_iobinding(binding)
        found.append(binding.get_outputs()[-1].numpy()[:, 0])
        ids, lengths = np.full((2, 1), len(found)), lengths + 1
    return np.stack(found, axis=1)


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_cuda_computes_what_the_cpu_does(precision: Any, tmp_path: Path) -> None:
    from octavo.exporters.export import export_bundle

    folder = make_checkpoint(tmp_path / "model")
    manifest = export_bundle([folder], tmp_path / "bundle", targets=["cuda"], precision=precision)
    ours, theirs = (logits(tmp_path / "bundle", manifest, f"{name}ExecutionProvider") for name in ("CUDA", "CPU"))
    assert np.abs(ours - theirs).max() < {"fp16": 0.05, "int4": 0.2}[precision]
