"""Full fine-tunes that are a base plus something of low rank: found by factoring the difference, saved as adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from octavo.exporters.checkpoint import Array, Checkpoint, open_checkpoint
from octavo.exporters.lora import CONFIG_NAME, PREFIX, WEIGHTS_NAME, Adapter, open_adapter

LARGEST_RANK = 128  # beyond it, stacked adapters cost more than they save

Factors = Mapping[str, tuple[Array, Array]]


def detected(tuned: Path, name: str, base: Path, scratch: Path) -> Adapter | None:
    """A full fine-tune as an adapter of `base`, its factors written below `scratch`; None where it is not low-rank.

    Its original stays the fine-tune: parity is measured against that.
    """
    factors = find_low_rank(open_checkpoint(base), open_checkpoint(tuned))
    if not factors:
        return None
    save_adapter(factors, base, scratch / "factors")
    return replace(open_adapter(scratch / "factors", name, base), folder=tuned, whole=True)


def looks_low_rank(base: Checkpoint, tuned: Checkpoint) -> bool:
    """Whether the first matrix that was changed is of low rank and the embedding was left alone: a cheap first look."""
    if {n: t.shape for n, t in base.tensors.items()} != {n: t.shape for n, t in tuned.tensors.items()}:
        return False
    changed = [name for name, tensor in base.tensors.items() if tensor.head() != tuned.tensors[name].head()]
    if not changed or not all(name.endswith("_proj.weight") for name in changed):
        return False
    change = tuned.read(changed[0]).astype(np.float32) - base.read(changed[0]).astype(np.float32)
    return factored(change, LARGEST_RANK, 1e-4) is not None


def find_low_rank(
    base: Checkpoint, tuned: Checkpoint, *, largest_rank: int = LARGEST_RANK, tolerance: float = 1e-4
) -> Factors | None:
    """A [rank, inputs] and a B [outputs, rank] for each matrix that was changed; None when the change is not low-rank.

    `tolerance` is the part of a change's norm that may be lost. Checkpoints of different shapes give None.
    """
    if {n: t.shape for n, t in base.tensors.items()} != {n: t.shape for n, t in tuned.tensors.items()}:
        return None
    factors: dict[str, tuple[Array, Array]] = {}
    for name in base.tensors:
        change = tuned.read(name).astype(np.float32) - base.read(name).astype(np.float32)
        if not change.any():
            continue
        found = factored(change, largest_rank, tolerance) if name.endswith("_proj.weight") else None
        if found is None:
            return None
        factors[name.removesuffix(".weight")] = found
    return factors


def factored(change: Array, largest_rank: int, tolerance: float) -> tuple[Array, Array] | None:
    """A and B with B @ A equal to a matrix within the tolerance, by a randomized range finder; None beyond the rank."""
    rows, columns = change.shape
    width = min(rows, columns, largest_rank + 8)
    probe = np.random.default_rng(0).standard_normal((columns, width), dtype=np.float32)
    basis, _ = np.linalg.qr(change @ probe)
    left, sizes, right = np.linalg.svd(basis.T @ change, full_matrices=False)
    outside = float(np.linalg.norm(change - basis @ (basis.T @ change)))
    after = np.append(np.cumsum(sizes[::-1].astype(np.float64) ** 2)[::-1][1:], 0.0)  # squared, beyond each rank
    enough = np.flatnonzero(np.sqrt(after + outside**2) <= tolerance * float(np.linalg.norm(change)))
    if not len(enough) or (rank := int(enough[0]) + 1) > min(largest_rank, min(rows, columns) // 2):
        return None
    return right[:rank], (basis @ left[:, :rank]) * sizes[:rank]


def save_adapter(factors: Factors, base: Path, folder: Path) -> None:
    """Write factors as a PEFT folder that names `base`."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    tensors: dict[str, Array] = {}
    for module, (a, b) in factors.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b, np.float32)
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    ranks = {module: len(a) for module, (a, _) in factors.items()}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module in ranks}),
        "bias": "none",
    }
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
