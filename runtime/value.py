"""The value engine: reads prompt and candidate in ragged batches, and says how likely the candidate is right."""

from __future__ import annotations

from math import isfinite

import numpy as np

from octavo.profiles.manifest import ValueEntry
from octavo.runtime.contents import Contents, Tokens
from octavo.runtime.core.query import Inference, Lost, Score
from octavo.runtime.core.scheduler import Job, Limits, Prompt, Step
from octavo.runtime.engine import Ended
from octavo.runtime.ort.binding import Calls
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.prefill import Prefiller
from octavo.runtime.ort.prefixes import Prefixes, Resident
from octavo.runtime.ort.session import Model


class ValueEngine:
    """Scores candidates; see `octavo.runtime.engine.Engine`. It decodes nothing.

    It reads the prompt's tokens and then the candidate's as they were written, the end token with them: that is how
    the value model was trained.
    """

    def __init__(self, model: Model, entry: ValueEntry, contents: Contents, limits: Limits, length: int) -> None:
        self._limits = limits
        self._entry = entry
        self._contents = contents
        self._cache = Cache(model.kv, limits.max_rows + 1, length, model.device)
        self._prefixes = Prefixes(self._cache, limits.hash_tokens) if limits.prefix_caching else None
        self.calls = Calls(model, self._cache)
        self._prefiller = Prefiller(self.calls, self._prefixes)

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def held(self) -> int:
        """Prompts under way."""
        return len(self._prefiller)

    def remember(self, resident: Resident) -> None:
        if self._prefixes is not None:
            self._prefixes.sweep(resident)

    def run(self, step: Step) -> list[Ended]:
        for job in step.preempted:
            self._prefiller.forget(job.prompt)
        logits: dict[Prompt, float] = {}
        for computed in self._prefiller.run(step.chunks, self._read, lambda: 0):
            for chunk, logit in zip(computed.chunks, computed.outputs["score_logit"], strict=True):
                logits[chunk.prompt] = float(logit)
        done = [chunk.prompt for chunk in step.chunks if chunk.completes]
        return [self._score(job.inference, logits[prompt]) for prompt in done for job in prompt.jobs]

    def withdraw(self, job: Job) -> None:
        if not job.prompt.jobs:
            self._prefiller.forget(job.prompt)

    def close(self) -> None:
        del self.calls, self._prefiller, self._cache

    def _read(self, prompt: Prompt) -> tuple[Tokens, int]:
        return self._contents.sequence(prompt.jobs[0].inference), 0

    def _score(self, inference: Inference, logit: float) -> Ended:
        if inference.judges is None or not isfinite(logit):
            return Lost(inference, f"{inference.model}: its score is not finite")
        return Score(inference.judges, probability(self._entry, logit), inference)


def probability(entry: ValueEntry, logit: float) -> float:
    """Of being right, as the value model's calibration has it."""
    return float(1 / (1 + np.exp(-(entry.scale * logit + entry.shift))))
