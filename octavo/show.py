"""What the commands print: tables for people, the same facts as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from octavo import terminal
from octavo.profiles.errors import ConfigError, MachineError

if TYPE_CHECKING:
    from octavo.profiles.manifest import Manifest, Weights
    from octavo.runtime.evaluate import Evaluation
    from octavo.runtime.local import Result as Answer
    from octavo.runtime.measure import Measurement
    from octavo.runtime.ort.survey import Surveyed
    from octavo.simulator.result import Result as Simulation

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8", "int4"]
KVPrecision: TypeAlias = Literal["model", "int8"]
Reads: TypeAlias = Literal["tokens", "text", "pair", "chat"]


def choice(key: str, value: str, choices: object) -> Any:
    """The value, if it is one of a Literal's; otherwise a ConfigError that names them."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ConfigError(f"--{key}: {value!r} is not one of {', '.join(allowed)}")
    return value


def size(count: float) -> str:
    """Bytes for people: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def manifest(bundle: Manifest, folder: Path, surveyed: Sequence[Surveyed] = (), *, as_json: bool) -> None:
    """A bundle's graphs and models, their parity with the originals, what a token's KV costs, what runs where."""
    if as_json:
        assignment = {"assignment": [graph.as_dict() for graph in surveyed]} if surveyed else {}
        print(json.dumps(bundle.model_dump(mode="json") | assignment, indent=2))
        return
    rows = [_parity_row(expert.name, expert.model_type, w) for expert in bundle.experts for w in expert.weights]
    if value := bundle.value:
        rows += [_parity_row(value.name, value.model_type, weights) for weights in value.weights]
    columns = ("model", "type", "graph", "max |dlogit|", "mean KL", "top-1", "greedy equal")
    terminal.show(terminal.table("", columns, rows, left=3))
    for graph in bundle.graphs:
        kv = ""
        if graph.kv:
            stored = f" in {graph.kv.dtype}" if graph.kv.scales else ""
            kv = f", {size(graph.kv.bytes_per_token)} of KV per token{stored}, context {graph.kv.max_length}"
        runs_on = ", ".join(p.removesuffix("ExecutionProvider") for p in graph.providers)
        terminal.say(f"graph {graph.name}: {graph.precision}, opset {graph.opset}, for {runs_on}{kv}")
        if built := graph.build:
            terminal.say(f"  built by {built.library} in {built.seconds:.1f} s, {size(built.engine_bytes)}")
    if value and value.reads != "tokens":
        terminal.say(f"{value.name}: reads {value.reading}")
    for found in surveyed:
        counted = ", ".join(f"{count} nodes on {provider}" for provider, count in sorted(found.nodes.items()))
        terminal.say(f"opened {found.graph} for {found.provider}: {counted}; products by {found.kernels}")
        if found.fallback:
            terminal.say(f"  FALLBACK: {found.fallback}")
    state = "verified" if bundle.verified else "NOT verified: the parity check was switched off"
    terminal.say(
        f"{folder}: {len(bundle.experts)} experts, {size(bundle.total_bytes())}, {len(bundle.files)} files, {state}"
    )


def _parity_row(name: str, kind: str, weights: Weights) -> tuple[str, ...]:
    parity = weights.parity
    if parity is None:
        return (name, kind, weights.graph, "-", "-", "-", "-")
    greedy = "-" if parity.greedy_equal is None else ("yes" if parity.greedy_equal else "no")
    return (
        *(name, kind, weights.graph, f"{parity.max_abs_error:.1e}", f"{parity.mean_kl:.1e}"),
        *(f"{parity.top1_agreement:.2%}", greedy),
    )


def prompt_of(prompt: str | None, task: Path | None, number: int) -> str:
    """The prompt given, or the one of a task file. Raises ConfigError."""
    if (prompt is None) == (task is None):
        raise ConfigError("ask: give either a prompt or --task FILE")
    if task is None:
        return str(prompt)
    from octavo.runtime.tasks import read_tasks

    tasks = read_tasks(task)
    if number >= len(tasks):
        raise ConfigError(f"--number {number}: {task} holds {len(tasks)} tasks, numbered from 0")
    return tasks[number].prompt


def json_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises ConfigError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: must hold a JSON object, got {type(found).__name__}")
    return found


def answer(result: Answer, *, as_json: bool) -> None:
    """Every candidate of a query, and the one that was chosen."""
    if as_json:
        terminal.dump(asdict(result))
        return
    rows = [
        (
            *("*" if reply.chosen else "", reply.expert, str(reply.sample), reply.text.strip() or "(nothing)"),
            *(f"{reply.mean_logprob:.3f}", "-" if reply.value is None else f"{reply.value:.3f}"),
        )
        for reply in result.candidates
    ]
    terminal.say(f"prompt: {result.prompt}")
    columns = ("", "expert", "sample", "text", "mean log-prob", "value")
    terminal.show(terminal.table("", columns, rows, left=4))
    terminal.say(f"answer: {result.text.strip()}")
    terminal.say(f"by {result.chosen.expert}: {result.reason}{' (degraded)' if result.degraded else ''}")
    terminal.say(f"{result.prompt_tokens} prompt tokens, {result.new_tokens} new tokens, on {result.provider}")
    terminal.note(
        f"{result.seconds:.3f} s, products by {result.kernels}" + (f"; {result.fallback}" if result.fallback else "")
    )


def pair(key: str, text: str) -> tuple[str, Path]:
    """NAME=PATH. Raises ConfigError."""
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise ConfigError(f"--{key} {text!r}: write NAME=PATH")
    return name, Path(path)


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE each; a value is a number where it can be one, a text otherwise. Raises ConfigError."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise ConfigError(f"--set {text!r}: write KEY=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def evaluation(found: Evaluation, *, as_json: bool) -> None:
    """Every policy's accuracy and what it took, and in words what that means."""
    if as_json:
        print(found.to_json(), end="")
        return
    rows = [
        (
            *(row.label, f"{row.accuracy.value:.3f}", f"{row.accuracy.low:.3f}-{row.accuracy.high:.3f}"),
            *(f"{row.inferences:.3g}", f"{row.tokens:.0f}"),
            *(_maybe(row.seconds, "{:.1f}", 1000), _maybe(row.tokens_per_second, "{:.0f}")),
        )
        for row in found.rows
    ]
    columns = ("", "right", "95 %", "runs", "tok", "ms", "tok/s")
    terminal.show(terminal.table("", columns, rows))
    terminal.say("runs, tok(ens) and ms are of one query; ms on this machine, one query at a time")
    if found.judge and found.judge.auc is not None:
        within = f", {found.judge.auc_within:.3f} within a query" if found.judge.auc_within is not None else ""
        terminal.say(f"value model: AUC {found.judge.auc:.3f}{within}")
    for statement in found.statements:
        terminal.say(f"- {statement}")
    _fallback(found.machine)


