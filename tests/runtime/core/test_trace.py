"""Records go to other processes and to files, and come back the same."""

from __future__ import annotations

import pickle

from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord, StepRecord, from_lines, to_lines

LIMITS: dict[str, int | bool] = {"kv_blocks": 4}
RECORDS: list[Record] = [
    RunRecord("early_exit", {"sure_at": 0.9}, ("a", "b"), 2, "judge", {"cpu:0": ["a", "b"]}, {"a": LIMITS}, seed=3),
    InferenceRecord(1, "judge", 0, True, "cpu:0", 8, 0, 0.5, 0.6, value=0.25, judges="b"),
    InferenceRecord(1, "a", 1, False, "cpu:0", 8, 4, 0.5, end="withdrawn", mean_logprob=-0.5, answer="x", correct=True),
    QueryRecord(1, 0.5, 8, 4, 0.6, 0.75, chosen="a/1", value=0.25, prefix=(1, 2), max_new_tokens=9, correct=False),
    StepRecord("cpu:0", 0.5, 0.01, 2, 16, 0, repeats=3, preempted=1),
]


def test_every_field_comes_back() -> None:
    assert pickle.loads(pickle.dumps(RECORDS)) == RECORDS
    assert list(from_lines(to_lines(RECORDS))) == RECORDS
