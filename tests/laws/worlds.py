"""Random scenarios, small enough to run by the hundred, odd enough to find what breaks."""

from __future__ import annotations

import os
import random
from functools import cache
from typing import Any

from octavo.profiles import Scenario, load_scenario, vary
from octavo.profiles.latency import Pace
from octavo.simulator.pace import Course
from octavo.simulator.run import Prepared, prepare
from octavo.simulator.spare import silenced


def examples(usual: int) -> int:
    """How many random scenarios a law is tried on: `make laws` asks for a thousand."""
    return int(os.environ.get("OCTAVO_LAWS", usual))


POLICIES: tuple[dict[str, Any], ...] = (
    {"name": "ensemble"},
    {"name": "single"},
    {"name": "best_of_n", "samples": 5},
    {"name": "majority"},
    {"name": "weighted_vote"},
    {"name": "mean_logprob"},
    {"name": "filtered", "verifier_seconds": 0.05},
    {"name": "early_exit", "sure_at": 0.7},
    {"name": "early_exit", "by": "majority"},
    {"name": "cascade", "first": "expert-1", "accept_at": 0.7},
    {"name": "pruned", "after_tokens": 8, "keep": 0.5},
)
DEDICATED = [
    {"of": "experts", "tier": "cloud", "hardware": "l40s"},
    {"of": "value", "tier": "cloud", "hardware": "l40s"},
]
PLACEMENTS: tuple[list[dict[str, Any]], ...] = (
    DEDICATED,
    [
        {**place, "replicas": 2, "routing": routing}
        for place, routing in zip(DEDICATED, ("least_work", "shortest_queue"), strict=True)
    ],
    [
        {**place, "replicas": 2, "routing": routing}
        for place, routing in zip(DEDICATED, ("round_robin", "prefix_affine"), strict=True)
    ],
    [{"of": ["experts", "value"], "tier": "cloud", "hardware": "h200", "mode": "co-located"}],
    [{"of": "experts", "tier": "cloud", "hardware": "h100-sxm", "mode": "lora"}, DEDICATED[1]],
    [
        {"of": "experts", "tier": "cloud", "hardware": "l40s", "pipeline_parallel": 2, "tensor_parallel": 2},
        DEDICATED[1],
    ],
    [{"of": "experts", "tier": "edge", "hardware": "rtx-4090"}, DEDICATED[1]],
    [{"of": "experts", "tier": "cloud", "hardware": "l40s", "mode": "swapped"}, DEDICATED[1]],
)

OPERATIONS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"failures": {"mtbf": 3.0, "mttr": 0.5}},
    {"failures": {"mtbf": 2.0, "mttr": 0.2}, "on_failure": "fail"},
    {"outages": [{"tier": "cloud", "at": 0.3, "lasts": 0.5}], "retries": 1},
    {"outages": [{"tier": "cloud", "at": 0.2, "lasts": 1.0, "devices": 1}], "retries": 0},
    {"maintenance": {"every": 2.0, "drain": 0.1, "lasts": 0.2}},
    {"autoscale": {"min": 1, "max": 3, "target": 0.3, "interval": 0.1, "cold_start": 0.2}},
    {
        "autoscale": {"min": 2, "max": 4, "target": 0.1, "interval": 0.2, "cold_start": None},
        "spot_preemption": {"mtbf": 4.0, "mttr": 0.5},
    },
    {"down": ["expert-1"]},
    {"down": ["expert-2", "expert-3"], "failures": {"mtbf": 3.0, "mttr": 0.5}},
)
NOTHING = {"failures": None, "spot_preemption": None, "autoscale": None, "maintenance": None, "outages": [], "down": []}


@cache
def base() -> Scenario:
    change = {
        "ensemble": {
            "experts": {"model": "llama-3.2-3b", "count": 3, "accuracy": 0.5},
            "value": {"kind": "model", "model": "qwen2.5-0.5b"},
        },
        "fleet": {
            "tiers": {"cloud": {"client_link": "wan", "basis": "spot"}, "edge": {"client_link": "wifi-6"}},
            "links": [{"between": ["edge", "cloud"], "link": "wan"}],
            "placement": DEDICATED,
        },
        "baselines": [],
    }
    return vary(load_scenario("single-box"), change)