def _fallback(machine: Mapping[str, str]) -> None:
    if why := machine.get("fallback"):
        terminal.say(f"FALLBACK: {why}")


def _maybe(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else form.format(value * factor)


def measurement(found: Measurement, out: Path, *, as_json: bool) -> None:
    """What a step takes here, and the load that was served."""
    from octavo.runtime.core.trace import QueryRecord

    if as_json:
        print(found.to_json(), end="")
        return
    rows = []
    for profile in found.profiles:
        per = profile.coefficients
        us = (f"{per.get(name, 0.0) * 1e6:.3g}" for name in ("step", "decoding row", "prefill token", "prefill row"))
        rows.append(
            (profile.name, profile.kind, *us, str(len(profile.steps)), f"{profile.residuals.get('mape', 0):.1%}")
        )
    columns = ("", "", "us/step", "us/row", "us/prefill token", "us/prompt", "steps", "fit error")
    terminal.show(terminal.table("", columns, rows, left=2))
    latency = [r.latency * 1e3 for r in found.trace if isinstance(r, QueryRecord) and r.latency is not None]
    if len(latency) > 1:
        cuts = quantiles(latency, n=20)
        served = f"served {len(latency)} queries " + (f"at {found.rate:.3g}/s" if found.rate < inf else "at once")
        terminal.say(f"{served}: latency p50 {median(latency):.1f} ms, p95 {cuts[18]:.1f} ms")
    if found.left_out:
        terminal.say(f"left out {found.left_out} recorded queries: longer than the context")
    terminal.say(f"wrote {', '.join(sorted(path.name for path in out.iterdir()))} in {out}")
    _fallback(found.profiles[0].machine)


# What a line of a simulation shows: the metric, its heading, and how it is written.
COLUMNS: dict[str, tuple[str, str]] = {
    "ttft_p50": ("TTFT", "{:.3g}"),
    "latency_p50": ("p50 s", "{:.3g}"),
    "latency_p95": ("p95 s", "{:.3g}"),
    "accuracy": ("right", "{:.1%}"),
    "usd_per_query": ("$/query", "{:.2g}"),
    "usd_per_million_tokens": ("$/1M", "{:.3g}"),
    "kwh": ("kWh", "{:.3g}"),
    "utilisation": ("busy", "{:.0%}"),
}


def simulation(results: Sequence[Simulation], out: Path | None, trace_out: Path | None, *, as_json: bool) -> None:
    """A scenario and its baselines, a line each; what is overloaded has no latency."""
    from octavo.runtime.core.trace import to_lines
    from octavo.simulator.result import document

    text = document(results)
    if out:
        write(out, text)
    if trace_out:
        write(trace_out, "".join(f"{line}\n" for line in to_lines(results[0].records)))
    if as_json:
        print(text, end="")
        return
    first = results[0]
    terminal.say(f"{first.scenario.name}: {first.scenario.description}")
    rows = [(each.name, *(_cell(each, key) for key in COLUMNS), _devices(each)) for each in results]
    terminal.show(terminal.table("", ("", *(heading for heading, _ in COLUMNS.values()), "devices"), rows))
    terminal.say("TTFT and p50 are medians; $/1M is per million answer tokens; kWh of the whole run")
    for remark, names in _remarks(results).items():
        terminal.say(f"- {', '.join(names) if len(names) < len(results) else 'all'}: {remark}")
    if sure := _intervals(first):
        terminal.say(f"95 % over seeds{' and error band' if first.banded else ''}: {sure}")
    terminal.say(f"step times: {first.latency_model}; error band {first.band}; {len(first.seeds)} seeds")


def _intervals(result: Simulation) -> str:
    """Bounds of what is shown, where they are known and not the same."""
    found = []
    for key, (heading, form) in COLUMNS.items():
        estimate = result.metrics.get(key)
        if estimate is None or estimate.low is None or estimate.high is None or _cell(result, key) == "-":
            continue
        low, high = form.format(estimate.low), form.format(estimate.high)
        found += [f"{heading} {low} to {high}"] if low != high else []
    return ", ".join(found)


def _cell(result: Simulation, key: str) -> str:
    estimate = result.metrics.get(key)
    if estimate is None or (result.overloaded and key.startswith(("ttft", "latency"))):
        return "-"
    return COLUMNS[key][1].format(estimate.value)


def _devices(result: Simulation) -> str:
    return f"{sum(result.devices.values()):.0f}"


def _remarks(results: Sequence[Simulation]) -> dict[str, list[str]]:
    """What is to be said of the lines, each remark once with the lines that it is said of."""
    said: dict[str, list[str]] = {}
    for each in results:
        overloaded = [f"OVERLOADED, {each.overloaded}"] if each.overloaded else []
        for remark in (f"runs on {each.fleet}", *overloaded, *each.missed, *each.notes):
            said.setdefault(remark, []).append(each.name)
    return said


def write(path: Path, text: str) -> None:
    """A result file, whole or not at all. Raises MachineError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = temporary if not path.exists() or path.is_file() else path
        target.write_text(text, encoding="utf-8")
        if target is temporary:
            temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"{path}: cannot be written: {error.strerror or error}") from None
