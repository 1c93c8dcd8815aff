"""Times exports of random models against Optimum's command line, interleaved, each in a process of its own.

    python tests/bench/export.py --experts 8 --size 125m --rounds 3

Prints a Markdown table: seconds of wall time and of CPU (the least of the rounds) and peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SIZES = {
    "6m": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2},
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4},
    "500m": {"hidden_size": 1280, "num_hidden_layers": 20, "num_attention_heads": 20, "num_key_value_heads": 4},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 4},
    "2b": {"hidden_size": 2560, "num_hidden_layers": 24, "num_attention_heads": 20, "num_key_value_heads": 4},
}
EXPORT = """
import sys
from pathlib import Path
from octavo.exporters.export import export_bundle
*experts, out, verify, precision = sys.argv[1:]
export_bundle(list(map(Path, experts)), Path(out), verify=verify == "True", precision=precision)
"""
MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = time.perf_counter() - start
print(json.dumps({"code": code, "wall": seconds, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss * 1024}))
"""


def make_checkpoint(folder: Path, size: str, seed: int) -> int:
    """Write a random bfloat16 Llama without ever holding it whole; returns its parameters."""
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    shape = SIZES[size]
    vocabulary, inner = (4096, 688) if size == "6m" else (32000, shape["hidden_size"] * 8 // 3 // 16 * 16)
    config = shape | {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "intermediate_size": inner,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "bfloat16",
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    random = np.random.default_rng(seed)
    hidden, narrow = (
        shape["hidden_size"],
        shape["hidden_size"] // shape["num_attention_heads"] * shape["num_key_value_heads"],
    )

    def matrix(*dims: int) -> np.ndarray:
        return (random.standard_normal(dims, np.float32) * 0.02).astype(ml_dtypes.bfloat16)

    names: dict[str, str] = {}
    total = 0

    def shard(name: str, tensors: dict[str, np.ndarray]) -> None:
        nonlocal total
        save_file(tensors, folder / name, metadata={"format": "pt"})
        names.update(dict.fromkeys(tensors, name))
        total += sum(tensor.size for tensor in tensors.values())

    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        attention = {"q": (hidden, hidden), "k": (narrow, hidden), "v": (narrow, hidden), "o": (hidden, hidden)}
        feed = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        tensors = {f"{prefix}.self_attn.{part}_proj.weight": matrix(*dims) for part, dims in attention.items()}
        tensors |= {f"{prefix}.mlp.{part}_proj.weight": matrix(*dims) for part, dims in feed.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        tensors |= {f"{prefix}.{norm}.weight": np.ones(hidden, ml_dtypes.bfloat16) for norm in norms}
        shard(f"model-{layer:05}.safetensors", tensors)
    ends = {name: matrix(vocabulary, hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    shard("model-ends.safetensors", ends | {"model.norm.weight": np.ones(hidden, ml_dtypes.bfloat16)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return total


def measured(command: list[str]) -> dict[str, float]:
    """Run a command in a process of its own; seconds and bytes of it and its children."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, env=environment, check=True
    )
    figures: dict[str, float] = json.loads(run.stdout)
    if figures["code"]:
        raise SystemExit(run.stderr)
    return figures


def genai(python: str, folder: Path, out: Path, precision: str) -> list[str]:
    """onnxruntime-genai's model builder, which needs an environment of its own."""
    builder = [python, "-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", str(out), "-e", "cpu"]
    return [*builder, "-p", precision, "-c", str(out.with_name("cache"))]


def candidates(folders: list[Path], out: Path, precision: str, optimum: bool) -> dict[str, Callable[[], list[str]]]:
    def ours(experts: list[Path], verify: bool) -> Callable[[], list[str]]:
        return lambda: [sys.executable, "-c", EXPORT, *map(str, experts), str(out), str(verify), precision]

    task = ["--task", "text-generation-with-past"]
    cli = [
        str(Path(sys.executable).with_name("optimum-cli")),
        "export",
        "onnx",
        "--model",
        str(folders[0]),
        *task,
        str(out),
    ]
    found: dict[str, Callable[[], list[str]]] = {
        "octavo, 1 expert": ours(folders[:1], False),
        f"octavo, {len(folders)} experts": ours(folders, False),
        "octavo, 1 expert, parity checked": ours(folders[:1], True),
        f"octavo, {len(folders)} experts, parity checked": ours(folders, True),
    }
    return found | ({"optimum-cli, 1 expert": lambda: cli} if optimum else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--size", choices=SIZES, default="125m")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-optimum", action="store_true")
    parser.add_argument("--no-parity", action="store_true")
    parser.add_argument("--genai-python", help="a Python that has onnxruntime-genai, torch and transformers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octavo-bench-") as name:
        folder = Path(name)
        experts = [folder / f"expert-{index}" for index in range(arguments.experts)]
        sizes = [make_checkpoint(path, arguments.size, seed) for seed, path in enumerate(experts)]
        found = candidates(experts, folder / "out", arguments.precision, not arguments.no_optimum)
        if arguments.genai_python:
            command = genai(arguments.genai_python, experts[0], folder / "out", arguments.precision)
            found["onnxruntime-genai, 1 expert"] = lambda: command
        chosen = {name: make for name, make in found.items() if not (arguments.no_parity and "parity" in name)}
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
        for _ in range(arguments.rounds):
            for name, make in chosen.items():
                rounds[name].append(measured(make()))
                shutil.rmtree(folder / "out")
                time.sleep(0.5)
    print(
        f"{arguments.experts} x {sizes[0] / 1e6:.0f}M parameters, {arguments.precision}, least of {arguments.rounds}\n"
    )
    print("| export | wall s | CPU s | peak memory MB |\n|---|---|---|---|")
    for name, runs in rounds.items():
        least = {key: min(run[key] for run in runs) for key in ("wall", "cpu", "rss")}
        print(f"| {name} | {least['wall']:.1f} | {least['cpu']:.1f} | {least['rss'] / 1e6:.0f} |")


if __name__ == "__main__":
    main()
