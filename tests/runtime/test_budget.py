"""How much KV memory there is, and what batches fit: on the host, and on GPUs, which are only described here."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import GraphEntry, KVLayout
from octavo.runtime.budget import GPU_SHARE, budgets, limits_of, longest
from octavo.runtime.ort.providers import CUDA
from octavo.runtime.ort.session import Device, Model

LAYOUT = KVLayout(layers=24, kv_heads=8, head_dim=128, dtype="float16", shared_buffer=True, max_length=32768)
GB = 1 << 30


def model(name: str, device: str, lowering: str = "ort") -> Model:
    graph = GraphEntry.model_construct(name="g", lowering=lowering, kv=LAYOUT, adapters=[], trt_profiles={})
    return Model(name, None, graph, CUDA, Device.parse(device))


def limits(each: Model, budget: int, context: int, **wanted: Any) -> Any:
    return limits_of(
        each, budget, context, **{"experts": 1, "max_rows": 64, "max_step_tokens": 2048, "prefix_tokens": 64} | wanted
    )


def test_each_gpus_models_share_what_is_free_on_it() -> None:
    models = [model("a", "cuda:0"), model("b", "cuda:0"), model("c", "cuda:1")]
    found = budgets(models, None, {0: 40 * GB, 1: 10 * GB}.get)
    assert found == {
        "a": int(GPU_SHARE * 40 * GB) // 2,
        "b": int(GPU_SHARE * 40 * GB) // 2,
        "c": int(GPU_SHARE * 10 * GB),
    }
    assert budgets(models, 3 * GB) == dict.fromkeys("abc", GB)


def test_workers_on_the_processor_share_the_hosts_memory() -> None:
    one, two = (budgets([model(name, f"cpu:{i}") for i, name in enumerate(names)], None) for names in ("a", "ab"))
    assert two["a"] == two["b"] == pytest.approx(one["a"] / 2, rel=0.2)


@pytest.mark.parametrize("budget", [GB // 2, 3 * GB, 7 * GB, 40 * GB, 4000 * GB])
@pytest.mark.parametrize("context", [None, 512])
def test_what_a_gpu_allocates_stays_within_its_budget(budget: int, context: int | None) -> None:
    """A cache there has a row more than the batch, each of the whole context, and is allocated at once."""
    each = model("a", "cuda:0")
    length = longest(each, budget, context)
    found = limits(each, budget, length)
    assert (found.max_rows + 1) * length * LAYOUT.bytes_per_token <= budget
    assert found.max_rows >= 1
    assert found.kv_blocks * 16 >= length
    assert not found.prefix_caching


def test_on_the_host_rows_cost_what_is_written() -> None:
    each = model("a", "cpu:0")
    assert longest(each, 4 * GB, None) == 32768
    assert limits(each, 4 * GB, 32768).max_rows == 64
    assert limits(each, 40 * GB, 32768).prefix_caching
    assert not limits(each, 4 * GB, 32768).prefix_caching


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match="kv_bytes: 1000 bytes for a do not hold 16 tokens"):
        longest(model("a", "cpu:0"), 1000, None)
    with pytest.raises(ConfigError, match="do not hold 2 rows of 32768 tokens"):
        longest(model("a", "cuda:0", "tensorrt"), GB, None)
    with pytest.raises(ConfigError, match=r"one sequence of 20000 tokens \(context\), but 10922"):
        longest(model("a", "cpu:0"), GB, 20000)
