"""Measured layers: what the tables say is what a step takes, and tables of something else are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from octavo.profiles import load_model, load_scenario
from octavo.profiles.errors import ConfigError
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator import simulate
from octavo.simulator.latency.exchange import read_exchange
from octavo.simulator.latency.layers import Layers, read_layers
from octavo.simulator.latency.read_skew import read_skew
from octavo.simulator.latency.skew import Spread

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
    table = tmp_path / "bf16" / "tp1" / "moe.csv"
    spread = [
        "ep,tokens,activated_experts,time_us",
        *(f"{ep},{t},{e},{ep}" for ep in (2, 1) for t in (1, 9) for e in (1, 128)),
    ]
    table.write_text("\n".join(spread))
    whole = read_layers(tmp_path / "bf16", model).experts
    assert whole is not None
    assert whole(1) == pytest.approx(model.layers * 1e-6), "not the experts of half a model"


def test_rows_of_unequal_context_take_a_measured_share_of_the_way_to_the_longest(tmp_path: Path) -> None:
    skew, gap = read_skew(tables(tmp_path) / "tp1"), lambda: 0.0
    assert skew.alpha(0, 0, 2, Spread(100, 300, 400), gap) == 0.25
    assert skew.alpha(0, 0, 2, Spread(100, 150, 400), gap) == 0.5, "no such bucket: the usual"
    assert skew.alpha(400, 10, 2, Spread(100, 150, 4000), gap) == 0, (
        "of the nearest prefill; never less than equal rows"
    )
    assert skew.alpha(0, 0, 2, Spread(100, 100, 100), gap) == skew.alpha(0, 0, 1, Spread(1, 2, 3), gap) == 0


NEWER = """
skew_fit:
  enabled: true
  per_tp:
    1:
      schema: runtime-skew-calibration-v1
      axes: {pc_bins: [-1, 1, 1000], pc_labels: [pc0, pc1], lev_bins: [0, 0.5, 100], lev_labels: [lev0, lev1]}
      alpha_default_by_kernel: {"attention|q=1": 0.5}
      n_range_by_kernel: {"attention|q=1": [2, 16]}
"""


def test_the_share_may_go_by_how_far_the_longest_are(tmp_path: Path) -> None:
    """Newer tables: alpha by the gap that rows as long as the longest would make, at the nearest number of rows."""
    folder, spread = tables(tmp_path) / "tp1", Spread(100, 200, 400)
    (folder.parent / "meta.yaml").write_text(NEWER)
    rows = ["attention,1,pc0,lev0,2,0.1", "attention,1,pc0,lev0,8,0.2", "attention,1,pc1,lev1,4,-0.3"]
    (folder / "skew_fit.csv").write_text("\n".join(["layer,decode_q_len,pc_label,lev_label,n_anchor,alpha", *rows]))
    skew = read_skew(folder)
    assert [skew.alpha(0, 0, n, spread, lambda: 0.5) for n in (1, 2, 4, 5, 16, 17)] == [0, 0.1, 0.1, 0.2, 0.2, 0.5]
    assert skew.alpha(0, 0, 4, spread, lambda: 0.6) == 0.5, "no such bucket: the usual"
    assert skew.alpha(5, 0, 4, spread, lambda: 2.0) == 0, "no less than equal rows"
    (folder / "skew_fit.csv").unlink()
    with pytest.raises(ConfigError, match="do not fit together"):
        read_skew(folder)


def test_attention_may_be_by_how_much_a_token_attends_to(tmp_path: Path) -> None:
    """Two prompts of a hundred tokens attend to fifty each in the mean, one of two hundred to a hundred."""
    folder = tables(tmp_path)
    points = [(0, 0, n, k, 1, 1 + n * k / 1000) for n in (1, 4) for k in (0, 1000)]
    points += [(200, key, 0, 0, 1, key) for key in (50, 100)] + [(0, 0, 1, 0, 3, 999)]
    rows = ["attention," + ",".join(map(str, point)) for point in points]
    header = "layer,prefill_chunk,prefill_key,n_decode,kv_decode,decode_q_len,time_us"
    (folder / "tp1" / "attention.csv").write_text("\n".join([header, *rows]))
    found = read_layers(folder, load_model("llama-3.1-8b"))
    one = found.mixed(0, 0, [Chunk(Prompt(0, 201, ()), 0, 200)])
    two = found.mixed(0, 0, [Chunk(Prompt(0, 101, ()), 0, 100)] * 2)
    assert one - two == pytest.approx(32 * 50e-6)


def test_what_shards_exchange_is_what_was_measured_between_as_many_devices(tmp_path: Path) -> None:
    """Two sums a layer and one after the embedding, over the bytes of a step's tokens; then the gathered logits."""
    folder, model = tables(tmp_path), load_model("llama-3.1-8b")
    samples = [
        {"collective": kind, "bytes": b, "us": us * b}
        for kind, us in (("all_reduce", 1), ("all_gather", 2))
        for b in (1, 2)
    ]
    (tmp_path / "hardware.yaml").write_text(f"measured: {{interconnect: {{npus: 2, samples: {samples}}}}}")
    found = read_exchange(folder, model, 2)
    assert found is not None
    assert read_exchange(folder, model, 4) is None
    assert found(3, 1) == pytest.approx(1e-6 * (65 * 2 * 3 * model.hidden + 2 * 2 * model.vocab / 2))


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
