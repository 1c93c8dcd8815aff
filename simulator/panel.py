"""The scenario's ensemble and policy as the core knows them."""

from __future__ import annotations

from octavo.profiles import policy as profile
from octavo.profiles.ensemble import ValueModel
from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario
from octavo.runtime.core.policies import Policy, policy_named
from octavo.runtime.core.query import Ensemble

VALUE = "value"


def panel(scenario: Scenario) -> tuple[Ensemble, Policy]:
    """Who is asked, and the generator that decides. Raises ConfigError when the policy cannot do what is asked."""
    experts = tuple(expert.name for expert in scenario.ensemble.experts)
    judge = VALUE if isinstance(scenario.ensemble.value, ValueModel) else None
    try:
        whole = Ensemble(experts, scenario.ensemble.samples_per_expert, judge)
        # A policy that asks fewer than everybody may demand fewer candidates than there are experts.
        needed = min(scenario.ensemble.min_candidates, whole.inferences_per_query)
        ensemble = Ensemble(experts, scenario.ensemble.samples_per_expert, judge, needed, _judge_tokens(scenario))
        return ensemble, policy_named(scenario.ensemble.policy.name, **settings(scenario.ensemble.policy))
    except ValueError as error:
        raise ConfigError(f"{scenario.name}: ensemble: {error}") from None


def _judge_tokens(scenario: Scenario) -> int:
    value = scenario.ensemble.value
    return value.extra_tokens if isinstance(value, ValueModel) else 0


def settings(policy: profile.Policy) -> dict[str, object]:
    """The arguments of the core's policy of the same name."""
    match policy:
        case profile.SinglePolicy(expert=expert):
            return {"expert": expert} if expert else {}
        case profile.BestOfN(expert=expert, samples=samples, by=by):
            return {**({"expert": expert} if expert else {}), "samples": samples, "by": by}
        case profile.Filtered(then=then):
            if then not in ("mean_logprob", "majority"):
                raise ConfigError(f"ensemble.policy.then: filtered ranks by mean_logprob or majority, got {then}")
            return {"then": then}
        case profile.EarlyExit(sure_at=sure_at, by=by):
            return {"sure_at": sure_at, "by": by}
        case profile.Cascade(first=first, accept_at=accept_at):
            return {"first": first, "accept_at": accept_at}
        case profile.Pruned(after_tokens=after_tokens, keep=keep):
            return {"after_tokens": after_tokens, "keep": keep}
    return {}


def slots(scenario: Scenario) -> list[tuple[str, int]]:
    """Expert and sample of every candidate that a query may have, in the order of the tables' columns."""
    ensemble, policy = scenario.ensemble, scenario.ensemble.policy
    samples = ensemble.samples_per_expert
    match policy:
        case profile.SinglePolicy(expert=expert):
            return [(expert or ensemble.experts[0].name, 0)]
        case profile.BestOfN(expert=expert, samples=count):
            return [(expert or ensemble.experts[0].name, sample) for sample in range(count)]
    return [(expert.name, sample) for expert in ensemble.experts for sample in range(samples)]


def home(scenario: Scenario) -> str:
    """The tier where the council sits: that of the expert who is asked first."""
    policy = scenario.ensemble.policy
    first = policy.first if isinstance(policy, profile.Cascade) else slots(scenario)[0][0]
    return scenario.placements_of(first)[0].tier
