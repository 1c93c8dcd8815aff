"""How a query's candidates become one answer: the policies' names and parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from octavo.profiles.fact import Entry
from octavo.profiles.quantity import Fraction, Seconds, Share

Ranking = Literal["value", "mean_logprob", "majority", "weighted_vote"]


class EnsemblePolicy(Entry):
    """Every expert, every sample; the value model picks."""

    name: Literal["ensemble"] = "ensemble"


class SinglePolicy(Entry):
    """One inference by one expert (the first, where none is named)."""

    name: Literal["single"]
    expert: str | None = None


class BestOfN(Entry):
    """Several samples of one expert, ranked."""

    name: Literal["best_of_n"]
    expert: str | None = None
    samples: int = Field(default=16, gt=0)
    by: Ranking = "value"


class Majority(Entry):
    """The most frequent answer."""

    name: Literal["majority"]


class WeightedVote(Entry):
    """The answer with the largest sum of scores."""

    name: Literal["weighted_vote"]


class MeanLogprob(Entry):
    """The candidate that its own expert finds likeliest per token; no value model runs."""

    name: Literal["mean_logprob"]


class Filtered(Entry):
    """A verifier (tests, a checker) drops candidates; what is left is ranked."""

    name: Literal["filtered"]
    verifier_seconds: Seconds = Field(
        default=0.0, description="of checking one candidate, on a CPU that is not modelled"
    )
    then: Ranking = "mean_logprob"


class EarlyExit(Entry):
    """Stop when a score reaches `sure_at`, or when no remaining vote can change the majority."""

    name: Literal["early_exit"]
    sure_at: Fraction = 0.9
    by: Literal["value", "majority"] = "value"


class Cascade(Entry):
    """One expert first; the rest of the ensemble only when its score is below `accept_at`."""

    name: Literal["cascade"]
    first: str
    accept_at: Fraction = 0.8


class Pruned(Entry):
    """After some tokens, go on with the better part of the candidates (speculative rejection)."""

    name: Literal["pruned"]
    after_tokens: int = Field(default=128, gt=0)
    keep: Share = 0.5


Policy = Annotated[
    EnsemblePolicy
    | SinglePolicy
    | BestOfN
    | Majority
    | WeightedVote
    | MeanLogprob
    | Filtered
    | EarlyExit
    | Cascade
    | Pruned,
    Field(discriminator="name"),
]
