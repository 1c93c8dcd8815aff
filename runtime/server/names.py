"""The models that clients may name: the ensemble, each of its policies, and each expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.runtime.core.policies import POLICIES
from octavo.runtime.core.query import Ensemble
from octavo.runtime.server.refusals import Refusal

ROOT = "octavo"
ONE_EXPERT = ("single", "best_of_n")
KEEP_ALL = ("ensemble", "majority", "weighted_vote", "mean_logprob")  # every candidate asked for is there at the end
DEFAULT_BEST_OF = 16


@dataclass(frozen=True, slots=True)
class Target:
    """Who answers a query: a policy with its settings, and how many candidates it may ask.

    `at_end` says how many of them are there at the end, of which `n` may be had; `live` that the only candidate's
    tokens can be shown as they come.
    """

    policy: str
    candidates: int
    at_end: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return self.policy == "single"


def served(ensemble: Ensemble, default: str) -> dict[str, Target]:
    """Every name that clients may use. Raises ConfigError where an expert's name is a policy's."""
    if both := set(ensemble.experts) & set(POLICIES):
        raise ConfigError(f"serve: expert {both.pop()!r} has the name of a policy; rename it")
    names = [name for name in POLICIES if name != "filtered"]  # that one needs a verifier, which no client can send
    if default not in names:
        raise ConfigError(f"serve: the bundle's policy is {default!r}, which cannot be served; policies: {names}")
    targets = {name: _of_policy(name, ensemble) for name in names}
    experts = {name: Target("single", 1, 1, {"expert": name}) for name in ensemble.experts}
    return {ROOT: targets[default]} | {f"{ROOT}/{name}": each for name, each in (targets | experts).items()}


def _of_policy(name: str, ensemble: Ensemble) -> Target:
    if name == "single":
        return Target(name, 1, 1)
    if name == "best_of_n":
        return Target(name, DEFAULT_BEST_OF, DEFAULT_BEST_OF, {"samples": DEFAULT_BEST_OF})
    every = ensemble.inferences_per_query
    return Target(name, every, every if name in KEEP_ALL else 1)


def choose(targets: Mapping[str, Target], name: str, n: int, best_of: int | None, most: int) -> Target:
    """The target that gives `n` answers out of `best_of` candidates. Raises Refusal where it cannot."""
    target = targets.get(name)
    if target is None:
        raise Refusal(404, "no such model; /v1/models lists them", param="model", code="model_not_found")
    if target.policy in ONE_EXPERT and (best_of or n > target.at_end):
        target = _several(target, best_of or n)
    if best_of not in (None, target.candidates):
        raise Refusal(400, f"best_of: this model asks {target.candidates} candidates", param="best_of")
    if n > target.at_end:
        raise Refusal(400, f"n: this model has at most {target.at_end} answers to give", param="n")
    if target.candidates > most:
        raise Refusal(400, f"at most {most} candidates may be asked for", param="best_of" if best_of else "n")
    return target


def _several(target: Target, samples: int) -> Target:
    if samples == 1:
        return Target("single", 1, 1, {k: v for k, v in target.settings.items() if k == "expert"})
    return replace(
        target,
        policy="best_of_n",
        candidates=samples,
        at_end=samples,
        settings={**target.settings, "samples": samples},
    )
