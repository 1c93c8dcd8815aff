"""Octavo's turns: `run_octavo.py BUNDLE kernels|stock THREADS`; the rows of all prompts share its batches.

`kernels` are octavo's own, which must be compiled, `stock` is ONNX Runtime alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from turns import Rows, take_turns

from octavo.runtime.collect import kept
from octavo.runtime.core.policies import policy_named
from octavo.runtime.local import Octavo

CONTEXT = 192


def main(bundle: Path, kernels: bool, threads: int) -> None:
    octavo = Octavo.load(bundle, devices=["cpu:0"], threads=threads, context=CONTEXT, verify=False, kernels=kernels)
    options: dict[str, Any] = {"temperature": 0.0, "ends": False}

    def run(prompts: Rows, new: int, samples: int, together: bool) -> Rows:
        assert samples == octavo.ensemble.samples_per_expert
        asked = []
        for prompt in prompts:
            written: dict[tuple[str, int], Any] = {}
            policy = kept(policy_named("mean_logprob"), octavo.loop.contents, written)
            ids = np.array(prompt, np.int64)
            asked.append((written, octavo.submit(ids, policy=policy, max_new_tokens=new, **options)))
        for _, future in asked:
            future.result()
        return [written[name].tolist() for written, _ in asked for name in sorted(written)]

    take_turns(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), {"kernels": True, "stock": False}[sys.argv[2]], int(sys.argv[3]))
