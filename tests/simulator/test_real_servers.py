"""Real vLLM servers, request by request: what was measured of their layers reproduces what they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.profiles import load_scenario
from octavo.runtime.core.trace import InferenceRecord
from octavo.simulator.recordings import changes, doubts, read_served, simulate_served
from octavo.simulator.validate import validate

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "llmservingsim"
MODEL = "Llama-3.1-8B"
GATE = {"tpot_mean": 0.01, "latency_mean": 0.015, "ttft_mean": 0.04}
ROUGHER = {"tpot_mean": 0.03, "latency_mean": 0.03, "ttft_mean": 0.05}
DEVICES = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000"}


@pytest.mark.parametrize("gpu", DEVICES)
def test_a_real_server_is_reproduced(gpu: str) -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here: recordings of real servers")
    served = read_served(DATA / "bench" / gpu / MODEL)
    layers = f"latency=layers:{DATA / 'perf' / gpu / 'meta-llama' / MODEL / 'bf16'}"
    scenario = load_scenario("one-server", [*changes(served), layers, f"fleet.placement.0.hardware={DEVICES[gpu]}"])
    simulated = simulate_served(scenario, served)
    found = validate(served.records("expert-1"), simulated, gpu)
    found.gate(GATE)
    assert found["throughput"].error.value == pytest.approx(0, abs=0.03)
    assert not doubts(scenario, served)
    if gpu == "RTX4090":
        preempted = sum(record.preemptions for record in simulated if isinstance(record, InferenceRecord))
        assert 150 < preempted < 230  # the server counted 190


def test_a_real_server_is_reproduced_from_operators_that_others_measured() -> None:
    """Nothing here was measured on that server: operators on the same device, and FlashAttention-2's tiles."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here: recordings of real servers")
    pytest.importorskip("aiconfigurator_core", reason="operator tables: the extra silicon")
    served = read_served(DATA / "bench" / "RTXPRO6000" / MODEL)
    device = ["latency=silicon", "fleet.placement.0.hardware=rtx-pro-6000-server"]
    simulated = simulate_served(load_scenario("one-server", [*changes(served), *device]), served)
    validate(served.records("expert-1"), simulated, "operators").gate(ROUGHER)
