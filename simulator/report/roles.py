"""Which policy of an evaluation is the ensemble, and which the single inference that it is compared with."""

from __future__ import annotations

from octavo.simulator.report.document import Evaluation, Measured


def ensemble_of(evaluation: Evaluation) -> Measured:
    """The policy called `ensemble`, or else the most accurate of those that make the most inferences."""
    named = [p for p in deployable(evaluation) if p.key == "ensemble"]
    return named[0] if named else max(deployable(evaluation), key=lambda p: (inferences(p), p.accuracy.value))


def single_of(evaluation: Evaluation) -> Measured | None:
    """The policy called `single`, or else the most accurate of those that make one inference."""
    ones = [p for p in deployable(evaluation) if p.key == "single" or inferences(p) == 1]
    return max(ones, key=lambda p: (p.key == "single", p.accuracy.value)) if ones else None


def deployable(evaluation: Evaluation) -> list[Measured]:
    """All but the oracle, which knows the right answers."""
    return [p for p in evaluation.policies if "oracle" not in p.key] or list(evaluation.policies)


def inferences(policy: Measured) -> float:
    return policy.inferences_per_query or 0.0
