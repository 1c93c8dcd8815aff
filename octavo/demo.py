"""The whole claim in ten minutes: train, export, ask, eval, measure, simulate, report, each by its own command."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo import __version__
from octavo.profiles.errors import OctavoError
from octavo.terminal import note

DONE = "demo.json"
DOCUMENTS = {
    "eval": "eval/eval.json",
    "here": "simulate/here.json",
    "policies": "simulate/policies.json",
    "rumour": "simulate/gpt4-rumour.json",
}
SHOWN = (
    *("single", "best_of_n", "majority", "mean_logprob", "ensemble", "weighted_vote", "early_exit", "cascade"),
    *("generalist_single", "generalist_best_of_n"),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of the demo, what it is for, and what it leaves behind."""

    name: str
    purpose: str
    arguments: tuple[str, ...]
    leaves: tuple[str, ...]

    @property
    def command(self) -> str:
        return "octavo " + shlex.join(self.arguments)


def stages(folder: Path) -> list[Stage]:
    """The demo's commands, in order; all files go to `folder`."""

    def at(*parts: str) -> str:
        return str(folder.joinpath(*parts))

    experts = [at("train", f"expert-{number}") for number in range(8)]
    heldout, validation = at("train", "tasks", "heldout.jsonl"), at("train", "tasks", "validation.jsonl")
    verifier = ("--verifier", "octavo.exporters.train.task:verify", "--answer", "octavo.exporters.train.task:answer_of")
    value = ("--value", at("train", "value"))
    return [
        Stage(
            "train", "eight small experts, a value model and two baselines", ("train", at("train")), ("train/value",)
        ),
        Stage(
            "export",
            "nine checkpoints into one verified bundle",
            ("export", *experts, *value, "--out", at("bundle"), "--parity-text", validation, "--overwrite"),
            ("bundle/manifest.json",),
        ),
        *(
            Stage(
                f"export {name}",
                f"the {name} that the ensemble is compared with",
                ("export", at("train", name), *value, "--out", at(name), "--parity-text", validation, "--overwrite"),
                (f"{name}/manifest.json",),
            )
            for name in ("generalist", "soup")
        ),
        Stage("ask", "one prompt, sixteen candidates", ("ask", at("bundle"), "--task", heldout, "--seed", "1"), ()),
        Stage(
            "eval",
            "every policy on problems that no model has seen",
            (
                *("eval", at("bundle"), heldout, "--validation", validation, *verifier),
                *("--baseline", f"generalist={at('generalist')}", "--baseline", f"soup={at('soup')}"),
                *("--out", at("eval")),
            ),
            ("eval/eval.json", "eval/outcomes.jsonl"),
        ),
        Stage(
            "measure",
            "step times of this machine, and a load served in real time",
            ("measure", at("bundle"), "--prompts", heldout, "--out", at("measure")),
            ("measure/measure.json", "measure/trace.jsonl"),
        ),
        Stage(
            "simulate here",
            "the load just served, simulated from the measured step times",
            ("simulate", "--replay", at("measure"), "--out", at("simulate", "here.json")),
            ("simulate/here.json",),
        ),
        Stage(
            "simulate policies",
            "what each policy would cost with 8B experts on rented GPUs",
            (
                "simulate",
                "policies",
                "--outcomes",
                at("eval", "outcomes.jsonl"),
                "--out",
                at("simulate", "policies.json"),
            ),
            ("simulate/policies.json",),
        ),
        Stage(
            "simulate gpt4-rumour",
            "eight 220B experts against single models, on H100 nodes",
            ("simulate", "gpt4-rumour", "--out", at("simulate", "gpt4-rumour.json")),
            ("simulate/gpt4-rumour.json",),
        ),
        Stage(
            "report",
            "measured quality against simulated cost",
            (
                *("report", at("eval", "eval.json"), at("measure", "measure.json"), at("simulate", "here.json")),
                *(at("simulate", "policies.json"), at("simulate", "gpt4-rumour.json"), "--out", at("report.html")),
            ),
            ("report.html",),
        ),
    ]


