"""Measures the embedded default ensemble with torch alone: `python tests/bench/default_ensemble.py [folder]`.

Trains what is missing, then samples once per model and replays every way to choose. Prints Markdown.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForSequenceClassification

from octavo.exporters.train import DEFAULT, Trained, train_ensemble
from octavo.exporters.train.alphabet import answer_rows, prompt_rows
from octavo.exporters.train.calibration import calibrate
from octavo.exporters.train.models import Network, open_decoder
from octavo.exporters.train.problems import Problem
from octavo.exporters.train.sampling import sample
from octavo.exporters.train.task import PUZZLES, answer_of, verify
from octavo.exporters.train.verdicts import Candidates, logits_of


@dataclass(frozen=True)
class Pool:
    """Sixteen candidates per problem: verdicts, value logits and mean log-probs, all (problems, candidates)."""

    right: Tensor
    value: Tensor
    logprob: Tensor
    answers: list[list[str]]

    def picked_by(self, figure: Tensor) -> Tensor:
        return self.right.gather(1, figure.argmax(1, keepdim=True))[:, 0]

    def majority(self) -> Tensor:
        votes = [Counter(answers).most_common(1)[0][0] for answers in self.answers]
        places = [answers.index(vote) for answers, vote in zip(self.answers, votes, strict=True)]
        return self.right[torch.arange(len(places)), torch.tensor(places)]

    def weighted_vote(self) -> Tensor:
        """The answer whose candidates' scores sum to the most."""
        weights = torch.sigmoid(self.value).tolist()
        places = []
        for answers, scores in zip(self.answers, weights, strict=True):
            sums: Counter[str] = Counter()
            for answer, score in zip(answers, scores, strict=True):
                sums[answer] += score
            places.append(answers.index(max(sums, key=sums.__getitem__)))
        return self.right[torch.arange(len(places)), torch.tensor(places)]


def pool(models: Sequence[Network], samples: int, problems: list[Problem], value: Network, temperature: float) -> Pool:
    prompts = prompt_rows(problems).repeat_interleave(samples, 0)
    references = answer_rows(problems).repeat_interleave(samples, 0)
    right, values, logprobs, answers = [], [], [], []
    for seed, model in enumerate(models):
        drawn = sample(model, prompts, DEFAULT.new_tokens, temperature, seed=1000 + seed)
        texts = drawn.texts()
        verdicts = [verify(problems[row // samples].prompt, text) for row, text in enumerate(texts)]
        right.append(torch.tensor(verdicts).view(-1, samples))
        values.append(logits_of(value, Candidates(prompts, drawn.tokens, references)).view(-1, samples))
        logprobs.append(drawn.mean_logprob.view(-1, samples))
        labels = [answer_of(text) for text in texts]
        answers.append([labels[row : row + samples] for row in range(0, len(labels), samples)])
    merged = [[label for part in parts for label in part] for parts in zip(*answers, strict=True)]
    return Pool(torch.cat(right, 1), torch.cat(values, 1), torch.cat(logprobs, 1), merged)


def greedy(model: Network, problems: list[Problem]) -> Tensor:
    texts = sample(model, prompt_rows(problems), DEFAULT.new_tokens, 0, seed=0).texts()
    return torch.tensor([verify(problem.prompt, text) for problem, text in zip(problems, texts, strict=True)])


def wilson(right: Tensor) -> str:
    """A share with its 95 % interval."""
    n, p, z = len(right), float(right.float().mean()), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{p:.3f} ({middle - half:.3f}–{middle + half:.3f})"


def rows(name: str, found: Pool) -> list[str]:
    ways = {
        "value model": found.picked_by(found.value),
        "value-weighted vote": found.weighted_vote(),
        "mean log-prob": found.picked_by(found.logprob),
        "majority": found.majority(),
        "oracle = verifier as filter": found.right.any(1),
    }
    figures = calibrate(found.value, found.right)
    lines = [f"| {name} | {way} | {wilson(right)} |" for way, right in ways.items()]
    aucs = f"AUC {figures.auc:.3f}, within a query {figures.auc_within_query:.3f}"
    return [*lines, f"| {name} | one sample, mean | {float(found.right.float().mean()):.3f}; value {aucs} |"]


def read(path: Path) -> list[Problem]:
    return [Problem(line["prompt"], line["reference"]) for line in map(json.loads, path.read_text().splitlines())]


def per_puzzle(names: Sequence[str], verdicts: Sequence[Tensor], problems: list[Problem]) -> list[str]:
    kinds = [problem.prompt.split()[0] for problem in problems]
    lines = ["| | " + " | ".join(PUZZLES) + " | all |", "|---" * (len(PUZZLES) + 2) + "|"]
    for name, right in zip(names, verdicts, strict=True):
        shares = [right[torch.tensor([kind == puzzle for kind in kinds])].float().mean() for puzzle in PUZZLES]
        lines.append(f"| {name} | " + " | ".join(f"{share:.2f}" for share in (*shares, right.float().mean())) + " |")
    return lines


def costs(trained: Trained) -> list[str]:
    names = ("base", *(path.name for path in trained.experts), "soup", "value", "generalist")
    records = [json.loads((trained.folder / name / "training.json").read_text()) for name in names]
    lines = ["| stage | CPU-seconds | seconds | loss |", "|---|---|---|---|"]
    for record in records:
        loss = "" if record["loss"] is None else f"{record['loss']:.3f}"
        lines.append(f"| {record['stage']} | {record['cpu_seconds']:.0f} | {record['wall_seconds']:.0f} | {loss} |")
    return [*lines, f"| all | {sum(record['cpu_seconds'] for record in records):.0f} | | |"]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    trained = train_ensemble(folder)
    problems, validation = read(trained.heldout), read(trained.validation)
    experts = [open_decoder(path) for path in trained.experts]
    generalist, soup = (open_decoder(path) for path in trained.baselines)
    value = LlamaForSequenceClassification.from_pretrained(trained.value)
    best = max(range(len(experts)), key=lambda number: float(greedy(experts[number], validation).float().mean()))
    alone = [greedy(model, problems) for model in (*experts, soup, generalist)]
    names = [*(path.name for path in trained.experts), "soup", "generalist"]
    heat = DEFAULT.temperature
    print("| candidates | chosen by | right (95 % interval) |\n|---|---|---|")
    print(f"| expert-{best}, best on validation | greedy | {wilson(alone[best])} |")
    print(f"| soup | greedy | {wilson(alone[-2])} |\n| generalist | greedy | {wilson(alone[-1])} |")
    for name, models, samples in (
        ("8 experts x 2", experts, 2),
        (f"expert-{best} x 16", [experts[best]], 16),
        ("soup x 16", [soup], 16),
        ("generalist x 16", [generalist], 16),
    ):
        print("\n".join(rows(name, pool(models, samples, problems, value, heat))), flush=True)
    print("\n" + "\n".join(per_puzzle(names, alone, problems)))
    print("\n" + "\n".join(costs(trained)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "octavo-demo/train"))
