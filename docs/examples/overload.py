"""A scenario above capacity never gives a comfortable number."""

from octavo.profiles import load_scenario
from octavo.simulator import simulate

for rate in (1, 20):
    scenario = load_scenario("single-box", [f"workload.arrivals.rate={rate} /s", "workload.queries=300"])
    result = simulate(scenario, seeds=[0])
    print(f"{rate} queries/s:", result.overloaded or f"p95 {result['latency_p95']:.1f} s")
