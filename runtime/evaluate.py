"""`evaluate`: one sampling run, every policy played over it, and what the ensemble is worth beside its rivals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.manifest import MANIFEST_NAME, sha256_of
from octavo.runtime.contest import (
    Candidates,
    Row,
    Way,
    arrived,
    contest,
    counted,
    greedy_rows,
    oracle,
    pruning,
    right_by,
    ways,
)
from octavo.runtime.core.policies import Policy, policy_named
from octavo.runtime.core.query import Ensemble
from octavo.runtime.curves import MOST, Point, curve
from octavo.runtime.datasets import Task
from octavo.runtime.kept import Kept, keeping
from octavo.runtime.local import Octavo, Result
from octavo.runtime.machine import machine
from octavo.runtime.sampled import Sampled, sample, served, sweep
from octavo.runtime.statistics import Interval, Judge, difference, judge, pass_at
from octavo.runtime.tasks import Checker, read_tasks

Progress = Callable[[str, float], None]
KS = (1, 2, 4, 8, 16, 32, 64, 100)
TIMED_TASKS = 16  # asked one at a time under each policy, for their latency


def silent(stage: str, share: float) -> None:
    """No progress is shown."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ensemble less a rival, on the same tasks; `tokens_ratio` is its tokens over the rival's."""

    ensemble: str
    rival: str
    difference: Interval
    tokens_ratio: float

    def sentence(self) -> str:
        gap, tokens = self.difference, f"with {self.tokens_ratio:.2g} x its tokens"
        figures = f"{gap.value:+.3f} (95 % interval {gap.low:+.3f} to {gap.high:+.3f})"
        if gap.low > 0:
            return f"{self.ensemble} is right more often than {self.rival}: {figures}, {tokens}."
        if gap.high < 0:
            return f"{self.ensemble} does not pay against {self.rival}, which is right more often: {figures}, {tokens}."
        verdict = "does not pay against" if self.tokens_ratio > 1 else "is no better than"
        return f"{self.ensemble} {verdict} {self.rival}: no difference is shown, {figures}, {tokens}."


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found. `statements` say what it means, plainly.

    `pass_at_k` is by who was sampled, then k; so are `curves`, for the best expert and for all of them.
    """

    queries: int
    rows: list[Row]
    comparisons: list[Comparison]
    judge: Judge | None
    pass_at_k: dict[str, dict[int, float]]
    curves: dict[str, list[Point]]
    best: str
    chosen_on: str
    statements: list[str]
    machine: dict[str, str]

    def to_json(self) -> str:
        """The document that `octavo report` reads."""
        judged = asdict(self.judge) if self.judge else {}
        document = {
            "kind": "eval",
            "queries": self.queries,
            "best": self.best,
            "chosen_on": self.chosen_on,
            "policies": [_policy(row) for row in self.rows],
            "comparisons": [asdict(each) for each in self.comparisons],
            "value_auc": None if judged.get("auc") is None else {"value": judged["auc"]},
            "value_auc_within": judged.get("auc_within"),
            "value_brier": judged.get("brier"),
            "value_calibration_error": judged.get("calibration_error"),
            "reliability": judged.get("reliability", []),
            "pass_at_k": self.pass_at_k,
            "curves": {name: [asdict(point) for point in points] for name, points in self.curves.items()},
            "statements": self.statements,
            "machine": self.machine,
        }
        return json.dumps(document, indent=2) + "\n"


def _policy(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "label": row.label,
        "accuracy": asdict(row.accuracy),
        "inferences_per_query": row.inferences,
        "tokens_per_query": row.tokens,
        "seconds_per_query": row.seconds,
        "tokens_per_second": row.tokens_per_second,
        "note": row.note,
    }


def evaluate(
    bundle: Path,
    tasks: Path,
    *,
    verifier: str | None = None,
    answer: str | None = None,
    validation: Path | None = None,
    baselines: Mapping[str, Path] | None = None,
    samples: int | None = None,
    best_of: int = 16,
    limit: int | None = None,
    seed: int = 0,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    variants: Mapping[str, str] | None = None,
    out: Path | None = None,
    progress: Progress = silent,
    **load: Any,
) -> Evaluation:
    """Sample every candidate once and let every policy choose among them.

    `verifier` and `answer` are `module:function` or `file.py:function`: the one says of (prompt, text) whether it is
    right, the other finds the label that votes count; without a verifier a text is right when its label is the
    reference's. The best expert is chosen on the `validation` tasks (on the tasks themselves, where there are none, and
    then it says so). `baselines` are other bundles by name: their first expert is asked greedily and `best_of` times.
    `variants` are the experts' own forms of the prompt, as for `Octavo.ask`; `load` goes to `Octavo.load`. With `out`,
    a folder, it writes eval.json, outcomes.jsonl (which the simulator reads) and greedy.jsonl; one that was interrupted
    leaves what it has sampled there, and the same call, perhaps with another `limit`, goes on with it.

    Raises ConfigError, naming file and line, BundleError or MachineError.
    """
    checker = Checker.named(verifier, answer)
    test, known = read_tasks(tasks, limit), read_tasks(validation, limit) if validation else []
    checker.demand(test, tasks)
    checker.demand(known, validation or tasks)
    plain: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed}
    heat = {} if temperature is None else {"temperature": temperature}
    options = plain | {"variants": variants}
    hot = options | heat
    made = {
        "kind": "eval",
        "files": {str(path): hashed(path) for path in inputs(bundle, tasks, validation, baselines, verifier, answer)},
        "settings": [verifier, answer, samples, best_of, seed, temperature, max_new_tokens, variants],
    }
    with keeping(out, made) as kept:
        with Octavo.load(bundle, samples=samples, **load) as octavo:
            run = _Run(octavo, checker, test, best_of, options, hot, progress, kept)
            best, chosen_on = run.choose(known)
            rows, sampled, greedy = run.rows(best, chosen_on)
            where = {device: " ".join(names) for device, names in _devices(octavo).items()}
            about = machine() | octavo.about | {"threads": str(octavo.placed.threads)} | where
            count = octavo.ensemble.samples_per_expert
            curves = run.curves(best, sampled)
        for name, path in (baselines or {}).items():
            with Octavo.load(path, **load) as rival:
                rows += _Run(rival, checker, test, best_of, plain, plain | heat, progress, kept).baseline(name)
        found = _evaluation(test, rows, sampled, curves, best, chosen_on, count, about)
        if out is not None:
            _write(out, found, sampled, greedy)
    return found


def inputs(
    bundle: Path,
    tasks: Path,
    validation: Path | None,
    baselines: Mapping[str, Path] | None,
    verifier: str | None,
    answer: str | None,
) -> list[Path]:
    """The files that decide what an evaluation finds."""
    bundles = [path / MANIFEST_NAME for path in (bundle, *(baselines or {}).values())]
    sources = [Path(name.rpartition(":")[0]) for name in (verifier, answer) if name]
    return [*bundles, tasks, *([validation] if validation else []), *(each for each in sources if each.suffix == ".py")]


def hashed(path: Path) -> str | None:
    """None where there is no such file: whoever opens it will say so."""
    return sha256_of(path) if path.is_file() else None


@dataclass(slots=True)
class _Run:
    """One bundle's part of an evaluation."""

    octavo: Octavo
    checker: Checker
    tasks: list[Task]
    best_of: int
    cold: dict[str, Any]
    hot: dict[str, Any]
    progress: Progress
    kept: Kept | None

    @property
    def ensemble(self) -> Ensemble:
        return self.octavo.ensemble

    @property
    def judged(self) -> bool:
        """Whether candidates have values: a value model's, or those of a head on the experts' own states."""
        return self.octavo.manifest.value is not None

    def sample(self, stage: str, tasks: Sequence[Task], experts: Sequence[str], samples: range) -> Candidates:
        """Candidates of these experts; `range(1)` of stage greedy is greedy."""
        greedy = stage.startswith("greedy")
        options = self.cold | {"temperature": 0.0} if greedy else self.hot
        judged = not greedy and self.judged
        told = lambda done: self.progress(stage, done / len(tasks))  # noqa: E731
        policy = sweep(experts, samples, judged=judged)
        return sample(self.octavo, tasks, self.checker, policy, told, self.kept, stage, **options)

    def choose(self, known: Sequence[Task]) -> tuple[str, str]:
        """The expert whose greedy answers are right most often, and what it was chosen on."""
        experts = self.ensemble.experts
        if len(experts) == 1:
            return experts[0], "nothing: it is the only one"
        greedy = self.sample("greedy, to choose the best", known or self.tasks, experts, range(1))
        best = max(experts, key=lambda name: (right_by(greedy, name).mean(), len(arrived(greedy, name))))
        return best, f"{len(known)} validation tasks" if known else "the test tasks themselves, which flatters it"

    def rows(self, best: str, chosen_on: str) -> tuple[list[Row], dict[str, list[Sampled]], Candidates]:
        """Rows of the bundle; its sampled candidates, those of the ensemble first; its greedy candidates."""
        experts, count = self.ensemble.experts, self.ensemble.samples_per_expert
        greedy = self.sample("greedy", self.tasks, experts, range(1))
        crowd = self.sample("sampling all experts", self.tasks, experts, range(count))
        more = range(count, self.best_of)
        extra = self.sample("sampling the best expert", self.tasks, [best], more) if more else {}
        sampled = {task: [*found, *extra.get(task, ())] for task, found in crowd.items()}
        lineup = ways(best, count, self.best_of)
        rows = greedy_rows(greedy, best, f"chosen on {chosen_on}") + contest(
            lineup, self.ensemble, sampled, judged=self.judged
        )
        if self.judged:
            lineup.append(pruning(crowd, count))
            rows.append(self.live(lineup[-1]))
        rows = self.timed(rows, [Way("single", "", "single", {"expert": best}), *lineup])
        return [*rows, oracle(sampled, count)], sampled, greedy

    def timed(self, rows: list[Row], lineup: Sequence[Way]) -> list[Row]:
        """Ask some tasks one at a time under each policy, and note how long that takes."""
        by_key = {way.key: way for way in lineup}
        timed = []
        for number, row in enumerate(rows):
            self.progress("timing each policy", number / len(rows))
            found = self.time(by_key[row.key]) if row.key in by_key else None
            timed.append(row.timed(*found) if found else row)
        return timed

    def live(self, way: Way) -> Row:
        """Answer every task by a policy that stored candidates cannot play: it judges what is half written."""
        spent: list[int] = []
        policy = counted(policy_named(way.policy, **way.settings), spent)
        told = lambda done: self.progress(f"running {way.key}", done / len(self.tasks))  # noqa: E731
        verdicts: dict[str, bool] = {}

        def hear(task: Task, result: Result) -> None:
            verdicts[task.id] = self.checker.right(task, result.text)

        served(self.octavo, list(enumerate(self.tasks)), policy, self.checker, hear, told, **self.hot)
        right = np.array([verdicts[task.id] for task in self.tasks], float)
        return Row(
            way.key, way.label, right, self.ensemble.inferences_per_query, sum(spent) / len(right), "run, not replayed"
        )

    def curves(self, best: str, sampled: Candidates) -> dict[str, list[Point]]:
        """Of the best expert alone, and of all experts."""
        count, judged = self.ensemble.samples_per_expert, self.judged
        alone = {task: [each for each in found if each.expert == best] for task, found in sampled.items()}
        crowd = {task: [each for each in found if each.sample < count] for task, found in sampled.items()}
        own = self.seconds([([best], n) for n in KS if n <= MOST], judged, alone)
        experts = self.ensemble.experts
        spread = [
            (experts[:n], -(-n // len(experts)))
            for n in KS
            if n <= MOST and (n < len(experts) or n % len(experts) == 0)
        ]
        return {
            best: curve(alone, by_value=judged, seconds=own),
            "ensemble": curve(crowd, by_value=judged, seconds=self.seconds(spread, judged, crowd)),
        }

    def seconds(self, sizes: Sequence[tuple[Sequence[str], int]], judged: bool, found: Candidates) -> dict[int, float]:
        """Median latency of a query asked alone, by its number of candidates, as far as so many were sampled."""
        most = min(map(len, found.values()))
        medians: dict[int, float] = {}
        for experts, samples in sizes:
            if (n := len(experts) * samples) <= most:
                self.progress("timing the curves", n / most)
                timed = self.latency(sweep(experts, range(samples), judged=judged), self.hot)
                medians |= {n: timed[0]} if timed else {}
        return medians

    def time(self, way: Way) -> tuple[float, float] | None:
        options = self.cold | {"temperature": 0.0} if way.key == "single" else self.hot
        return self.latency(policy_named(way.policy, **way.settings), options)

    def latency(self, policy: Policy, options: Mapping[str, Any]) -> tuple[float, float] | None:
        """Median seconds of a query asked alone, and the tokens per second that all wrote; None: no query was answered.

        Its experts may all have been lost.
        """
        seconds: list[float] = []
        spent: list[int] = []
        for task in self.tasks[:TIMED_TASKS]:
            verify = lambda text, task=task: self.checker.right(task, text)  # noqa: E731
            functions = {"label": self.checker.label_of(task), "verify": verify}
            begun = perf_counter()
            with suppress(MachineError):
                self.octavo.ask(task.prompt, policy=counted(policy, spent), **functions, **options)
                seconds.append(perf_counter() - begun)
        return (median(seconds), sum(spent) / sum(seconds)) if seconds else None

    def baseline(self, name: str) -> list[Row]:
        """A rival's first expert: greedy, and `best_of` samples among which its value model picks."""
        expert = self.ensemble.experts[0]
        greedy = self.sample(f"greedy {name}", self.tasks, [expert], range(1))
        sampled = self.sample(f"sampling {name}", self.tasks, [expert], range(self.best_of))
        settings = {"expert": expert, "samples": self.best_of}
        lineup = [
            Way("best_of_n", "value model picks", "best_of_n", settings | {"by": "value"}, True),
            Way("best_of_n_logprob", "log-prob", "best_of_n", settings | {"by": "mean_logprob"}),
        ]
        first = greedy_rows(
            {task: [e for e in found if e.expert == expert] for task, found in greedy.items()}, expert, ""
        )
        rows = self.timed(
            [*first, *contest(lineup, self.ensemble, sampled, judged=self.judged)],
            [Way("single", "", "single", {"expert": expert}), *lineup],
        )
        labels = ["greedy", *(f"x {self.best_of}, {way.label}" for way in lineup)]
        if not self.judged:
            labels.pop(1)
        return [_named(row, name, label) for row, label in zip(rows, labels, strict=True)]


def _named(row: Row, name: str, label: str) -> Row:
    return Row(
        f"{name}_{row.key}",
        f"{name}, {label}",
        row.right,
        row.inferences,
        row.tokens,
        "",
        row.seconds,
        row.tokens_per_second,
    )


def _evaluation(
    tasks: Sequence[Task],
    rows: list[Row],
    sampled: Mapping[str, Sequence[Sampled]],
    curves: dict[str, list[Point]],
    best: str,
    chosen_on: str,
    count: int,
    about: dict[str, str],
) -> Evaluation:
    crowd = {task: [each for each in found if each.sample < count] for task, found in sampled.items()}
    compared = comparisons(rows)
    return Evaluation(
        queries=len(tasks),
        rows=rows,
        comparisons=compared,
        judge=judged(crowd),
        pass_at_k=_pass_at_k(sampled, crowd, best),
        curves=curves,
        best=best,
        chosen_on=chosen_on,
        statements=[each.sentence() for each in compared],
        machine=about,
    )


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """The value model's pick, or the best way that needs none, against every rival that is one model."""
    found = {row.key: row for row in rows}
    ours = found.get("ensemble") or found["mean_logprob"]
    rivals = [row for row in rows if row.key in ("single", "best_of_n") or row.key.endswith(("_single", "_best_of_n"))]
    extra = [found[key] for key in ("majority", "mean_logprob") if found.get(key) not in (None, ours)]
    return [
        Comparison(ours.label, rival.label, difference(ours.right, rival.right), ours.tokens / max(rival.tokens, 1e-9))
        for rival in [*rivals, *extra]
    ]


def judged(candidates: Candidates) -> Judge | None:
    """The value model over the ensemble's candidates; None where nothing was scored."""
    return judge([[(e.value, e.correct) for e in found if e.value is not None] for found in candidates.values()])


def _pass_at_k(sampled: Candidates, crowd: Candidates, best: str) -> dict[str, dict[int, float]]:
    """Unbiased, for the best expert and for the ensemble's candidates as if they were one model's."""
    alone = {task: [each for each in found if each.expert == best] for task, found in sampled.items()}
    return {name: _passes(found) for name, found in ((best, alone), ("ensemble", crowd))}


def _passes(candidates: Candidates) -> dict[int, float]:
    fewest = min(len(found) for found in candidates.values())
    counts = [(len(found), sum(each.correct for each in found)) for found in candidates.values()]
    return {
        k: float(np.mean([pass_at(k, n, c) for n, c in counts])) for k in (1, 2, 4, 8, 16, 32, 64, 100) if k <= fewest
    }


def _devices(octavo: Octavo) -> dict[str, list[str]]:
    return {lane.device: list(lane.engines) for lane in octavo.placed.lanes}


def _write(out: Path, found: Evaluation, sampled: Candidates, greedy: Candidates) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, candidates in (("outcomes.jsonl", sampled), ("greedy.jsonl", greedy)):
            rows = (each.record() for task in candidates.values() for each in task)
            (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (out / "eval.json").write_text(found.to_json(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot write the evaluation: {error.strerror}") from None
