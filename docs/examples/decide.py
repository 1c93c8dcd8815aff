"""A policy is a generator: drive one by hand, with no clock, no engine and no model."""

from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Query, Score

ensemble = Ensemble(("careful", "quick", "bold"), samples_per_expert=1, value_model="judge")
query = Query(id=0, prompt_tokens=40, max_new_tokens=20)
policy = policy_named("early_exit", sure_at=0.9)(ensemble, query)

started = next(policy)
print("asks", [inference.model for inference in started])

# "quick" is the first to finish. It is judged, and the judge is not sure.
candidate = Candidate(started[1], new_tokens=9, mean_logprob=-0.7)
(judging,) = policy.send(candidate)
print("asks", judging.model, "to read", judging.prompt_tokens, "tokens")
print("goes on, asking", policy.send(Score(candidate, 0.35)))

# "careful" comes next, and the judge is sure: the policy returns, and "bold" is withdrawn wherever it has got to.
candidate = Candidate(started[0], new_tokens=12, mean_logprob=-0.2)
policy.send(candidate)
try:
    policy.send(Score(candidate, 0.97))
except StopIteration as returned:
    answer = returned.value
    print("answers with", answer.candidate.inference.model, "because of:", answer.reason)
