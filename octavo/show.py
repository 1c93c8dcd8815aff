"""What the commands print: tables for people, the same facts as JSON for machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from octavo import terminal
from octavo.profiles.errors import ConfigError

if TYPE_CHECKING:
    from octavo.profiles.manifest import Manifest, Weights

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8", "int4"]


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


def manifest(bundle: Manifest, folder: Path, *, as_json: bool) -> None:
    """A bundle's graphs and models, their parity with the originals, and what a token's KV costs."""
    if as_json:
        print(bundle.model_dump_json(indent=2))
        return
    rows = [_parity_row(expert.name, expert.model_type, w) for expert in bundle.experts for w in expert.weights]
    if value := bundle.value:
        rows += [_parity_row(value.name, value.model_type, weights) for weights in value.weights]
    columns = ("model", "type", "graph", "max |dlogit|", "mean KL", "top-1", "greedy equal")
    terminal.show(terminal.table("", columns, rows, left=3))
    for graph in bundle.graphs:
        kv = f", {size(graph.kv.bytes_per_token)} of KV per token, context {graph.kv.max_length}" if graph.kv else ""
        runs_on = ", ".join(p.removesuffix("ExecutionProvider") for p in graph.providers)
        terminal.say(f"graph {graph.name}: {graph.precision}, opset {graph.opset}, for {runs_on}{kv}")
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
