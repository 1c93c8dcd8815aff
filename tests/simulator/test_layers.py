"""Measured layers: what the tables say is what a step takes, and tables of something else are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from octavo.profiles import load_model, load_scenario
from octavo.profiles.errors import ConfigError
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator import simulate
from octavo.simulator.latency.layers import Layers, read_layers
from octavo.simulator.latency.skew import Spread, read_skew

DENSE = ("embedding", "layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj")
META = """
skew_fit:
  enabled: true
  per_tp: {1: {alpha_default: 0.5}}
  bucket_axes:
    n_bins: [0, 2, 4]
    n_labels: [few, many]
    skew_rate_bins: [0, 0.5, 1]
    skew_rate_labels: [low, high]
    kv_big_bins: [0, 1000, 1000000]
    kv_big_labels: [short, long]
    kp_bins: [-1, 0, 1000]
    kp_labels: [none, some]
"""


def tables(root: Path, *, moe: bool = False) -> Path:
    """Every dense layer a microsecond and as much per token, attention a nanosecond per token that is read."""
    folder = root / "bf16" / "tp1"
    folder.mkdir(parents=True)
    (folder.parent / "meta.yaml").write_text(META)
    names = DENSE[:5] if moe else DENSE
    dense = [f"{name},{tokens},{1 + tokens}" for name in (*names, "final_layernorm") for tokens in (1, 1001)]
    head = [f"{name},{n},{n}" for name in ("lm_head", "sampler") for n in (1, 100)]
    points = [(c, p, n, k) for c in (0, 512) for p in (0, 1024) for n in (0, 4) for k in (0, 100, 10_000)]
    attention = [f"{c},{p},{n},{k},{1 + (c * (p + c / 2) + n * k) / 1000}" for c, p, n, k in points if c or not p]
    (folder / "dense.csv").write_text("\n".join(["layer,tokens,time_us", *dense]))
    (folder / "per_sequence.csv").write_text("\n".join(["layer,sequences,time_us", *head]))
    (folder / "attention.csv").write_text(
        "\n".join(["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", *attention])
    )
    (folder / "skew_fit.csv").write_text(
        "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha\n0,few,high,short,none,0.25\n512,few,low,long,some,-0.1"
    )
    if moe:
        experts = [f"{t},{e},{t + e}" for t in (1, 1000) for e in (1, 128)]
        (folder / "moe.csv").write_text("\n".join(["tokens,activated_experts,time_us", *experts]))
    return folder.parent


def layers(root: Path, model: str = "llama-3.1-8b", *, moe: bool = False) -> Layers:
    return read_layers(tables(root, moe=moe), load_model(model))


def test_a_step_is_every_layer_once_and_the_norm_twice(tmp_path: Path) -> None:
    """Thirty-two layers of nine microseconds and as many per token, two that run once, head and sampler."""
    found = layers(tmp_path).decode(4, 4 * 100)
    dense = (32 * 8 + 2) * (1 + 4) + 2 * 4
    assert found.seconds == pytest.approx((dense + 32 * (1 + 0.4)) * 1e-6)
    assert found.slope == pytest.approx(32e-9)


def test_a_larger_step_is_no_shorter(tmp_path: Path) -> None:
    found = layers(tmp_path)
    steps = [found.decode(rows, rows * context).seconds for rows in (1, 4, 9) for context in (1, 50, 5000, 20_000)]
    steps += [found.mixed(2, 200, [Chunk(Prompt(0, n, ()), 0, n)]) for n in (512, 600, 5000)]
    assert all(a <= b for part in (steps[:4], steps[4:8], steps[8:12], steps[12:]) for a, b in pairwise(part))


def test_sparse_layers_visit_the_experts_that_so_many_tokens_would(tmp_path: Path) -> None:
    """Of 128 experts one token visits 8, and a thousand visit all."""
    found, model = layers(tmp_path, "qwen3-30b-a3b", moe=True), load_model("qwen3-30b-a3b")
    assert found.experts is not None
    assert found.experts(1) == pytest.approx(model.layers * (1 + 8) * 1e-6)
    assert found.experts(1000) == pytest.approx(model.layers * (1000 + 128) * 1e-6)


def test_rows_of_unequal_context_take_a_measured_share_of_the_way_to_the_longest(tmp_path: Path) -> None:
    skew = read_skew(tables(tmp_path) / "tp1")
    assert skew.alpha(0, 0, 2, Spread(100, 300, 400)) == 0.25
    assert skew.alpha(0, 0, 2, Spread(100, 150, 400)) == 0.5, "no such bucket: the usual"
    assert skew.alpha(400, 10, 2, Spread(100, 150, 4000)) == 0, "of the nearest prefill; never less than equal rows"
    assert skew.alpha(0, 0, 2, Spread(100, 100, 100)) == skew.alpha(0, 0, 1, Spread(1, 2, 3)) == 0


def test_a_scenario_may_name_the_tables_and_says_what_it_used(tmp_path: Path) -> None:
    folder = tables(tmp_path)
    result = simulate(load_scenario("one-server", [f"latency=layers:{folder}", "workload.queries=40"]), seeds=[0])
    assert result.latency_model.startswith("measured layers of ")
    twice = [f"latency=layers:{folder / 'tp1'}", "fleet.placement.0.tensor_parallel=2"]
    with pytest.raises(ConfigError, match="measured on 1 devices, not on 2"):
        simulate(load_scenario("one-server", twice), seeds=[0])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,1\n", "o_proj was not measured"),
        ("dense.csv", "layer,tokens,time_us\nmla_proj,1,1\n", "layer mla_proj is not known"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,fast\n", "dense.csv:2: time_us must be a number"),
        ("per_sequence.csv", "", "no lines"),
        ("moe.csv", "tokens,activated_experts,time_us\n1,1,1\n", "no sparse layers"),
        ("linear_attention.csv", "x\n", "linear attention"),
        ("attention.csv", "layer,prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\nindexer,0,0,1,1,1\n", "indexer"),
    ],
)
def test_tables_of_something_else_are_refused(file: str, text: str, said: str, tmp_path: Path) -> None:
    folder = tables(tmp_path)
    (folder / "tp1" / file).write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_layers(folder, load_model("llama-3.1-8b"))


def test_no_folder_of_tables_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a table of measured layers"):
        read_layers(tmp_path / "none", load_model("llama-3.1-8b"))
