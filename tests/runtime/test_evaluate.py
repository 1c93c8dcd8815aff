"""Evaluation: task files, figures, playing policies over stored candidates, and one whole run on the tiny bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.profiles.errors import ConfigError
from octavo.runtime.contest import counted
from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Query
from octavo.runtime.curves import curve
from octavo.runtime.datasets import Task, last_number
from octavo.runtime.evaluate import Comparison, evaluate
from octavo.runtime.local import Octavo
from octavo.runtime.playback import play, store
from octavo.runtime.sampled import Sampled, sample, sweep
from octavo.runtime.statistics import Interval, auc, calibration_error, difference, pass_at, reliability, share
from octavo.runtime.tasks import Checker, load_function, read_tasks

PANEL = Ensemble(("a", "b"), 2, "judge")


def candidates(*rows: tuple[str, int, bool, float, int]) -> list[Sampled]:
    return [Sampled("q", e, s, "t", str(right), right, value, -value, n, 0.0) for e, s, right, value, n in rows]


FOUND = candidates(("a", 0, False, 0.2, 3), ("a", 1, True, 0.95, 5), ("b", 0, False, 0.4, 9), ("b", 1, True, 0.5, 7))


def test_a_policy_played_chooses_as_it_would_and_counts_what_it_took() -> None:
    played = play(policy_named("ensemble"), PANEL, store(FOUND))
    assert (played.chosen, played.inferences, played.tokens) == (FOUND[1], 4, 24)
    single = play(policy_named("single", expert="b"), PANEL, store(FOUND))
    assert (single.chosen, single.inferences, single.tokens) == (FOUND[2], 1, 9)


def test_a_policy_that_stops_early_pays_only_for_what_was_written_by_then() -> None:
    played = play(policy_named("early_exit", sure_at=0.9), PANEL, store(FOUND))
    assert played.chosen == FOUND[1]
    assert played.tokens == 3 + 5 + 5 + 5


def test_a_cascade_played_starts_the_others_only_when_it_must() -> None:
    sure = play(policy_named("cascade", first="a", accept_at=0.1), PANEL, store(FOUND))
    assert (sure.inferences, sure.tokens) == (1, 3)
    unsure = play(policy_named("cascade", first="a", accept_at=0.8), PANEL, store(FOUND))
    assert (unsure.chosen, unsure.inferences) == (FOUND[1], 4)


def test_a_filter_played_asks_the_verifier_what_was_recorded() -> None:
    assert play(policy_named("filtered"), PANEL, store(FOUND)).chosen == FOUND[3]


def test_pass_at_k_is_the_chance_that_a_random_subset_holds_a_right_one() -> None:
    rng = np.random.default_rng(0)
    right = np.array([True] * 3 + [False] * 7)
    seen = np.mean([right[rng.permutation(10)[:4]].any() for _ in range(20_000)])
    assert pass_at(4, 10, 3) == pytest.approx(seen, abs=0.01)
    assert (pass_at(1, 10, 3), pass_at(8, 10, 3), pass_at(2, 2, 0)) == (pytest.approx(0.3), 1.0, 0.0)


def test_a_point_of_a_curve_is_the_mean_over_all_subsets_of_so_many_candidates() -> None:
    rng = np.random.default_rng(5)
    values, right = rng.permutation(6) / 6, rng.random(6) < 0.5
    found = candidates(*[("a", i, bool(right[i]), float(values[i]), 2 + i) for i in range(6)])
    points = curve({"q": found}, by_value=True)
    for n, point in enumerate(points, 1):
        picks = [max(some, key=lambda each: each.value or 0.0).correct for some in combinations(found, n)]
        assert point.accuracy.value == pytest.approx(np.mean(picks))
        assert point.tokens == pytest.approx(
            np.mean([sum(e.new_tokens for e in some) for some in combinations(found, n)])
        )
    tied = curve({"q": candidates(*[("a", i, i == 0, 0.5, 2) for i in range(4)])}, by_value=True)
    assert [point.accuracy.value for point in tied] == pytest.approx([0.25] * 4)


def test_a_pruned_query_pays_for_the_prefixes_that_it_dropped() -> None:
    spent: list[int] = []
    deliberation = counted(policy_named("pruned", after_tokens=3), spent)(Ensemble(("a", "b"), 1), Query(0, 1, 8))
    first, second = next(deliberation)
    prefixes = [Candidate(first, 3, -0.1, finished=False), Candidate(second, 3, -0.2, finished=False)]
    assert deliberation.send(prefixes[0]) == []
    going = deliberation.send(prefixes[1])
    assert [inference.continues for inference in going] == prefixes
    deliberation.send(Candidate(going[0], 5))
    with pytest.raises(StopIteration):
        deliberation.send(Candidate(going[1], 5))
    assert spent == [3, 3, 5, 5]


def test_auc_is_the_chance_that_a_right_one_is_scored_higher() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.4
    scores = np.round(right * 0.5 + rng.normal(size=300), 1)
    pairs = (scores[right][:, None] > scores[~right]) + 0.5 * (scores[right][:, None] == scores[~right])
    assert auc(scores.tolist(), right.tolist()) == pytest.approx(pairs.mean())
    assert auc([0.5, 0.7], [True, True]) is None


def test_wilsons_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(2)
    found = [share((rng.random(50) < 0.9).tolist()) for _ in range(2000)]
    assert np.mean([each.low <= 0.9 <= each.high for each in found]) == pytest.approx(0.96, abs=0.02)
    assert share([True] * 20).high == 1.0
    assert share([True] * 20).low == pytest.approx(0.839, abs=0.001)


def test_a_paired_difference_knows_that_the_queries_are_the_same() -> None:
    hard = np.random.default_rng(3).random(400) < 0.5
    better = hard | (np.arange(400) % 20 == 0)
    gap = difference(better.astype(float), hard.astype(float))
    assert gap.low > 0
    assert share(better.tolist()).low < share(hard.tolist()).high


def test_a_calibrated_judge_has_no_calibration_error() -> None:
    rng = np.random.default_rng(4)
    said = rng.random(20_000)
    bins = reliability(said.tolist(), (rng.random(20_000) < said).tolist())
    assert sum(each.count for each in bins) == 20_000
    assert calibration_error(bins) < 0.02
    assert calibration_error(reliability([0.9] * 10, [False] * 10)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("gap", "ratio", "words"),
    [
        (Interval(0.1, 0.05, 0.15), 16.0, "is right more often than"),
        (Interval(-0.1, -0.15, -0.05), 16.0, "does not pay against"),
        (Interval(0.01, -0.05, 0.06), 16.0, "does not pay against"),
        (Interval(0.01, -0.05, 0.06), 0.5, "is no better than"),
    ],
)
def test_a_comparison_says_plainly_whether_it_pays(gap: Interval, ratio: float, words: str) -> None:
    assert words in Comparison("ours", "theirs", gap, ratio).sentence()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"tasks\.jsonl:1: no tasks"),
        ('{"prompt": "a"}\n{"promt": "b"}\n', r"tasks\.jsonl:2: a task is a JSON object with a `prompt`"),
        ('{"prompt": "a"}\n\nnot json\n', r"tasks\.jsonl:3: not JSON"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}\n', "tasks 1 and 2 have the same id '1'"),
        ('{"prompt": ""}\n', r"tasks\.jsonl:1"),
        ("[1]\n", r"tasks\.jsonl:1"),
    ],
)
def test_a_task_file_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_tasks(path)


def test_a_task_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_tasks(tmp_path / "none.jsonl")


def test_functions_come_from_modules_and_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def check(prompt, text): return text == '42'\n")
    checker = Checker.named(f"{path}:check", None)
    assert checker.right(Task("1", "?"), "42")
    assert load_function("math:sqrt", "answer")(9) == 3
    for name, message in (
        ("nothing", "must be module:function"),
        ("no.such:thing", "cannot import no.such"),
        ("math:nothing", "has no function 'nothing'"),
        (f"{tmp_path}/none.py:f", "no such file"),
    ):
        with pytest.raises(ConfigError, match=f"verifier: .*{message}"):
            load_function(name, "verifier")


def test_without_a_verifier_the_reference_decides_and_must_be_there() -> None:
    checker = Checker()
    assert checker.right(Task("1", "?", "4 2"), " 4  2\n")
    with pytest.raises(ConfigError, match="task 7 has no reference"):
        checker.demand([Task("7", "?")], Path("tasks.jsonl"))


HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def twice(x):\n",
    "entry_point": "twice",
    "test": "def check(f):\n    assert f(2) == 4\n",
}
MBPP = {"task_id": 7, "text": "Double a number.", "test_list": ["assert twice(2) == 4", "assert twice(0) == 0"]}
GSM8K = {"question": "Two and two?", "answer": "2+2=4\n#### 1,004"}


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (HUMAN_EVAL, "    return 2 * x\n", "    return x\n"),
        (MBPP, "Here:\n```python\ndef twice(x):\n    return 2 * x\n```\nDone.", "def twice(x): return x"),
        (GSM8K, "It is 1004.", "It is 1005."),
    ],
    ids=["HumanEval", "MBPP", "GSM8K"],
)
def test_well_known_files_are_tasks_that_check_themselves(
    tmp_path: Path, row: dict[str, Any], right: str, wrong: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (task,) = read_tasks(path)
    checker = Checker()
    checker.demand([task], path)
    assert checker.right(task, right)
    assert not checker.right(task, wrong)


def test_a_number_has_one_spelling() -> None:
    assert [last_number(text) for text in ("1,004", "so 3 or 4.50", "-7.0", "none")] == ["1004", "4.5", "-7", None]


def test_an_evaluation_ends_with_its_table_its_records_and_its_sentences(
    bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    tasks, verifier = tmp_path / "tasks.jsonl", tmp_path / "has.py"
    tasks.write_text("".join(json.dumps({"id": f"t{i}", "prompt": f"mids {i}:"}) + "\n" for i in range(6)))
    verifier.write_text("def a(prompt, text): return 'a' in text\n")
    shares: list[float] = []
    options: dict[str, Any] = {"verifier": f"{verifier}:a", "best_of": 4, "max_new_tokens": 8, "seed": 3}
    found = evaluate(
        bundle,
        tasks,
        baselines={"rival": make_bundle(1)},
        out=tmp_path / "out",
        progress=lambda stage, share: shares.append(share),
        **options,
    )
    rows = {row.key: row for row in found.rows}
    assert {"single", "best_of_n", "majority", "ensemble", "early_exit", "cascade", "pruned", "oracle"} <= set(rows)
    assert all(row.accuracy.value <= rows["oracle"].accuracy.value for key, row in rows.items() if key == "ensemble")
    assert "rival_best_of_n" in rows
    assert rows["ensemble"].inferences == 4
    assert 0 < rows["pruned"].tokens <= rows["ensemble"].tokens
    assert all(rows[key].seconds for key in ("pruned", "cascade", "ensemble", "best_of_n"))
    assert {name: [each.n for each in points] for name, points in found.curves.items()} == {
        name: [1, 2, 3, 4] for name in (found.best, "ensemble")
    }
    assert found.curves["ensemble"][-1].accuracy == rows["ensemble"].accuracy
    assert found.curves["ensemble"][-1].tokens == pytest.approx(rows["ensemble"].tokens)
    assert all(points[n - 1].seconds for points in found.curves.values() for n in (1, 2, 4))
    assert found.best in ("expert-0", "expert-1")
    assert "flatters" in found.chosen_on
    assert all(0 <= share <= 1 for share in shares)
    document = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert document["kind"] == "eval"
    assert document["policies"][0]["accuracy"]["low"] <= document["policies"][0]["accuracy"]["value"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "outcomes.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * (4 + 2)
    assert {"query", "expert", "sample", "correct", "value", "mean_logprob", "answer", "new_tokens"} <= set(lines[0])
    again = evaluate(bundle, tasks, **options)
    assert [row.right.tolist() for row in again.rows] == [row.right.tolist() for row in found.rows[: len(again.rows)]]


REPLAYED: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("ensemble", "majority", "weighted_vote", "mean_logprob", "single", "filtered")),
    ("filtered", {"then": "majority"}),
    ("best_of_n", {"samples": 4, "by": "value"}),
    ("cascade", {"accept_at": 0.5}),
    ("early_exit", {"by": "majority"}),
]


def test_a_policy_played_over_stored_candidates_answers_as_when_it_is_run(bundle: Path) -> None:
    """But for stopping by value, which takes what arrives first. Texts and labels are short: votes are often tied."""
    checker = Checker(verify=lambda prompt, text: "a" in text)
    tasks = [Task(f"t{i}", f"mids {i}:", reference="a") for i in range(8)]
    label = lambda text: text[:1] or None  # noqa: E731
    options: dict[str, Any] = {"seed": 5, "max_new_tokens": 4, "temperature": 0.8, "top_k": 4}
    with Octavo.load(bundle, samples=4) as octavo:
        everything = sweep(octavo.ensemble.experts, range(4), judged=True)
        found = sample(octavo, tasks, Checker(checker.verify, label), everything, **options)
        for name, settings in REPLAYED:
            for number, task in enumerate(tasks):
                played = play(policy_named(name, **settings), octavo.ensemble, store(found[task.id]), number)
                verify = partial(checker.right, task)
                run = octavo.ask(
                    task.prompt, policy=name, settings=settings, number=number, label=label, verify=verify, **options
                )
                assert played.chosen is not None
                assert (played.chosen.text, name) == (run.text, name)


def test_values_of_a_head_on_the_experts_states_are_played_as_a_value_models_are(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    torch = pytest.importorskip("safetensors.torch")
    head = tmp_path / "head"
    head.mkdir()
    weight = np.random.default_rng(0).normal(size=(1, 32)).astype(np.float32)
    torch.save_file({"weight": pytest.importorskip("torch").from_numpy(weight)}, head / "value_head.safetensors")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"prompt": f"mids {i}:", "reference": "a"}) + "\n" for i in range(4)))
    found = evaluate(make_bundle(2, value=head), tasks, best_of=4, max_new_tokens=6)
    rows = {row.key: row for row in found.rows}
    assert {"ensemble", "best_of_n", "early_exit", "cascade", "pruned"} <= set(rows)
    assert found.judge is not None
    assert found.curves["ensemble"][-1].accuracy == rows["ensemble"].accuracy


def test_an_evaluation_that_was_interrupted_goes_on_with_what_it_had(bundle: Path, tmp_path: Path) -> None:
    tasks, out, asked = tmp_path / "tasks.jsonl", tmp_path / "out", tmp_path / "asked"
    tasks.write_text("".join(json.dumps({"id": f"t{i}", "prompt": f"mids {i}:"}) + "\n" for i in range(6)))
    (tmp_path / "has.py").write_text(f"def a(prompt, text): open({str(asked)!r}, 'a').write('.'); return 'a' in text\n")
    options: dict[str, Any] = {"verifier": f"{tmp_path}/has.py:a", "best_of": 4, "max_new_tokens": 8, "out": out}

    def stop(stage: str, share: float) -> None:
        if stage == "sampling the best expert":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(bundle, tasks, progress=stop, **options)
    kept = (out / "unfinished.jsonl").read_text()
    assert len(kept.splitlines()) == 1 + 3 * 6
    (out / "unfinished.jsonl").write_text(kept[:-5])
    with pytest.raises(ConfigError, match=r"an evaluation with settings .* was interrupted, now it is"):
        evaluate(bundle, tasks, seed=1, **options)
    asked.write_text("")
    found = evaluate(bundle, tasks, **options)
    sampled = 6 * 2 + 4  # the best expert's other samples, and the task that was cut off
    assert asked.read_text()[:sampled] == "." * sampled
    assert [each.name for each in sorted(out.iterdir())] == ["eval.json", "greedy.jsonl", "outcomes.jsonl"]
    whole = evaluate(bundle, tasks, **options | {"out": None})
    assert [row.right.tolist() for row in found.rows] == [row.right.tolist() for row in whole.rows]


def test_an_expert_of_nan_costs_its_candidates_and_not_the_evaluation(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"prompt": f"mids {i}:", "reference": "a"}) + "\n" for i in range(4)))
    found = evaluate(make_bundle(2, broken=[0]), tasks, best_of=4, max_new_tokens=8)
    assert found.best == "expert-1"
    assert {row.key for row in found.rows} >= {"single", "ensemble", "majority", "pruned", "oracle"}
