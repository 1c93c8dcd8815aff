"""Recordings of other tools are read as what they are, and what is wrong with one is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo import cli
from octavo.profiles import load_scenario
from octavo.profiles.errors import ConfigError
from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.simulator.recordings import Request, changes, doubts, read_served, simulate_served
from octavo.simulator.recordings.read import EXPERT_PARALLEL

TWO = (Request(0.0, 100, 11, 0.2, 1.2), Request(0.5, 50, 3, 0.75, 1.0))
"""What every file below says."""
NAMED = ("arrival", "prompt_tokens", "answer_tokens", "first_token", "ended")


def llmservingsim(folder: Path) -> Path:
    """Out of order, as they ended."""
    names = ("input_toks", "output_toks", "queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
    times = [(7 + r.arrival, 7.0, 7 + (r.first_token or 0), 7 + r.ended) for r in TWO]
    lengths = [(r.prompt_tokens, r.answer_tokens) for r in TWO]
    rows = [dict(zip(names, (*n, *t), strict=True)) for n, t in reversed([*zip(lengths, times, strict=True)])]
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    meta = {
        "model": "meta-llama/Llama-3.1-8B",
        "engine_kwargs": {
            "tensor_parallel_size": 2,
            "data_parallel_size": 3,
            "enable_expert_parallel": True,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 512,
            "dtype": "half",
        },
        "kv_cache": {"num_gpu_blocks": 1234, "block_size": 32, "enable_prefix_caching": False},
        "hardware": {"device_name": "NVIDIA GeForce RTX 3090"},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def vllm(folder: Path) -> Path:
    data = {
        "model_id": "meta-llama/Llama-3.1-8B",
        "input_lens": [100, 70, 50],
        "output_lens": [11, 0, 3],
        "start_times": [3.0, 3.1, 3.5],
        "ttfts": [0.2, 0.0, 0.25],
        "itls": [[0.1] * 10, [], [0.125] * 2],
        "errors": ["", "Bad Gateway", ""],
    }
    return written(folder / "vllm.json", data)


def sglang(folder: Path) -> Path:
    """All at once, two at a time: the failed one holds its place for half a second, and then the last one comes."""
    data = {
        "backend": "sglang",
        "dataset_name": "random",
        "request_rate": float("inf"),
        "max_concurrency": 2,
        "input_lens": [100, 70, 50],
        "output_lens": [11, 0, 3],
        "ttfts": [0.2, 0.5, 0.25],
        "itls": [[0.1] * 10, [], [0.125] * 2],
        "generated_texts": ["", "", ""],
        "errors": ["", "Bad Gateway", ""],
    }
    (folder / "sglang.jsonl").write_text(json.dumps(data) + "\n")
    return folder / "sglang.jsonl"


def guidellm(folder: Path) -> Path:
    new = {"request_start_time": 9.0, "request_end_time": 10.2, "time_to_first_token_ms": 200.0}
    old = {"start_time": 9.5, "first_token_time": 9.75, "end_time": 10.0}
    rows = [new | {"prompt_tokens": 100, "output_tokens": 11}, old | {"prompt_tokens": 50, "output_tokens": 3}]
    requests = {"successful": rows, "incomplete": [{}], "errored": [], "total": None}
    return written(folder / "benchmarks.json", {"metadata": {}, "args": {}, "benchmarks": [{"requests": requests}]})


def aiperf(folder: Path) -> Path:
    def row(start: float, prompt: int, answer: int, first: float, took: float) -> dict[str, Any]:
        metrics = {
            "input_sequence_length": {"value": prompt, "unit": "tokens"},
            "output_sequence_length": {"value": answer, "unit": "tokens"},
            "time_to_first_token": {"value": first, "unit": "ms"},
            "request_latency": {"value": took, "unit": "ms"},
        }
        return {"metadata": {"request_start_ns": int(start * 1e9)}, "metrics": metrics, "error": None}

    failed = {"metadata": {"request_start_ns": 1, "was_cancelled": True}, "metrics": {}, "error": {"code": 499}}
    rows = [row(4.0, 100, 11, 200, 1200), failed, row(4.5, 50, 3, 250, 500)]
    path = folder / "profile_export.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def table(folder: Path) -> Path:
    rows = [(r.arrival + 2, r.prompt_tokens, r.answer_tokens, (r.first_token or 0) + 2, r.ended + 2) for r in TWO]
    path = folder / "server.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in (NAMED, *rows)))
    return path


BENCH = '{"input_lens": [1], "output_lens": [1], "ttfts": [1], "itls": [[]], %s}'


def written(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("write", [llmservingsim, vllm, sglang, guidellm, aiperf, table])
def test_every_tool_says_the_same_of_the_same_requests(write: Any, tmp_path: Path) -> None:
    served = read_served(write(tmp_path))
    assert len(served.requests) == len(TWO)
    for found, meant in zip(served.requests, TWO, strict=True):
        for name in NAMED:
            assert getattr(found, name) == pytest.approx(getattr(meant, name), abs=1e-6), name
    if write in (vllm, sglang, guidellm, aiperf):
        assert served.notes == ("1 of 3 requests failed or wrote nothing, and are left out",)


def test_the_engine_that_served_is_the_engine_that_is_simulated(tmp_path: Path) -> None:
    served = read_served(llmservingsim(tmp_path))
    scenario = load_scenario("one-server", changes(served))
    engine = scenario.engine
    assert (engine.kv_blocks, engine.block_size, engine.max_num_seqs) == (411, 32, 8), "1234 of three replicas"
    assert (engine.max_num_batched_tokens, engine.prefix_caching, engine.precision) == (512, False, "fp16")
    place = scenario.fleet.placement[0]
    assert (place.tensor_parallel, place.pipeline_parallel, place.replicas) == (2, 1, 3)
    device = "the recording's device is NVIDIA GeForce RTX 3090, the scenario's rtx-4090"
    assert doubts(scenario, served) == [EXPERT_PARALLEL, device]


def test_what_the_server_found_in_its_cache_is_found_in_the_simulation(tmp_path: Path) -> None:
    """A time series says how much in each second; a table may say of which request."""
    rows = [dict(zip(NAMED, (i, 500, 4, i + 0.5, i + 0.9), strict=True)) for i in range(8)]
    path = tmp_path / "server.csv"
    lines = [",".join(map(str, [*row.values(), 320 * (i == 6)])) for i, row in enumerate(rows)]
    path.write_text("\n".join([",".join([*NAMED, "cached_tokens"]), *lines]))
    said = read_served(path)
    names = ("input_toks", "output_toks", "queued_ts", "first_token_ts", "last_token_ts")
    order = ("prompt_tokens", "answer_tokens", "arrival", "first_token", "ended")
    as_vllm = [dict(zip(names, (row[key] for key in order), strict=True)) for row in rows]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, as_vllm)))
    series = [f"{t}.0,500,{330 * (t == 7)}" for t in range(1, 9)]
    (tmp_path / "timeseries.csv").write_text("\n".join(["t,prompt_throughput,prompt_cached_throughput", *series]))
    timed = read_served(tmp_path)
    assert timed.requests == said.requests, "in whole blocks"
    assert "320 prompt tokens" in timed.notes[0]
    scenario = load_scenario("one-server", ["engine.max_num_batched_tokens=128"])
    firsts = [r.ttft for r in simulate_served(scenario, said) if isinstance(r, QueryRecord)]
    assert firsts[6]
    assert firsts[5]
    assert firsts[6] < 0.6 * firsts[5], "180 tokens of 500 are left to compute"


def test_recorded_requests_come_when_they_came_and_are_as_long(tmp_path: Path) -> None:
    """Nothing of the scenario's own workload is left: no shared prefix, no clients that wait."""
    served = read_served(table(tmp_path))
    loop = ["workload.arrivals={kind: closed_loop, clients: 1}"]
    for changed in ([], loop):
        records = simulate_served(load_scenario("one-server", changed), served)
        found = [r for r in records if isinstance(r, InferenceRecord)]
        assert [(r.submitted, r.prompt_tokens, r.new_tokens) for r in found] == [(0.0, 100, 11), (0.5, 50, 3)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,4808,10\n", "simulate it as"),
        ("a.jsonl", '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [0]}\n', "simulate it as"),
        ("a.csv", "arrival,prompt_tokens,answer_tokens,first_token,ended\n1,5,5,0.5,2\n", "request 1: times must not"),
        ("a.csv", "arrival,prompt_tokens,answer_tokens,first_token,ended\n1,0,5,1.5,2\n", "at least one of each"),
        ("a.csv", "arrival,prompt_tokens,answer_tokens,first_token,ended\n1,5,0,1.5,2\n", "none of its 1 requests"),
        ("a.csv", "arrival,prompt_tokens,answer_tokens,first_token,ended\n1,5,2,80,140\n", "times are in seconds"),
        ("a.csv", "arrival,prompt,ended\n1,5,2\n", "request 1: it has no prompt_tokens"),
        ("a.csv", "who,what\n1,2\n", "no known recording"),
        ("a.csv", "", "no requests"),
        ("a.json", '{"input_lens": [1], "output_lens": [1], "ttfts": [1]}', "it has no itls; record with"),
        ("a.json", BENCH % '"request_rate": 3.0', "at a rate came at unknown times"),
        ("a.json", 2 * (BENCH % '"start_times": [0]' + "\n"), "2 runs, one a line"),
        ("a.json", '{"experiments": [{"requests": []}], "service_kind": "openai"}', "record with AIPerf"),
        ("a.json", '{"mean_ttft_ms": 3}', "no requests with times"),
        ("a.json", '{"benchmarks": [{}, {}]}', "2 benchmarks; keep one"),
        ("a.jsonl", '{"arrival": 1}\n{"arr', "a.jsonl:2: not JSON"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_reason(name: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_served(path)


def test_the_command_prints_both_and_fails_at_a_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, trace = table(tmp_path), tmp_path / "trace.jsonl"
    asked = ["simulate", "one-server", "--replay", str(path), "--trace-out", str(trace)]
    assert cli.main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"ttft_mean", "tpot_mean", "latency_p99"} <= {metric["metric"] for metric in found["metrics"]}
    assert found["notes"] == []
    assert trace.read_text().count('"kind":"query"') == len(TWO)
    assert cli.main(["validate", str(path), str(trace), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"] == found["metrics"]
    assert cli.main([*asked, "--gate", "latency_mean=0.0001"]) == 6
    assert cli.main(["simulate", "single-box", "--replay", str(path)]) == 2
    assert "one-server" in capsys.readouterr().err
    assert cli.main(["simulate", "--replay", str(path)]) == 2
    assert cli.main(["simulate", "one-server", "--gate", "latency_mean=1"]) == 2
