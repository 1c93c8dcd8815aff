"""What every engine's process says and hears: one JSON object a line, so that the engines can take turns.

It reads {"prompts": [[token, ...], ...], "new": 64, "samples": 2, "together": false} (whether all prompts may be one
batch), answers all prompts with all experts, and writes {"cpu": seconds, "wall": seconds, "rows": [[token, ...], ...]}:
`samples` rows for each prompt and expert. Standard library only, for it runs in each engine's own python.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

Rows = list[list[int]]
Run = Callable[[Rows, int, int, bool], Rows]  # prompts, new tokens, samples, all prompts in one batch


def take_turns(run: Run) -> None:
    """Say that the models are open, then run whatever is asked until nothing more comes."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print(json.dumps({"resident": resident()}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        cpu, wall = time.process_time(), time.perf_counter()
        rows = run(asked["prompts"], asked["new"], asked["samples"], asked["together"])
        took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({**took, "rows": rows, "resident": resident()}), file=out, flush=True)


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
