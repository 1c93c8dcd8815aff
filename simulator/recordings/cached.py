"""What a server found of its prompts in its cache: from the recording to requests, and from requests to a simulation.

Whose prompt was like whose is not in a recording. So a request whose prompt was found in part begins, in the
simulation, as an earlier one did that was computed by then, and the simulated cache does the rest.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from octavo.profiles.errors import ConfigError
from octavo.simulator.recordings.request import Request

Row = Mapping[str, str]
STEPS = 3
"""How many steps that finished prompts lie between a prompt and the one that it begins like."""


def with_cached(requests: Sequence[Request], path: Path, block: int) -> list[Request]:
    """The same with their cached tokens, from a time series that says how many were found in each interval.

    A prompt counts when its first token comes, so an interval's prompt tokens say which requests it is about. Among
    those the longest prompts are taken to have been found, in whole blocks. Raises ConfigError naming the file.
    """
    rows = _rows(path)
    if not rows or "prompt_cached_throughput" not in rows[0] or any(r.first_token is None for r in requests):
        return list(requests)
    order = sorted(range(len(requests)), key=lambda i: requests[i].first_token or 0.0)
    found, taken, seen, until, before = list(requests), 0, 0.0, 0.0, 0.0
    for number, row in enumerate(rows, 2):
        try:
            now = float(row["t"])
            seen += float(row["prompt_throughput"]) * (now - before)
            cached = round(float(row["prompt_cached_throughput"]) * (now - before))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}:{number}: t and throughputs must be numbers ({error!r})") from None
        before, group = now, []
        while taken < len(order) and until + requests[order[taken]].prompt_tokens <= seen + 0.5:
            until += requests[order[taken]].prompt_tokens
            group.append(order[taken])
            taken += 1
        for i in sorted(group, key=lambda i: -requests[i].prompt_tokens):
            share = min(cached, requests[i].prompt_tokens - 1) // block * block
            found[i], cached = replace(found[i], cached_tokens=share), cached - share
    return found


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def prefixes(requests: Sequence[Request], block: int) -> list[tuple[int, ...]] | None:
    """Names of each prompt's leading blocks, so that as much of it is found as was; None where nothing was."""
    if not any(request.cached_tokens for request in requests):
        return None
    times = sorted({r.first_token for r in requests if r.first_token is not None})
    step = {time: index for index, time in enumerate(times)}
    order = sorted((i for i, r in enumerate(requests) if r.first_token is not None), key=lambda i: _first(requests[i]))
    names: list[list[int]] = [[] for _ in requests]
    fresh = 0
    for place, i in enumerate(order):
        wanted = requests[i].cached_tokens // block
        latest = step[_first(requests[i])] - STEPS
        earlier = (j for j in reversed(order[:place]) if step[_first(requests[j])] <= latest)
        like = next((j for j in earlier if requests[j].prompt_tokens // block >= wanted), None)
        if not wanted or like is None:
            continue
        missing = wanted - len(names[like])
        names[like] += range(fresh, fresh + max(missing, 0))
        fresh += max(missing, 0)
        names[i] = names[like][:wanted]
    return [tuple(each) for each in names]


def _first(request: Request) -> float:
    assert request.first_token is not None
    return request.first_token
