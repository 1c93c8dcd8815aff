"""One ensemble query, and many at once, by octavo and by other engines: processor seconds and wall time, in turns.

    python tests/bench/peers/models.py FOLDER --genai-python PATH --llama-python PATH
    python tests/bench/runtime.py FOLDER ENGINE [ENGINE ...] --genai-python PATH --llama-python PATH

Each engine runs in a process and a python of its own, on as many threads as are asked for. All of them write the same
number of tokens greedily, two samples for each of eight experts, after the same prompt; end tokens end nothing. Seconds
are of the process, user and system; what is reported is the least of the rounds, and the ratio to the first engine is
the median over the rounds of the ratio within a round. `octavo-FORM` uses octavo's own kernels, `octavo-FORM-stock`
ONNX Runtime alone; `bf16` are checkpoints in bfloat16, exported to fp32 and computed in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

PEERS = Path(__file__).parent / "peers"
PROMPT, NEW, SAMPLES = 128, 64, 2


def commands(home: Path, genai: str, llama: str, threads: int) -> dict[str, list[str]]:
    """How each engine is started."""
    ours, torch = [sys.executable, str(PEERS / "run_octavo.py")], [sys.executable, str(PEERS / "run_torch.py")]
    found = {
        f"octavo-{form}{'-stock' * (products == 'stock')}": [*ours, str(home / f"bundle-{form}"), products]
        for form in ("fp32", "bf16", "int8", "int4", "lora")
        for products in ("kernels", "stock")
    }
    found["transformers"] = [*torch, "transformers", str(home / "experts")]
    found["optimum"] = [*torch, "optimum", str(home / "optimum")]
    for form in ("fp32", "bf16", "int4"):
        found[f"genai-{form}"] = [genai, str(PEERS / "run_genai.py"), str(home / f"genai-{form}")]
    for form in ("f32", "q8_0", "q4_0"):
        found[f"llama-{form}"] = [llama, str(PEERS / "run_llama.py"), str(home / "gguf"), form]
    return {name: [*command, str(threads)] for name, command in found.items()}


@dataclass
class Engine:
    """A process that has its models open and waits for its turn."""

    name: str
    process: subprocess.Popen[str]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    resident: int = 0

    def ask(self, prompts: list[list[int]], new: int, together: bool = False) -> dict[str, Any]:
        assert self.process.stdin is not None
        asked = {"prompts": prompts, "new": new, "samples": SAMPLES, "together": together}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: its process ended with {self.process.wait()}")
        heard = json.loads(line)
        self.resident = heard["resident"]
        return heard

    def turn(self, prompts: list[list[int]], new: int, together: bool) -> None:
        heard = self.ask(prompts, new, together)
        self.cpu.append(heard["cpu"] / len(prompts))
        self.wall.append(heard["wall"] / len(prompts))
        self.rows = heard["rows"]


def started(names: list[str], known: dict[str, list[str]]) -> list[Engine]:
    """The engines, one opened after the other and warmed up."""
    engines = []
    for name in names:
        if name not in known:
            sys.exit(f"no engine {name}; there are {', '.join(known)}")
        process = subprocess.Popen(
            known[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        engine = Engine(name, process)
        engine.hear()
        engine.ask([list(range(5, 5 + PROMPT))], 4)
        engines.append(engine)
    return engines


def summary(engines: list[Engine], queries: int) -> dict[str, Any]:
    first = engines[0]
    rows: dict[str, Any] = {}
    for each in engines:
        same = sum(ours == theirs for ours, theirs in zip(first.rows, each.rows, strict=True))
        rows[each.name] = {
            "cpu_seconds_per_query": round(min(each.cpu), 3),
            "wall_seconds_per_query": round(min(each.wall), 3),
            "cpu_times_first": round(median(b / a for a, b in zip(first.cpu, each.cpu, strict=True)), 2),
            "cpu_times_first_least": round(min(each.cpu) / min(first.cpu), 2),
            "same_rows_as_first": f"{same}/{len(first.rows)}",
            "resident_gb": round(each.resident / 1e9, 2),
        }
    return {"queries": queries, "rounds": len(first.cpu), "engines": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--genai-python", default=sys.executable)
    parser.add_argument("--llama-python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--open", type=int, default=1, help="queries asked at once")
    parser.add_argument("--together", action="store_true", help="engines that can put all prompts in one batch do")
    parser.add_argument("--new", type=int, default=NEW)
    parser.add_argument("--seconds", type=float, default=150.0, help="no round begins that would not end by then")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 32_000, PROMPT).tolist() for _ in range(given.open)]
    began = time.monotonic()
    engines = started(given.engines, commands(given.folder, given.genai_python, given.llama_python, given.threads))
    round_seconds = 0.0
    while not engines[0].cpu or time.monotonic() - began + round_seconds < given.seconds:
        begun = time.monotonic()
        for engine in engines:
            engine.turn(prompts, given.new, given.together)
        round_seconds = time.monotonic() - begun
    print(json.dumps(summary(engines, given.open), indent=1))
    for engine in engines:
        engine.process.terminate()


if __name__ == "__main__":
    main()
