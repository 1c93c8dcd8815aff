"""Experts, samples, judge and policy: what is asked of the models for one query."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from octavo.profiles.fact import Entry
from octavo.profiles.policy import BestOfN, Cascade, EnsemblePolicy, Policy, SinglePolicy
from octavo.profiles.quantity import Fraction, Precision, Seconds


@dataclass(frozen=True, slots=True)
class Expert:
    """One model of the ensemble; `accuracy` is the chance that one of its candidates is right, where it is known."""

    name: str
    model: str
    precision: Precision | None = None
    accuracy: float | None = None


class ExpertGroup(Entry):
    """So many experts of the same shape, each with weights of its own."""

    model: str = Field(description="name of a model profile, or a path to a config.json or checkpoint folder")
    count: int = Field(default=1, gt=0)
    name: str | None = Field(default=None, description="of the expert; with a count, NAME-1, NAME-2, ...")
    precision: Precision | None = None
    accuracy: Fraction | None = None


class Full(Entry):
    """Every expert has all weights of its own."""

    kind: Literal["full"] = "full"


class Lora(Entry):
    """Every expert is a low-rank adapter on one base, so they decode in one batch."""

    kind: Literal["lora"]
    rank: int = Field(default=16, gt=0)


class ValueModel(Entry):
    """A model that reads prompt and candidate, and says how likely the candidate is right."""

    kind: Literal["model"]
    model: str
    precision: Precision | None = None
    extra_tokens: int = Field(default=0, ge=0, description="of the judge's own template, per candidate")


class ValueHead(Entry):
    """A head on the experts' own last hidden state; it costs next to nothing."""

    kind: Literal["head"]


class NoValue(Entry):
    """No judge."""

    kind: Literal["none"] = "none"


Adapters = Annotated[Full | Lora, Field(discriminator="kind")]
Value = Annotated[ValueModel | ValueHead | NoValue, Field(discriminator="kind")]


def _listed(groups: object) -> object:
    return (groups,) if isinstance(groups, dict) else tuple(groups) if isinstance(groups, list) else groups


class Ensemble(Entry):
    """What answers a query. `experts` in the file is a group or a list of groups; here it is the experts one by one."""

    groups: Annotated[
        tuple[ExpertGroup, ...],
        Field(min_length=1),
        BeforeValidator(_listed, json_schema_input_type=tuple[ExpertGroup, ...] | ExpertGroup),
    ] = Field(alias="experts")
    samples_per_expert: int = Field(default=2, gt=0)
    adapters: Adapters = Full()
    value: Value = NoValue()
    policy: Policy = EnsemblePolicy()
    min_candidates: int = Field(default=1, gt=0)
    deadline: Seconds | None = Field(default=None, description="after it, the answer is chosen among what has arrived")

    @property
    def experts(self) -> tuple[Expert, ...]:
        """In order; those without a name are expert-1, expert-2, ..."""
        found: list[Expert] = []
        for group in self.groups:
            for index in range(group.count):
                name = expert_name(group.name, group.count, index, len(found))
                found.append(Expert(name, group.model, group.precision, group.accuracy))
        return tuple(found)

    @property
    def inferences_per_query(self) -> int:
        """How many are started at most; early exit, pruning and cascades finish fewer."""
        match self.policy:
            case SinglePolicy():
                return 1
            case BestOfN(samples=samples):
                return samples
            case Cascade():
                return 1 + (len(self.experts) - 1) * self.samples_per_expert
            case _:
                return len(self.experts) * self.samples_per_expert

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        counts = Counter(expert.name for expert in self.experts)
        wrong = [f"experts: the name {name!r} is there twice" for name, count in counts.items() if count > 1]
        if isinstance(self.adapters, Lora) and len(bases := sorted({group.model for group in self.groups})) > 1:
            wrong.append(f"adapters: LoRA experts have one base, these have {', '.join(bases)}")
        if self.min_candidates > (most := self.inferences_per_query):
            wrong.append(f"min_candidates: at most {most} are made, got {self.min_candidates}")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


def expert_name(name: str | None, count: int, index: int, before: int) -> str:
    """Of the expert at this index in a group of so many; `before` are the experts that come before it."""
    if name is None:
        return f"expert-{before + 1}"
    return name if count == 1 else f"{name}-{index + 1}"
