"""Parity: how far an exported model is from the original, and the gate that it must pass.

Distances are taken over teacher-forced positions: both models read the same tokens and their next-token
distributions are compared position by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from octavo.exporters.checkpoint import Array
from octavo.exporters.player import Player, Told, greedy, play
from octavo.exporters.reference import Reference
from octavo.profiles.errors import GateError
from octavo.profiles.manifest import KVPrecision, Parity, Precision

LEAST = 1e-3  # probability of all other tokens together; below it, its logarithm is rounding
AT_ONCE = 16  # positions


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What `name` may cost. `logit` is relative to the largest logit; `kl` in nats; `margin` in logits."""

    name: str
    logit: float
    kl: float
    margin: float
    agreement: float


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance("fp32", logit=2e-4, kl=1e-7, margin=1e-3, agreement=1.0),
    "fp16": Tolerance("fp16", logit=0.05, kl=1e-4, margin=0.05, agreement=0.999),
    "bf16": Tolerance("bf16", logit=0.25, kl=2e-3, margin=0.3, agreement=0.99),
    "int8": Tolerance("int8", logit=0.25, kl=2e-3, margin=0.3, agreement=0.99),
    "int4": Tolerance("int4", logit=1.0, kl=5e-2, margin=1.0, agreement=0.95),
}
INT8_KV = Tolerance("KV in int8", logit=0.25, kl=2e-3, margin=0.3, agreement=0.99)  # eight bits, as of weights


def tolerance_of(precision: Precision, kv: KVPrecision) -> Tolerance:
    """Of weights in a precision beside a cache of its own or in int8: of each figure the larger, they do not add up."""
    weights = TOLERANCES[precision]
    if kv == "model":
        return weights
    return Tolerance(
        f"{precision}, {INT8_KV.name}",
        logit=max(weights.logit, INT8_KV.logit),
        kl=max(weights.kl, INT8_KV.kl),
        margin=max(weights.margin, INT8_KV.margin),
        agreement=min(weights.agreement, INT8_KV.agreement),
    )


