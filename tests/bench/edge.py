"""Edge devices of MLPerf Inference v5.1 beside what is simulated of them from their data sheets.

`python tests/bench/edge.py` prints the table of docs/benchmarks/simulator.md. One user at a time (SingleStream): the
90th percentile of a summary's seconds. MLPerf cuts summaries at 128 tokens; articles have 778 tokens in the mean, and
their spread is assumed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from octavo.profiles import load_scenario
from octavo.simulator import simulate

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "mlperf" / "summary_results_v5.1.json"
ARC = (
    "hardware={arc-pro-b60: {from: rtx-4060-ti, memory: 24 GiB, bandwidth: 456 GB/s, "
    "flops: {fp32: 12 TFLOP/s, bf16: 98 TFLOP/s, fp16: 98 TFLOP/s, int8: 197 TOP/s}}}"
)
"""Intel's data sheet; efficiencies of another card."""
DEVICES = {
    "NVIDIA Jetson AGX Thor 128G": ("jetson-agx-thor", "fp4", []),
    "[MAXSUN] MS-Intel Arc Pro B60 Dual 48G Turbo": ("arc-pro-b60", "int4", [ARC]),
}
LOAD = [
    "fleet.tiers.server.basis=owned",
    "workload.arrivals={kind: closed_loop, clients: 1}",
    "workload.prompt_tokens={kind: lognormal, mean: 778, cv: 0.5, max: 2540}",
    "workload.answer_tokens={kind: constant, tokens: 128}",
    "workload.shared_prefix_tokens=0",
    "workload.queries=300",
]


def measured() -> dict[str, float]:
    """Seconds by accelerator."""
    rows = json.loads(DATA.read_text(encoding="utf-8"))
    return {
        row["Accelerator"]: row["Performance_Result"] / 1e3
        for row in rows
        if row["Model"] == "llama3.1-8b-edge" and row["Scenario"] == "SingleStream"
    }


def simulated(accelerator: str) -> float:
    hardware, precision, facts = DEVICES[accelerator]
    changes = [f"fleet.placement.0.hardware={hardware}", f"engine.precision={precision}", *facts]
    return float(np.quantile(simulate(load_scenario("one-server", [*changes, *LOAD]), seeds=[0]).latencies, 0.9))


def main() -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not here: results of MLPerf Inference v5.1")
    print("| Llama-3.1-8B, one user | measured p90 | simulated | error |\n|---|---|---|---|")
    for accelerator, seconds in measured().items():
        found = simulated(accelerator)
        print(f"| {accelerator} | {seconds:.2f} s | {found:.2f} s | {found / seconds - 1:+.0%} |")


if __name__ == "__main__":
    main()
