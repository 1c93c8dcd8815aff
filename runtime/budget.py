"""How much memory the KV caches may take, and what batches fit into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import psutil

from octavo.profiles.errors import ConfigError
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.ort.gpu import free_memory
from octavo.runtime.ort.session import Device, Model

BLOCK = 16  # tokens of KV that are counted as one
MOST_ROWS = 256  # of one model that several experts share
MEMORY_SHARE = 0.4  # of the free memory of the host, for all KV caches together
GPU_SHARE = 0.8  # of what is free on a GPU once the weights are there; the rest is for what calls compute
SPARE_ROW = 1  # a cache has one row more than the batch
REREAD = 16  # rows of a value model that reads words anew: the candidates of a query


def budgets(
    models: Sequence[Model], kv_bytes: int | None, free: Callable[[int], int | None] = free_memory
) -> Mapping[str, int]:
    """Bytes of KV that each model may have, by name: equal parts of `kv_bytes`, or of what is free on its device."""
    if kv_bytes is not None:
        return {model.name: kv_bytes // len(models) for model in models}
    beside = Counter(_memory(model.device) for model in models)
    room = {device: _free(device, free) for device in beside}
    return {model.name: room[where] // beside[where] for model in models for where in [_memory(model.device)]}


def _memory(device: Device) -> Device:
    """All workers on the processor share the host's memory."""
    return Device("cpu") if device.on_host else device


def _free(device: Device, free: Callable[[int], int | None]) -> int:
    on_gpu = None if device.on_host else free(device.index)
    return int(MEMORY_SHARE * psutil.virtual_memory().available if on_gpu is None else GPU_SHARE * on_gpu)


def longest(model: Model, budget: int, context: int | None) -> int:
    """Tokens of the longest sequence of a model: its own limit, `context`, and on a GPU what two rows have room for.

    A GPU's rows are allocated whole, those of the host as they are written. Raises ConfigError where nothing fits.
    """
    length = min(model.kv.max_length, context or model.kv.max_length)
    room = budget // model.kv.bytes_per_token
    if not model.device.on_host:
        if model.fixed_length and room < (1 + SPARE_ROW) * model.kv.max_length:
            raise ConfigError(f"{_too_small(model, budget)} {1 + SPARE_ROW} rows of {model.kv.max_length} tokens")
        room = room if model.fixed_length else room // (1 + SPARE_ROW)
    if room < BLOCK:
        raise ConfigError(f"{_too_small(model, budget)} {BLOCK} tokens")
    if room < length and context is not None:
        raise ConfigError(f"{_too_small(model, budget)} one sequence of {length} tokens (context), but {room}")
    return min(length, room // BLOCK * BLOCK)


def rows_within(model: Model, budget: int, length: int) -> int:
    """Rows of `length` tokens for a value model that only prefills. Raises ConfigError where not one fits."""
    rows = budget // (model.kv.bytes_per_token * length)
    if rows < 1:
        raise ConfigError(f"{_too_small(model, budget)} one sequence of {length} tokens")
    return min(rows, REREAD)


def unbounded(max_rows: int, max_step_tokens: int) -> Limits:
    """Of a batch that keeps no KV between two steps."""
    return Limits(1 << 40, BLOCK, max_rows, max(max_step_tokens, max_rows), paged=False, prefix_caching=False)


def _too_small(model: Model, budget: int) -> str:
    return f"kv_bytes: {budget} bytes for {model.name} do not hold"


def limits_of(
    model: Model,
    budget: int,
    context: int,
    *,
    experts: int,
    max_rows: int,
    max_step_tokens: int,
    prefix_tokens: int | None,
) -> Limits:
    """What the batch of one model may hold within its budget of bytes.

    A model that `experts` share has room for as many rows of each. Prefixes are kept beside the rows, on the host only.
    """
    affordable = budget // (model.kv.bytes_per_token * BLOCK)
    rows = min(max_rows * experts, MOST_ROWS) if experts > 1 else max_rows
    rows = min(rows, model.most or rows)
    if not model.device.on_host:
        length = model.kv.max_length if model.fixed_length else context
        rows = max(1, min(rows, budget // (model.kv.bytes_per_token * length) - SPARE_ROW))
    per_row = -(-context // BLOCK)
    shares = experts == 1 and model.device.on_host  # adapters give equal tokens unequal KV
    chunk = prefix_tokens if shares and affordable >= 2 * per_row else None
    blocks = min(affordable, (rows + (chunk is not None)) * per_row)
    return Limits(
        blocks,
        BLOCK,
        rows,
        max(max_step_tokens, rows),
        paged=False,
        prefix_caching=chunk is not None,
        hash_tokens=chunk or BLOCK,
    )
