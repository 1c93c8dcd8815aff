"""Measured against simulated: two traces of one load, or a served load and its simulation from measured step times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from octavo import show, terminal
from octavo.profiles.errors import ConfigError, GateError

if TYPE_CHECKING:
    from octavo.profiles.latency import LatencyProfile
    from octavo.runtime.core.trace import Record
    from octavo.simulator.validate import Validation

TRACE = "trace.jsonl"
SEEDS = 4  # runs of a replay whose machine's pace swings


def read_trace(path: Path) -> list[Record]:
    """The records of a trace file. Raises ConfigError naming the line that is wrong."""
    from octavo.runtime.core.trace import from_lines

    if not path.is_file():
        raise ConfigError(f"{path}: no such trace; `octavo measure` and `octavo simulate --trace-out` write them")
    try:
        with path.open(encoding="utf-8") as lines:
            return list(from_lines(lines, str(path)))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def simulate_replay(
    folder: Path, gates: Sequence[str], out: Path | None, trace_out: Path | None, *, as_json: bool
) -> None:
    """Simulate what `octavo measure` served, from the step times that it measured, and print both."""
    from octavo.profiles.latency import read_latency
    from octavo.runtime.core.trace import to_lines
    from octavo.simulator.pace import said
    from octavo.simulator.validate import validate

    allowed = dict(map(_gate, gates))
    if not (folder / TRACE).exists() and ((folder / "requests.jsonl").exists() or folder.is_file()):
        raise ConfigError(f"{folder}: a recording of another server needs a scenario of it: simulate SCENARIO --replay")
    measured = read_trace(folder / TRACE)
    profiles = [read_latency(path) for path in sorted(folder.glob("latency-*.json"))]
    swings = [pace for profile in profiles if (pace := profile.pace)]
    simulated = list(_replays(measured, profiles, SEEDS if swings else 1))
    if trace_out:
        show.write(trace_out, "".join(f"{line}\n" for line in to_lines(simulated[0])))
    found = validate(measured, simulated[0], str(folder), others=simulated[1:])
    swung = said(swings[0]) if swings else None
    found = replace(found, notes=(*([f"{swung}, in {SEEDS} runs"] if swung else []), *found.notes))
    validation(found, out, as_json=as_json)
    found.gate(allowed)


def _replays(measured: Sequence[Record], profiles: Sequence[LatencyProfile], seeds: int) -> Iterator[list[Record]]:
    """A simulation for each seed; several on all cores."""
    from octavo.simulator.replay import replay
    from octavo.simulator.run import cores

    one = partial(replay, measured, profiles, None)
    if seeds == 1:
        yield one(0)
        return
    with ProcessPoolExecutor(min(seeds, cores())) as pool:
        yield from pool.map(one, range(seeds))


def simulate_recorded(
    scenario: str,
    path: Path,
    sets: Sequence[str],
    gates: Sequence[str],
    out: Path | None,
    trace_out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Simulate a scenario on the requests that a real server answered, and print both.

    The recording's engine settings go before the scenario's, and `sets` before both. Raises GateError.
    """
    from octavo.profiles import load_scenario
    from octavo.runtime.core.trace import to_lines
    from octavo.simulator.recordings import changes, doubts, read_served, simulate_served
    from octavo.simulator.validate import validate

    allowed = dict(map(_gate, gates))
    served = read_served(path)
    loaded = load_scenario(scenario, overrides=[*changes(served), *sets])
    simulated = simulate_served(loaded, served)
    if trace_out:
        show.write(trace_out, "".join(f"{line}\n" for line in to_lines(simulated)))
    expert = loaded.ensemble.experts[0].name
    found = validate(served.records(expert), simulated, f"{loaded.name} on {path}")
    found = replace(found, notes=(*doubts(loaded, served), *found.notes))
    validation(found, out, as_json=as_json)
    found.gate(allowed)


def compare(measured: Path, simulated: Path, gates: Sequence[str], out: Path | None, *, as_json: bool) -> None:
    """Compare two traces of one load, and raise GateError where an error is larger than a gate allows."""
    from octavo.simulator.validate import validate

    records = read_trace(simulated)
    found = validate(_measured(measured, records), records, f"{simulated} against {measured}")
    allowed = dict(map(_gate, gates))
    validation(found, out, as_json=as_json)
    found.gate(allowed)


def _measured(path: Path, simulated: Sequence[Record]) -> list[Record]:
    """A trace, or else a recording of another server, of which `simulated` was made. Raises ConfigError."""
    from octavo.runtime.core.trace import InferenceRecord
    from octavo.simulator.recordings import read_served

    try:
        return read_trace(path)
    except ConfigError as no_trace:
        try:
            served = read_served(path)
        except ConfigError:
            raise no_trace from None
    models = [record.model for record in simulated if isinstance(record, InferenceRecord)]
    return list(served.records(models[0] if models else ""))


def theory(out: Path | None, *, quick: bool, as_json: bool) -> None:
    """Queues whose answer is known, beside what is simulated of them. Raises GateError where one is missed."""
    from octavo.simulator.estimate import tidy
    from octavo.simulator.theory import QUICK, littles_gap, table

    customers, seeds = QUICK if quick else (20_000, 10)
    rows = table(customers, range(seeds))
    facts = [
        {
            "queue": row.law.name,
            "quantity": row.law.quantity,
            "exact": tidy(row.law.exact),
            "simulated": row.simulated.to_json(),
            "error": tidy(row.error),
            "holds": row.holds,
        }
        for row in rows
    ]
    data = {"kind": "theory", "customers": customers, "seeds": seeds, "queues": facts, "littles_law_gap": littles_gap()}
    if out:
        show.write(out, json.dumps(data, indent=1) + "\n")
    if as_json:
        terminal.dump(data)
    else:
        cells = [
            (
                *(row.law.name, row.law.quantity, f"{row.law.exact:.4f}"),
                f"{row.simulated.value:.4f} +- {row.simulated.half_width or 0:.4f}",
                f"{row.error:+.1%}",
            )
            for row in rows
        ]
        terminal.show(terminal.table("", ("queue", "", "exact", "simulated, 95 %", "error"), cells, left=2))
        terminal.say(f"Little's law: off by {data['littles_law_gap']:.0e}")
    if missed := [row.law.name for row in rows if not row.holds]:
        raise GateError(f"validate: outside its interval: {', '.join(missed)}")


def _gate(text: str) -> tuple[str, float]:
    metric, _, share = text.partition("=")
    try:
        return metric, float(share)
    except ValueError:
        raise ConfigError(f"--gate {text!r}: write metric=share, like latency_p50=0.03") from None


def validation(found: Validation, out: Path | None, *, as_json: bool) -> None:
    """Measured, simulated, and the error with its interval, a line per metric."""
    if out:
        show.write(out, found.to_json())
    if as_json:
        print(found.to_json(), end="")
        return
    rows = [
        (
            each.metric,
            *(f"{value:.4g} {each.unit}" for value in (each.measured, each.simulated)),
            f"{each.error.value:+.1%}",
            _interval(each.error.to_json()),
        )
        for each in found.metrics
    ]
    terminal.show(terminal.table("", ("", "measured", "simulated", "error", "95 % interval"), rows))
    for note in found.notes:
        terminal.say(f"- {note}")


def _interval(error: Mapping[str, float | None]) -> str:
    low, high = error.get("low"), error.get("high")
    return "-" if low is None or high is None else f"{low:+.1%} to {high:+.1%}"
