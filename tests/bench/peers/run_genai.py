"""onnxruntime-genai's turns: `run_genai.py FOLDER THREADS`, with a model for each expert; the samples are one batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from turns import Rows, take_turns


def main(folder: Path, threads: int) -> None:
    models = [open_model(each, threads) for each in sorted(folder.iterdir())]

    def run(prompts: Rows, new: int, samples: int, together: bool) -> Rows:
        batches = [prompts] if together else [[prompt] for prompt in prompts]
        return [row for batch in batches for row in rows_of(batch, new, samples)]

    def rows_of(prompts: Rows, new: int, samples: int) -> Rows:
        """Of all prompts of a batch, in the order of prompts, experts and samples."""
        written = [generate(model, [prompt for prompt in prompts for _ in range(samples)], new) for model in models]
        return [row for place in range(len(prompts)) for found in written for row in found[place * samples :][:samples]]

    take_turns(run)


def open_model(folder: Path, threads: int) -> og.Model:
    config = og.Config(str(folder))
    options = {"intra_op_num_threads": threads, "session.intra_op.allow_spinning": "0"}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return og.Model(config)


def generate(model: og.Model, prompts: Rows, new: int) -> Rows:
    read = len(prompts[0])
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=read + new, min_length=read + new, batch_size=len(prompts), do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array(prompts, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [generator.get_sequence(row)[read:].tolist() for row in range(len(prompts))]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
