"""Your own device: a cascade that answers at the edge when its value model is sure, for three meanings of sure."""

from octavo.profiles import load_scenario
from octavo.simulator import simulate

for sure in (0.5, 0.7, 0.9):
    changes = [
        "workload.queries=300",
        "hardware.jetson-agx-orin.bandwidth*=0.9",  # it gets hot
        f"ensemble.policy.accept_at={sure}",
    ]
    result = simulate(load_scenario("edge-cascade", changes), seeds=[0])
    print(
        f"sure at {sure}: right {result['accuracy']:.0%}, p95 {result['latency_p95']:.1f} s, "
        f"{result['tokens_per_query']:.0f} tokens and {result['joules_per_query']:.0f} J a query"
    )
