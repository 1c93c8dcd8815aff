"""The verifier as an engine: a policy that filters asks it about each candidate, and it answers 1 or 0."""

from __future__ import annotations

from collections.abc import Callable

from octavo.runtime.contents import Contents
from octavo.runtime.core.query import Inference, Lost, Score
from octavo.runtime.core.scheduler import Job, Limits, Step
from octavo.runtime.engine import Ended

VERIFIER = "verifier"
UNLIMITED = Limits(kv_blocks=1 << 40, max_rows=1 << 20, max_step_tokens=1 << 40, prefix_caching=False)


class VerifierEngine:
    """Calls the `verify` of the query's request with each candidate's text; one that raises has failed it."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    @property
    def limits(self) -> Limits:
        return UNLIMITED

    def remember(self, resident: Callable[[int], bool]) -> None:
        """It holds nothing."""

    def run(self, step: Step) -> list[Ended]:
        return [self._check(job.inference) for chunk in step.chunks for job in chunk.prompt.jobs]

    def withdraw(self, job: Job) -> None:
        """It holds nothing."""

    def close(self) -> None:
        """It holds nothing."""

    def _check(self, inference: Inference) -> Ended:
        verify = self._contents.request(inference.query).verify
        if verify is None or inference.judges is None:
            return Lost(inference, "the query has no verifier")
        try:
            right = verify(self._contents.written(inference.judges).text)
        except Exception:  # a verifier is the user's code, and the candidate's text may be anything
            right = False
        return Score(inference.judges, float(right), inference)
