"""Reads what the commands write, whatever kind of run it is. A file that is none of them is a ConfigError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.load import resolve
from octavo.profiles.problems import suggest, validate
from octavo.profiles.read import read_data
from octavo.simulator.report.document import Document, Evaluation, Measurement, Planned, Simulation, Validation

Data = Mapping[str, Any]


def read(path: Path) -> Document:
    """The document in a JSON file. Raises ConfigError naming file, key and what is allowed."""
    data, origin = read_data(path, str(path)), str(path)
    kind = str(data.get("kind", "missing"))
    if kind not in READERS:
        raise ConfigError(
            f"{origin}: kind: {kind} -> what octavo eval, measure, simulate or plan wrote; {suggest(kind, READERS)}"
        )
    return READERS[kind](data, origin)


def _evaluation(data: Data, origin: str) -> Evaluation:
    return validate(Evaluation, {**data, "source": Path(origin).name}, origin)


def _simulation(data: Data, origin: str) -> Simulation:
    found = validate(Simulation, {**data, "source": Path(origin).name}, origin)
    if not found.scenario:
        return found
    scenario = resolve(dict(found.scenario), f"{origin}: scenario")
    first, *baselines = found.lines
    first = first.model_copy(update={"key": scenario.ensemble.policy.name})
    return found.model_copy(update={"lines": (first, *baselines)})


def _validation(data: Data, origin: str) -> Validation:
    return validate(Validation, {**data, "source": Path(origin).name}, origin)


def _measurement(data: Data, origin: str) -> Measurement:
    return validate(Measurement, {**data, "source": Path(origin).name}, origin)


def _plan(data: Data, origin: str) -> Planned:
    if data.get("plan", "") is None:
        raise ConfigError(f"{origin}: there is no plan to report: {data.get('incomplete') or data.get('why')}")
    return validate(Planned, {**data, "source": Path(origin).name}, origin)


def _profile(data: Data, origin: str) -> Measurement:
    return validate(Measurement, {"source": Path(origin).name, "profiles": [data]}, origin)


READERS: Mapping[str, Callable[[Data, str], Document]] = {
    "eval": _evaluation,
    "simulation": _simulation,
    "validation": _validation,
    "measure": _measurement,
    "plan": _plan,
    "decoder": _profile,
    "judge": _profile,
}
