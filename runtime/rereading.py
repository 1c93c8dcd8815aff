"""A value model with a tokenizer of its own: it reads the words of prompt and answer anew, not the experts' tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np

from octavo.profiles.manifest import ValueEntry
from octavo.runtime.contents import Contents, Message
from octavo.runtime.core.query import Inference, Lost, Score
from octavo.runtime.core.scheduler import Job, Limits, Step
from octavo.runtime.engine import Ended
from octavo.runtime.ort.classifier import Encoded, Scores
from octavo.runtime.ort.prefill import alike
from octavo.runtime.text import Vocabulary
from octavo.runtime.value import probability

Words = str | Sequence[Message]


class Reader:
    """Turns a prompt and an answer into what the value model reads, as its manifest entry says."""

    def __init__(self, vocabulary: Vocabulary, entry: ValueEntry, *, whole: bool) -> None:
        """`whole` models see what they are padded with; others read the last token that is no padding, as trained."""
        assert entry.max_tokens is not None
        self._vocabulary = vocabulary
        self._entry = entry
        self._whole = whole
        vocabulary.cut(entry.max_tokens, pair=entry.reads == "pair")

    def read(self, prompt: Words, answer: str) -> Encoded:
        """What is too long loses the prompt's start. Raises ValueError where the answer alone has no room."""
        if self._entry.reads == "chat":
            talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            text = self._vocabulary.rendered([*talk, {"role": "assistant", "content": answer}], answer_next=False)
            return self._single(text, answer, special=False)
        before = prompt if isinstance(prompt, str) else "\n\n".join(str(each.get("content", "")) for each in prompt)
        if self._entry.reads == "text":
            return self._single(before + answer, answer, special=True)
        try:
            pair = self._vocabulary.read(before, answer)
        except Exception:  # the library raises plain Exception where the first of a pair would be cut off whole
            raise ValueError(self._no_room(answer)) from None
        return self._plain(pair.ids, pair.type_ids)

    def _single(self, text: str, answer: str, *, special: bool) -> Encoded:
        found = self._vocabulary.read(text, special=special)
        if found.overflowing and self._vocabulary.read(answer, special=special).overflowing:
            raise ValueError(self._no_room(answer))
        return self._plain(found.ids, found.type_ids)

    def _plain(self, ids: list[int], types: list[int]) -> Encoded:
        length, pad = len(ids), self._entry.pad_token_id
        while not self._whole and length > 1 and ids[length - 1] == pad:
            length -= 1
        if not length:
            raise ValueError("its tokenizer makes nothing of prompt and answer")
        return np.array(ids[:length], np.int64), np.array(types[:length], np.int64)

    def _no_room(self, answer: str) -> str:
        return f"it reads {self._entry.max_tokens} tokens, which an answer of {len(answer)} characters exceeds"


class RereadingEngine:
    """Scores candidates; see `octavo.runtime.engine.Engine`. It decodes nothing and keeps nothing between two steps.

    The scheduler counts the experts' tokens, which are near enough to make batches by; a prompt that it hands out in
    chunks is read whole with the last of them.
    """

    def __init__(self, reader: Reader, scores: Scores, entry: ValueEntry, contents: Contents, limits: Limits) -> None:
        self._reader = reader
        self._scores = scores
        self._entry = entry
        self._contents = contents
        self._limits = limits

    @property
    def limits(self) -> Limits:
        return self._limits

    def remember(self, resident: Callable[[int], bool]) -> None:
        """It holds nothing."""

    def run(self, step: Step) -> list[Ended]:
        asked = [job.inference for chunk in step.chunks if chunk.completes for job in chunk.prompt.jobs]
        read: dict[Inference, Encoded] = {}
        ended: dict[Inference, Ended] = {}
        for inference in asked:
            try:
                read[inference] = self._read(inference)
            except ValueError as error:
                ended[inference] = Lost(inference, f"{inference.model}: {error}")
        for batch in alike(read, lambda inference: len(read[inference][0]), self._scores.rows):
            logits = self._scores([read[inference] for inference in batch])
            ended |= {each: self._score(each, float(logit)) for each, logit in zip(batch, logits, strict=True)}
        return [ended[inference] for inference in asked]

    def withdraw(self, job: Job) -> None:
        """It holds nothing."""

    def close(self) -> None:
        del self._scores

    def _read(self, inference: Inference) -> Encoded:
        if inference.judges is None:
            raise ValueError("there is nothing to judge")
        request = self._contents.request(inference.query)
        words = self._contents.decoder.decode(request.prompt) if request.asked is None else request.asked
        return self._reader.read(words, self._contents.written(inference.judges).text)

    def _score(self, inference: Inference, logit: float) -> Ended:
        if inference.judges is None or not isfinite(logit):
            return Lost(inference, f"{inference.model}: its score is not finite")
        return Score(inference.judges, probability(self._entry, logit), inference)
