"""The load test of a plan: commands that offer its traffic to whatever serves the ensemble."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

import numpy as np

from octavo.profiles.scenario import Scenario
from octavo.profiles.workload import Arrivals, AtOnce, ClosedLoop, Poisson
from octavo.simulator.arrivals import Open
from octavo.simulator.load import draw
from octavo.simulator.plan.demand import demand
from octavo.simulator.streams import Streams

TRAFFIC = "traffic.jsonl"


def traffic(scenario: Scenario) -> str | None:
    """The first seed's queries as Mooncake JSONL (milliseconds, tokens; answers as long as a query's are on average).

    None where a rate, or how many are asked at a time, says it all.
    """
    if isinstance(scenario.workload.arrivals, Poisson | ClosedLoop | AtOnce):
        return None
    load = draw(scenario, Streams(scenario.seeds[0]))
    if not isinstance(load.source, Open):
        return None
    answers = np.maximum(1, np.rint(np.mean(np.array(load.truth.totals), axis=1))).astype(int).tolist()
    rows = [
        {"timestamp": round(1000 * ask.at), "input_length": ask.query.prompt_tokens, "output_length": new}
        for ask, new in zip(load.source.asks, answers, strict=True)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def load_test(scenario: Scenario) -> str:
    """A script that offers the plan's traffic to an OpenAI-compatible endpoint with guidellm (0.8) or AIPerf (0.13).

    Traffic whose times are its own is replayed by AIPerf from `traffic` beside the script; guidellm has its mean rate.
    """
    asked = demand(scenario, scenario.seeds[0])
    lengths = {"prompt": asked.prompts, "output": asked.answers}
    mean = {name: max(1, round(float(np.mean(tokens)))) for name, tokens in lengths.items()}
    spread = {name: round(float(np.std(tokens))) for name, tokens in lengths.items()}
    count = len(asked.prompts)
    offered = _offered(scenario.workload.arrivals, asked.rate, count)
    aiperf = _aiperf(offered, count, mean, spread) if offered.aiperf else _replay()
    return _script(scenario, _guidellm(offered, count, mean, spread), aiperf, offered)


Lengths = dict[str, int]


@dataclass(frozen=True, slots=True)
class Offered:
    """How the two tools are told when to ask; without words for AIPerf it replays. `unlike`: what is not as planned."""

    guidellm: str
    aiperf: tuple[str, ...] = ()
    unlike: str = ""
    tool: str = "guidellm"


def _offered(arrivals: Arrivals, rate: float | None, count: int) -> Offered:
    match arrivals:
        case ClosedLoop(clients=clients, think=think):
            pause = f"clients of the plan think for {think:g} s between queries, those of guidellm and AIPerf do not"
            return Offered(f"concurrent,streams={clients}", ("--concurrency", str(clients)), pause if think else "")
        case AtOnce():
            return Offered(f"throughput,max_concurrency={count}", ("--concurrency", str(count)))
        case Poisson(rate=steady):
            words = ("--arrival-pattern", "poisson", "--request-rate", f"{steady:g}")
            return Offered(f"poisson,rate={steady:g}", words)
    if rate is None:  # a trace of one moment
        return Offered(f"throughput,max_concurrency={count}", tool="aiperf")
    unlike = f"guidellm offers the mean rate as Poisson arrivals; the plan is for {arrivals.kind}: use aiperf"
    return Offered(f"poisson,rate={rate:g}", unlike=unlike, tool="aiperf")


def _guidellm(offered: Offered, count: int, mean: Lengths, spread: Lengths) -> list[str]:
    fields = {f"{name}_tokens": mean[name] for name in mean}
    fields |= {f"{name}_tokens_stdev": spread[name] for name in mean if spread[name] > 0}
    data = ",".join(f"{name}={value}" for name, value in fields.items())
    return [
        *("guidellm", "run"),
        *("--backend", "kind=openai_http,target=$URL,model=$MODEL"),
        *("--profile", f"kind={offered.guidellm}"),
        *("--constraint", f"kind=max_requests,count={count}"),
        *("--data", f"kind=synthetic_text,{data}"),
        *("--tokenizer", "kind=huggingface_auto,model=$TOKENIZER"),
    ]


def _aiperf(offered: Offered, count: int, mean: Lengths, spread: Lengths) -> list[str]:
    options = {"request-count": str(count)}
    for option, name in (("synthetic-input", "prompt"), ("output", "output")):
        options |= {f"{option}-tokens-mean": str(mean[name]), f"{option}-tokens-stddev": str(spread[name])}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [*AIPERF, *offered.aiperf, *words]


def _replay() -> list[str]:
    return [*AIPERF, "--input-file", f"$HERE/{TRAFFIC}", "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"]


AIPERF = (
    *("aiperf", "profile", "--model", "$MODEL", "--url", "$URL", "--tokenizer", "$TOKENIZER"),
    *("--endpoint-type", "chat", "--streaming"),
)


def _script(scenario: Scenario, guidellm: list[str], aiperf: list[str], offered: Offered) -> str:
    wanted = [f"{name} {value:g}" for name, value in scenario.targets.wanted.items()]
    usage = "usage: load-test.sh URL MODEL TOKENIZER [guidellm|aiperf]"
    told = f"echo {shlex.quote(offered.unlike)} >&2; " if offered.unlike else ""
    both = told if offered.aiperf else ""
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            "# Offers the planned traffic to the ensemble's front door, and reports what it reaches.",
            "# TOKENIZER is a folder with the tokenizer of the bundle, such as that of its first expert.",
            f"# Wanted: {'; '.join(wanted) or 'nothing'} (SI units).",
            "set -euo pipefail",
            *(f'{name}="${{{place}:?{usage}}}"' for place, name in enumerate(("URL", "MODEL", "TOKENIZER"), start=1)),
            'HERE="$(cd "$(dirname "$0")" && pwd)"',
            f'case "${{4:-{offered.tool}}}" in',
            f"    guidellm) {told}exec {_quoted(guidellm)} ;;",
            f"    aiperf) {both}exec {_quoted(aiperf)} ;;",
            '    *) echo "guidellm or aiperf, not $4" >&2; exit 2 ;;',
            "esac",
            "",
        ]
    )


def _quoted(words: list[str]) -> str:
    return " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in words)
