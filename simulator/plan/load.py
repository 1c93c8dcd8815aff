"""The load test of a plan: commands that offer its traffic to whatever serves the ensemble."""

from __future__ import annotations

import shlex

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan.demand import demand


def load_test(scenario: Scenario) -> str:
    """A script that offers the plan's traffic to an OpenAI-compatible endpoint with guidellm (0.8) or AIPerf (0.7).

    Raises ConfigError where the traffic has no rate.
    """
    asked = demand(scenario, scenario.seeds[0])
    if asked.rate is None:
        raise ConfigError(f"{scenario.name}: workload.arrivals: a load test needs traffic with a rate")
    lengths = {"prompt": asked.prompts, "output": asked.answers}
    mean = {name: max(1, round(float(np.mean(tokens)))) for name, tokens in lengths.items()}
    spread = {name: round(float(np.std(tokens))) for name, tokens in lengths.items()}
    count = len(asked.prompts)
    return _script(scenario, _guidellm(asked.rate, count, mean, spread), _aiperf(asked.rate, count, mean, spread))


Lengths = dict[str, int]


def _guidellm(rate: float, count: int, mean: Lengths, spread: Lengths) -> list[str]:
    fields = {f"{name}_tokens": mean[name] for name in mean}
    fields |= {f"{name}_tokens_stdev": spread[name] for name in mean if spread[name] > 0}
    data = ",".join(f"{name}={value}" for name, value in fields.items())
    return [
        *("guidellm", "run"),
        *("--backend", "kind=openai_http,target=$URL,model=$MODEL"),
        *("--profile", f"kind=poisson,rate={rate:g}"),
        *("--constraint", f"kind=max_requests,count={count}"),
        *("--data", f"kind=synthetic_text,{data}"),
        *("--tokenizer", "kind=huggingface_auto,model=$TOKENIZER"),
    ]


def _aiperf(rate: float, count: int, mean: Lengths, spread: Lengths) -> list[str]:
    options = {"request-rate": f"{rate:g}", "request-count": str(count)}
    for option, name in (("synthetic-input", "prompt"), ("output", "output")):
        options |= {f"{option}-tokens-mean": str(mean[name]), f"{option}-tokens-stddev": str(spread[name])}
    command = ["aiperf", "profile", "--model", "$MODEL", "--url", "$URL", "--tokenizer", "$TOKENIZER"]
    command += ["--endpoint-type", "chat", "--streaming", "--request-rate-mode", "poisson"]
    return [*command, *(word for name, value in options.items() for word in (f"--{name}", value))]


def _script(scenario: Scenario, guidellm: list[str], aiperf: list[str]) -> str:
    wanted = [f"{name} {value:g}" for name, value in scenario.targets if value is not None]
    usage = "usage: load-test.sh URL MODEL TOKENIZER [guidellm|aiperf]"
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            "# Offers the planned traffic to the ensemble's front door, and reports what it reaches.",
            "# TOKENIZER is a folder with the tokenizer of the bundle, such as that of its first expert.",
            f"# Wanted: {'; '.join(wanted) or 'nothing'} (SI units).",
            "set -euo pipefail",
            *(f'{name}="${{{place}:?{usage}}}"' for place, name in enumerate(("URL", "MODEL", "TOKENIZER"), start=1)),
            'case "${4:-guidellm}" in',
            f"    guidellm) exec {_quoted(guidellm)} ;;",
            f"    aiperf) exec {_quoted(aiperf)} ;;",
            '    *) echo "guidellm or aiperf, not $4" >&2; exit 2 ;;',
            "esac",
            "",
        ]
    )


def _quoted(words: list[str]) -> str:
    return " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in words)
