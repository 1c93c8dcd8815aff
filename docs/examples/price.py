"""What sixteen inferences cost beside one: the built-in single box, at half its traffic."""

from octavo.profiles import load_scenario
from octavo.simulator import simulate_all

scenario = load_scenario("single-box", ["workload.arrivals.rate=1 /s", "workload.queries=200"])
for result in simulate_all(scenario, seeds=[0]):
    inferences = result.scenario.ensemble.inferences_per_query
    print(
        f"{result.name:11} {inferences:2} inferences, right {result['accuracy']:.0%}, "
        f"p95 {result['latency_p95']:.1f} s, ${result['usd_per_query']:.4f} a query on {result.fleet}"
    )
