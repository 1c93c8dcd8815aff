"""Real vLLM servers, request by request: what was measured of their layers reproduces what they did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Inference, Query, Score
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record
from octavo.simulator.arrivals import Open
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane
from octavo.simulator.latency.layers import read_layers
from octavo.simulator.station import Berth, Station
from octavo.simulator.truth import left_to_write
from octavo.simulator.validate import validate
from octavo.simulator.world import Ask, World

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "llmservingsim"
MODEL = "Llama-3.1-8B"
PLENTY = 33_000  # blocks that 96 GB hold beside the weights; the run came nowhere near
GATE = {"tpot_mean": 0.01, "latency_mean": 0.015, "ttft_mean": 0.04}


class Recorded:
    """Lengths that were recorded, one expert."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def length(self, inference: Inference) -> int:
        return left_to_write(self.lengths[inference.query.id], inference)

    def result(self, inference: Inference, new_tokens: int) -> Candidate | Score:
        return Candidate(inference, new_tokens)

    def correct(self, candidate: Candidate) -> bool | None:
        return None

    def seconds_to_verify(self, inference: Inference) -> float | None:
        return None


def measured(rows: list[dict[str, float]], start: float) -> Iterator[Record]:
    for i, row in enumerate(rows):
        came, first, last = (row[key] - start for key in ("queued_ts", "first_token_ts", "last_token_ts"))
        prompt, new = int(row["input_toks"]), int(row["output_toks"])
        yield QueryRecord(i, came, prompt, new, first, last)
        yield InferenceRecord(i, "llama", 0, False, "gpu", prompt, new, came, came, first, last)


@pytest.mark.parametrize("gpu", ["RTX4090", "RTXPRO6000"])
def test_a_real_server_is_reproduced(gpu: str) -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here: recordings of real servers")
    folder = DATA / "bench" / gpu / MODEL
    rows = sorted(map(json.loads, (folder / "requests.jsonl").open()), key=lambda row: row["queued_ts"])
    meta = json.loads((folder / "meta.json").read_text())
    start, engine = rows[0]["queued_ts"], meta["engine_kwargs"]
    blocks = meta.get("kv_cache", {}).get("num_gpu_blocks", PLENTY)
    limits = Limits(blocks, 16, engine["max_num_seqs"], engine["max_num_batched_tokens"])
    truth = Recorded([row["output_toks"] for row in rows])
    layers = read_layers(DATA / "perf" / gpu / "meta-llama" / MODEL / "bf16" / "tp1", 32)
    lane = Lane("llama", ("llama",), limits, layers, truth)
    asks = [Ask(row["queued_ts"] - start, Query(i, row["input_toks"], 4096)) for i, row in enumerate(rows)]
    station = Station("llama", "", [Berth(Device("gpu", [lane]), lane)])
    world = World(Open(asks), Ensemble(("llama",), 1), policy_named("single"), {"llama": station}, truth)
    world.run()
    found = validate(measured(rows, start), [*world.queries, *world.inferences], gpu)
    found.gate(GATE)
    assert np.isclose(found["throughput"].error.value, 0, atol=0.03)
    if gpu == "RTX4090":
        assert 150 < sum(record.preemptions for record in world.inferences) < 230  # the server counted 190