def scenario(seed: int, policy: dict[str, Any] | None = None) -> Scenario:
    """A random scenario; the same seed gives the same, whatever the policy."""
    rng = random.Random(seed)
    placement = rng.choice(PLACEMENTS)
    lora = placement[0].get("mode") == "lora"
    chosen = rng.choice(POLICIES)
    value = rng.choice([{"kind": "model", "model": "qwen2.5-0.5b"}, {"kind": "head"}, {"kind": "none"}])
    change: dict[str, Any] = {
        "ensemble": {
            "samples_per_expert": rng.randint(1, 3),
            "adapters": {"kind": "lora", "rank": 8} if lora else {"kind": "full"},
            "value": value,
            "policy": policy or chosen,
            "deadline": rng.choice([None, None, 2.0, 0.3]),
        },
        "fleet": {"placement": placement, "operations": rng.choice(OPERATIONS)},
        "engine": {
            "kv_blocks": rng.choice([None, None, 60, 90]),
            "max_num_seqs": rng.choice([4, 16, 256]),
            "max_num_batched_tokens": rng.choice([256, 2048]),
            "prefix_caching": rng.random() < 0.7,
            "schedule": rng.choice(["mixed", "mixed", "prefill_first"]),
            "request_overhead": rng.choice([0.0, 0.003]),
        },
        "workload": {
            "arrivals": rng.choice(
                [
                    {"kind": "poisson", "rate": rng.choice([1.0, 10.0, 60.0])},
                    {"kind": "gamma", "rate": 10.0, "cv": 2.0},
                    {"kind": "closed_loop", "clients": 4, "think": 0.1},
                    {"kind": "at_once"},
                ]
            ),
            "prompt_tokens": {"kind": "lognormal", "mean": 150, "cv": 1, "min": 2, "max": 600},
            "answer_tokens": {"kind": "lognormal", "mean": 40, "cv": 1, "min": 1, "max": 200},
            "shared_prefix_tokens": rng.choice([0, 64]),
            "queries": rng.randint(5, 30),
            "warmup": 0.0,
        },
    }
    found = vary(base(), change)
    return vary(found, {"fleet": {"operations": {"down": []}}}) if silenced(found) else found


def feed_forward(seed: int) -> Scenario:
    """A random scenario in which no device's doings change what another is asked."""
    rng = random.Random(seed)
    names = ("ensemble", "single", "best_of_n", "majority", "weighted_vote", "mean_logprob")
    policy = rng.choice([policy for policy in POLICIES if policy["name"] in names])
    placement = PLACEMENTS[rng.choice([0, 0, 4, 7])]
    lora = placement[0].get("mode") == "lora"
    change = {
        "ensemble": {"adapters": {"kind": "lora", "rank": 8} if lora else {"kind": "full"}, "deadline": None},
        "fleet": {"placement": placement, "operations": NOTHING},
        "workload": {
            "arrivals": rng.choice([{"kind": "poisson", "rate": rng.choice([1.0, 10.0, 60.0])}, {"kind": "at_once"}])
        },
    }
    return vary(scenario(seed, policy), change)


def plain(seed: int) -> Scenario:
    """A random scenario of what the core's driver page describes: no links, deadlines or overheads; one replica."""
    rng = random.Random(seed)
    policy = rng.choice([policy for policy in POLICIES if policy["name"] != "filtered"])
    placement = PLACEMENTS[rng.choice([0, 3, 4])]
    lora = placement[0].get("mode") == "lora"
    change = {
        "ensemble": {"adapters": {"kind": "lora", "rank": 8} if lora else {"kind": "full"}, "deadline": None},
        "fleet": {"placement": placement, "tiers": {"cloud": {"client_link": None}}, "operations": NOTHING},
        "engine": {"max_num_seqs": 16, "request_overhead": 0.0},
        "workload": {"arrivals": {"kind": "poisson", "rate": rng.choice([1.0, 10.0, 60.0])}},
    }
    return vary(scenario(seed, policy), change)


def world(
    seed: int,
    *,
    leaps: bool = True,
    apart: bool = False,
    policy: dict[str, Any] | None = None,
    skew: float = 1e-3,
    swings: bool = False,
    of: Scenario | None = None,
) -> Prepared:
    """Ready to run. No two devices are exactly alike: ties have no order."""
    ready = prepare(of or scenario(seed, policy), seed, trace=True, apart=apart)
    course = Course(Pace(seconds=0.01, lanes=[[0.5, 1.5, 2.5, 0.7]] * 3), seed) if swings else None
    for number, (device, _) in enumerate(ready.fleet.replicas):
        device.skew = 1 + skew * number
        device.pace = course.of(number) if course else None
        for lane in device.lanes:
            lane.most_repeats = 1 << 30 if leaps else 1
    ready.fleet.skew = skew
    ready.fleet.most_repeats = 1 << 30 if leaps else 1
    ready.operations.begin()
    return ready
