"""transformers' `generate` and optimum's `ORTModelForCausalLM`: `run_torch.py transformers|optimum FOLDER THREADS`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from turns import Rows, take_turns


def open_model(kind: str, folder: Path, threads: int) -> Any:
    if kind == "transformers":
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    import onnxruntime as ort
    from optimum.onnxruntime import ORTModelForCausalLM

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ORTModelForCausalLM.from_pretrained(folder, session_options=options, use_io_binding=True)


def main(kind: str, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    models = [open_model(kind, each, threads) for each in sorted(folder.iterdir())]

    def run(prompts: Rows, new: int, samples: int, together: bool) -> Rows:
        rows = []
        with torch.no_grad():
            for prompt in prompts:
                ids = torch.tensor([prompt] * samples)
                mask = torch.ones_like(ids)
                for model in models:
                    written = model.generate(
                        ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False
                    )
                    rows += written[:, len(prompt) :].tolist()
        return rows

    take_turns(run)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
