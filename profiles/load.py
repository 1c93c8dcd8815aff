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
from octavo.profiles.names import strangers
from octavo.profiles.price import Price
from octavo.profiles.problems import check, validate
from octavo.profiles.read import Data, apply_overrides, merge, read_data, split_override
from octavo.profiles.resolve import expand, fill, opened, variants
from octavo.profiles.scenario import Scenario
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
    scenario, wrong = _checked(filled, origin)
    said = {_place(line, f"{origin}: ") for line in wrong}
    unread = [line for line in problems if line.startswith(f"{origin}: workload: ")]
    problems += [line for line in wrong if not (unread and _follows(line, origin))]
    for name, changed in variants(filled):
        mark = f"{origin}: baseline {name}: "
        problems += [line for line in _checked(changed, mark[:-2])[1] if _place(line, mark) not in said]
    if scenario is None or problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return scenario


ANY = {"kind": "constant", "tokens": 1}
ANY_WORKLOAD = {"name": "any", "arrivals": {"kind": "at_once"}, "prompt_tokens": ANY, "answer_tokens": ANY}


def _checked(data: Data, origin: str) -> tuple[Scenario | None, list[str]]:
    """The scenario, and a line per error; names, and whether ensemble and fleet go together, whatever else is wrong."""
    scenario, wrong = check(Scenario, data, origin)
    if scenario is None:
        alone: Data = {key: data[key] for key in ("ensemble", "fleet") if key in data}
        wrong += check(Scenario, {"name": "any", **alone, "workload": ANY_WORKLOAD}, origin)[1]
    wrong += [f"{origin}: {line}" for line in strangers(data)]
    return scenario, list(dict.fromkeys(wrong))


def _place(line: str, origin: str) -> str:
    """Key and value of an error, without what is allowed instead."""
    return line.removeprefix(origin).split(" -> ")[0]


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
    return {str(name): resolve(changed, scenario.name) for name, changed in variants(scenario.dump())}


def _overridden(data: Data, overrides: Iterable[str], folder: Path | None) -> Data:
    for text in overrides:
        data = apply_overrides(opened(data, split_override(text)[0], folder), [text])
    return data
