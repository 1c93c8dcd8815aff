"""Loads profiles and scenarios by name or path, and gives changed scenarios."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.find import find
from octavo.profiles.hardware import Hardware
from octavo.profiles.latency import FittedLatency, LatencyProfile
from octavo.profiles.link import Link
from octavo.profiles.model import Model
from octavo.profiles.price import Price
from octavo.profiles.problems import check, validate
from octavo.profiles.read import Data, apply_overrides, merge, read_data, split_override
from octavo.profiles.resolve import expand, fill, opened
from octavo.profiles.scenario import Baseline, Scenario
from octavo.profiles.workload import Workload


def load_hardware(name: str) -> Hardware:
    return validate(Hardware, expand("hardware", name), name)


def load_model(name: str) -> Model:
    """By name, or by a path to a profile, a Hugging Face config.json, a checkpoint or a bundle's expert folder."""
    return validate(Model, expand("models", name), name)


def load_link(name: str) -> Link:
    return validate(Link, expand("links", name), name)


def load_price(name: str) -> Price:
    return validate(Price, expand("prices", name), name)


def load_workload(name: str) -> Workload:
    return validate(Workload, expand("workloads", name), name)


def load_latency(name: str) -> LatencyProfile | FittedLatency:
    """Step times that were measured, or coefficients that were fitted."""
    data = {"name": name, **read_data(find("latency", name), name)}
    return validate(LatencyProfile, data, name) if "steps" in data else validate(FittedLatency, data, name)


def load_scenario(name: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """A scenario with every profile that it names. Raises ConfigError with all that is wrong, one error a line."""
    path = find("scenarios", str(name))
    folder = path.parent if isinstance(path, Path) else None
    data = {"name": path.name.rsplit(".", 1)[0], **read_data(path, str(name))}
    return resolve(_overridden(data, overrides, folder), str(name), folder)


def resolve(data: Data, origin: str, folder: Path | None = None) -> Scenario:
    """Plain data as a Scenario: the named profiles read, everything checked, the baselines too."""
    filled, problems = fill(data, origin, folder)
    scenario, wrong = check(Scenario, filled, origin)
    unread = [line for line in problems if line.startswith(f"{origin}: workload: ")]
    problems += [line for line in wrong if not (unread and _follows(line, origin))]
    for line in scenario.baselines if scenario else ():
        problems += check(Scenario, _changed(filled, line), f"{origin}: baseline {line.name}")[1]
    if scenario is None or problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return scenario


def _follows(line: str, origin: str) -> bool:
    """Whether it is wrong only since the workload that was named could not be found."""
    about = line.removeprefix(f"{origin}: ")
    return about.startswith(("workload: ", "workload.from: ")) or (
        about.startswith("workload.") and ": missing" in about
    )


def vary(scenario: Scenario, change: Mapping[str, Any]) -> Scenario:
    """The scenario with a change merged in, checked again; lists are replaced, and alternatives as a whole."""
    return resolve(merge(scenario.dump(), change), scenario.name)


def override(scenario: Scenario, overrides: Iterable[str]) -> Scenario:
    """The scenario with `a.b=c` set or `a.b*=0.7` scaled, checked again."""
    return resolve(_overridden(scenario.dump(), overrides, None), scenario.name)


def baselines(scenario: Scenario) -> dict[str, Scenario]:
    """The scenarios to compare with, by name."""
    data = scenario.dump()
    return {line.name: resolve(_changed(data, line), scenario.name) for line in scenario.baselines}


def _overridden(data: Data, overrides: Iterable[str], folder: Path | None) -> Data:
    for text in overrides:
        data = apply_overrides(opened(data, split_override(text)[0], folder), [text])
    return data


def _changed(data: Data, line: Baseline) -> Data:
    return {**merge(data, line.change), "name": line.name, "description": line.description, "baselines": []}