@dataclass(frozen=True, slots=True)
class Task:
    """What both models read, and how many tokens the exported one then writes greedily (none: 0).

    `sequences` are token ids, [positions] each.
    """

    sequences: list[Array]
    greedy: int

    @property
    def prompt(self) -> Array:
        """What the greedy continuation follows."""
        return self.sequences[0][: max(1, len(self.sequences[0]) // 2)]


@dataclass(frozen=True, slots=True)
class Played:
    """What an exported graph says: its outputs at every position by name, [positions, ...], and what it wrote."""

    told: Told
    written: Array


@dataclass(frozen=True, slots=True)
class Original:
    """What the original says: its outputs at every position, [positions, outputs].

    `scores` are the logits of a value head on its last hidden state, [positions], where there is one.
    """

    name: str
    outputs: Array
    scores: Array | None = None


def run(player: Player, task: Task) -> Played:
    """Let an exported graph read and write."""
    rows = play(player, task.sequences)
    told = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return Played(told, greedy(player, task.prompt, task.greedy))


def ask(reference: Reference, name: str, task: Task, judge: Array | None = None) -> Original:
    """Let the original read. `judge` is a value head's weight, [1, hidden_size]."""
    outputs = np.concatenate([reference.outputs(ids) for ids in task.sequences])
    scores = None if judge is None else np.concatenate([reference.hidden(ids) @ judge[0] for ids in task.sequences])
    return Original(name, outputs, scores)


def greedy_equal(reference: Reference, task: Task, written: Array, margin: float) -> bool | None:
    """Whether the original would have written the same, up to where it has a tie itself; None for nothing written.

    It is asked once, with all that was written before it: token t is its choice after the prompt and t tokens.
    """
    if not len(written):
        return None
    outputs = reference.outputs(np.concatenate([task.prompt, written]))[len(task.prompt) - 1 : -1]
    different = np.flatnonzero(written != _choice(outputs))
    return not len(different) or bool(_lead(outputs)[different[0]] < margin)


def measure(played: Played, original: Original, equal: bool | None, tolerance: Tolerance) -> Parity:
    """Compare what an exported model said with what the original said; `equal` is of their greedy continuations."""
    told, whole = played.told, original.outputs
    theirs, mine = _comparable(whole, told)
    error, judged = float(np.abs(theirs - mine).max()), _score_error(original, told)
    same = _choice(whole) == (told["top_ids"][:, 0] if "top_ids" in told else _choice(mine))
    clear = _lead(whole) > tolerance.margin
    kl, agreement = _mean_kl(theirs, mine), float(same[clear].mean()) if clear.any() else 1.0
    return Parity(
        reference=original.name,
        positions=len(theirs),
        max_abs_error=error,
        max_score_error=judged,
        mean_kl=kl,
        top1_agreement=float(same.mean()),
        top1_agreement_with_margin=agreement,
        greedy_equal=equal,
        passed=bool(
            _near(error, theirs, tolerance)
            and kl <= tolerance.kl
            and agreement >= tolerance.agreement
            and equal is not False
            and (judged is None or _near(judged, original.scores, tolerance))
        ),
    )


def _near(error: float, outputs: Array | None, tolerance: Tolerance) -> bool:
    return outputs is not None and error <= tolerance.logit * max(1.0, float(np.abs(outputs).max()))


def _comparable(theirs: Array, told: Told) -> tuple[Array, Array]:
    """Two arrays [positions, outputs] that should be equal.

    Logits; a value model's one logit; or the k log-probabilities that the graph gives, and that of all other tokens.
    """
    if "logits" in told:
        return theirs, told["logits"]
    if "top_ids" not in told:
        return theirs, told["score_logit"][:, None]
    chosen, total = np.take_along_axis(theirs, told["top_ids"], -1), np.logaddexp.reduce(theirs, -1, keepdims=True)
    return _with_rest(chosen - total), _with_rest(told["top_values"] - told["logsumexp"][:, None])


def _with_rest(chances: Array) -> Array:
    rest = np.maximum(1 - np.exp(chances.astype(np.float64)).sum(-1, keepdims=True), LEAST)
    return np.concatenate([chances, np.log(rest)], axis=-1)


def _score_error(original: Original, told: Told) -> float | None:
    return None if original.scores is None else float(np.abs(original.scores - told["score_logit"]).max())


def gate(name: str, limits: Tolerance, parity: Parity) -> None:
    """Raise GateError with the figures when a model is too far from its original."""
    if not parity.passed:
        raise GateError(
            f"{name}: parity failed at {limits.name}: max |dlogit| {parity.max_abs_error:.2g} (at most {limits.logit:g}"
            f" of the largest logit), mean KL {parity.mean_kl:.2g} (at most {limits.kl:g}), top-1 agreement with margin"
            f" {parity.top1_agreement_with_margin:.4f} (at least {limits.agreement:g}), greedy equal:"
            f" {parity.greedy_equal}; no bundle was written"
        )


def _choice(outputs: Array) -> Array:
    """The most likely token; of a value model, its verdict."""
    return np.asarray(outputs.argmax(-1) if outputs.shape[1] > 1 else outputs[:, 0] > 0)


def _lead(outputs: Array) -> Array:
    if outputs.shape[1] == 1:
        return np.asarray(np.abs(outputs[:, 0]))
    best = np.partition(outputs, -2, axis=-1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0])


def _mean_kl(original: Array, ours: Array) -> float:
    """A few positions at a time: in float64 the logits of a large vocabulary would outweigh a small model."""
    total = 0.0
    for start in range(0, len(original), AT_ONCE):
        p, q = (_log_softmax(logits[start : start + AT_ONCE]) for logits in (original, ours))
        total += float((np.exp(p) * (p - q)).sum())
    return max(0.0, total / len(original))


def _log_softmax(logits: Array) -> Array:
    """Log-probabilities in float64; one logit x stands for the pair (x, 0)."""
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        wide = np.concatenate([wide, np.zeros_like(wide)], axis=1)
    wide -= wide.max(-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(-1, keepdims=True)))
