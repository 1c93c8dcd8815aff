"""llama.cpp's turns: `run_llama.py FOLDER PRECISION THREADS`; each prompt is read once and forked to its samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from turns import Rows, take_turns

CONTEXT, MOST = 192, 512  # tokens of a sequence, and of a batch


class Model:
    """One expert: its weights, and a context with room for the samples of one prompt."""

    def __init__(self, path: Path, samples: int, threads: int, whole: bool) -> None:
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = CONTEXT * samples, MOST, MOST
        settings.n_seq_max, settings.n_threads, settings.n_threads_batch = samples, threads, threads
        settings.kv_unified = True
        if whole:  # half-precision keys and values, its default, would not give what the others give
            settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(MOST, 0, 1)

    def generate(self, prompt: list[int], new: int, samples: int) -> Rows:
        llama_cpp.llama_memory_clear(self.memory, True)
        self.read(prompt, range(len(prompt)), [0] * len(prompt), [len(prompt) - 1])
        for row in range(1, samples):
            llama_cpp.llama_memory_seq_cp(self.memory, 0, row, 0, -1)
        rows = [[self.likeliest(len(prompt) - 1)] for _ in range(samples)]
        for place in range(len(prompt), len(prompt) + new - 1):
            self.read([row[-1] for row in rows], [place] * samples, range(samples), range(samples))
            for number, row in enumerate(rows):
                row.append(self.likeliest(number))
        return rows

    def read(self, tokens: Sequence[int], places: Sequence[int], rows: Sequence[int], asked: Sequence[int]) -> None:
        batch: Any = self.batch
        batch.n_tokens = len(tokens)
        for index, (token, place, row) in enumerate(zip(tokens, places, rows, strict=True)):
            batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, place, 1
            batch.seq_id[index][0], batch.logits[index] = row, index in asked
        assert llama_cpp.llama_decode(self.context, batch) == 0

    def likeliest(self, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self.context, index)
        return int(np.ctypeslib.as_array(logits, (self.words,)).argmax())


def main(folder: Path, precision: str, threads: int, samples: int = 2) -> None:
    paths = sorted(folder.glob(f"*-{precision}.gguf"))
    models = [Model(path, samples, threads, precision == "f32") for path in paths]

    def run(prompts: Rows, new: int, asked: int, together: bool) -> Rows:
        assert asked == samples
        return [row for prompt in prompts for model in models for row in model.generate(prompt, new, samples)]

    take_turns(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