class DemoError(OctavoError):
    """A stage failed; its own message stands above."""

    def __init__(self, stage: Stage, code: int) -> None:
        super().__init__(
            f"stage {stage.name!r} failed; mend what it says and run `octavo demo` again, it goes on from there"
        )
        self.exit_code = code


def run_demo(folder: Path, *, fresh: bool = False) -> dict[str, float]:
    """Run the stages that are not done yet; returns seconds per stage (0 for those found done).

    A stage counts as done when its command, octavo's version and the results of the stages before it are those
    recorded, and all that it leaves is there. Raises DemoError with the exit code of a stage that failed.
    """
    if fresh and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_done(folder)
    seconds: dict[str, float] = {}
    key = __version__
    for stage in stages(folder):
        key = hashlib.sha256(f"{key}\n{stage.command}".encode()).hexdigest()
        if done.get(stage.name) == key and all((folder / path).exists() for path in stage.leaves):
            note(f"{stage.name}: done before")
            seconds[stage.name] = 0.0
            continue
        done = {name: value for name, value in done.items() if name in seconds}
        seconds[stage.name] = _run(stage)
        done[stage.name] = key
        (folder / DONE).write_text(json.dumps(done, indent=2))
    return seconds


def summary(folder: Path, seconds: Mapping[str, float]) -> list[str]:
    """One screen: what the sixteen inferences bought, what they cost, and how far the simulation was off."""
    found = {name: json.loads((folder / path).read_text()) for name, path in DOCUMENTS.items()}
    right = {row["key"]: row for row in found["eval"]["policies"]}
    cost = {line["key"]: line for line in found["policies"]["lines"]}
    cost["ensemble"] = cost.pop("policies")
    rumour = {line["key"]: line for line in found["rumour"]["lines"]}
    errors = {row["metric"]: row["error"] for row in found["here"]["metrics"]}
    return [
        "",
        f"{'what they buy, measured here':<75} 8B on L40S, simulated",
        *(_line(right[key], cost.get(key)) for key in SHOWN if key in right),
        "",
        "RUMOUR, simulated: gpt4-rumour, on nodes of eight H100",
        *(_rumour(line) for line in rumour.values()),
        "",
        f"simulated against measured, the load just served: latency p50 {errors['latency_p50']:+.1%}, "
        f"p95 {errors['latency_p95']:+.1%}, TTFT p50 {errors['ttft_p50']:+.1%}",
        f"{sum(seconds.values()):.0f} s in all; the picture: {folder / 'report.html'}",
    ]


def _line(row: dict[str, Any], line: dict[str, Any] | None) -> str:
    accuracy = row["accuracy"]
    usd = _metric(line, "usd_per_query", "${:.2g} a query") if line else "not simulated"
    bounds = f"{accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%})"
    return f"{row['label']:<48.48} {bounds:<26} {usd}"


def _rumour(line: dict[str, Any]) -> str:
    if line["overloaded"]:
        return f"{line['key']:<18} overloaded at this traffic"
    usd, tokens = _metric(line, "usd_per_query", "${:.2g} a query"), _metric(line, "usd_per_million_tokens", "${:.3g}")
    p50 = _metric(line, "latency_p50", "p50 {:.3g} s")
    return f"{line['key']:<18} {usd:<18} {tokens:>6} per 1M answer tokens, {p50}, {line['devices']}"


def _metric(line: dict[str, Any], key: str, form: str) -> str:
    found = line["metrics"].get(key)
    return "-" if found is None else form.format(found["value"])


def _read_done(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / DONE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _run(stage: Stage) -> float:
    note(f"\n== {stage.name}: {stage.purpose}")
    note(f"$ {stage.command}")
    sys.stdout.flush()
    start = time.monotonic()
    code = _call([sys.executable, "-m", "octavo", *stage.arguments])
    if code:
        raise DemoError(stage, code)
    return time.monotonic() - start


def _call(command: Sequence[str]) -> int:
    """Run a command on this terminal; ctrl-C reaches it too, so wait for it to tidy up."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
