"""What a cluster adds to a query: the same asks of one process and of branches on a local Ray, in turns.

    python tests/bench/cluster.py BUNDLE [--branches 2] [--asks 60]

Prints the median and p99 wall seconds of each, greedy, one answer token and sixteen, and the median difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--branches", type=int, default=2)
    parser.add_argument("--asks", type=int, default=60)
    asked = parser.parse_args()

    import ray
    from ray import serve

    from octavo.runtime.cluster.deploy import ClusterSettings, ServeCarrier, application
    from octavo.runtime.cluster.front import Front
    from octavo.runtime.cluster.layout import branches_for
    from octavo.runtime.local import Octavo

    bundle = asked.bundle.resolve()
    branches = branches_for(bundle, None, asked.branches)
    ray.init("local", num_cpus=asked.branches + 1, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": 18499})
    serve.run(application(ClusterSettings(bundle=bundle, branches=branches)), name="octavo", route_prefix="/")
    carriers = {place.name: ServeCarrier(serve.get_deployment_handle(place.name, "octavo")) for place in branches}
    with Octavo.load(bundle, threads=1) as local, Front.connect(bundle, carriers) as front:
        for policy, tokens in (("single", 1), ("majority", 1), ("ensemble", 1), ("majority", 16)):
            compare(local, front, policy, tokens, asked.asks)
    serve.shutdown()
    ray.shutdown()


def compare(local: object, front: object, policy: str, tokens: int, asks: int) -> None:
    seconds: dict[str, list[float]] = {"one process": [], "branches": []}
    for number in range(asks + 5):
        for name, octavo in (("one process", local), ("branches", front)):
            start = perf_counter()
            octavo.ask("turn 99282277:", policy=policy, max_new_tokens=tokens, seed=number, ends=False)  # type: ignore[attr-defined]
            if number >= 5:
                seconds[name].append(perf_counter() - start)
    extra = median(b - a for a, b in zip(*seconds.values(), strict=True))
    shown = "; ".join(f"{n} {median(s) * 1e3:.1f} ms, p99 {np.quantile(s, 0.99) * 1e3:.1f}" for n, s in seconds.items())
    print(f"{policy}, {tokens} tokens: {shown}; the cluster adds {extra * 1e3:.1f} ms in the median")


if __name__ == "__main__":
    main()
