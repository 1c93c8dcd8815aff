"""Files, folders and fits that a scenario names: seen from its own folder, and said so where they are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.find import MEASURED, find, named
from octavo.profiles.problems import suggest
from octavo.profiles.read import Data, read_data

FILES = ("workload.arrivals.file", "outcomes.file")
BESIDE = ("table", "layers")
"""Kinds of latency whose argument may be a path."""


def locate(data: Data, folder: Path | None) -> None:
    """What stands beside the scenario is named by its full path; mappings on the way there are copied first."""
    for place in FILES:
        _locate(data, place.split("."), folder)
    kind, _, argument = str(data.get("latency", "")).partition(":")
    if folder and kind in BESIDE and argument and (folder / argument).exists():
        data["latency"] = f"{kind}:{(folder / argument).resolve()}"


def _locate(data: Data, parts: list[str], folder: Path | None) -> None:
    for part in parts[:-1]:
        if not isinstance(data.get(part), dict):
            return
        data[part] = dict(data[part])
        data = data[part]
    name = data.get(parts[-1])
    if folder and isinstance(name, str) and (folder / name).exists():
        data[parts[-1]] = str((folder / name).resolve())


def absent(data: Data) -> Iterator[str]:
    """A line for each file, folder or fit that is named and not there (or empty), with what would be."""
    for place in FILES:
        name = _at(data, place.split("."))
        if isinstance(name, str) and not (there := Path(name)).is_file():
            yield f"{place}: {name!r} -> no such file"
        elif isinstance(name, str) and not there.stat().st_size:
            yield f"{place}: {name!r} -> an empty file; it has a record a line"
    latency = data.get("latency")
    if isinstance(latency, str) and (problem := _unknown_latency(*latency.partition(":")[::2])):
        yield f"latency: {latency!r} -> {problem}"


def _at(data: Any, parts: list[str]) -> Any:
    for part in parts:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _unknown_latency(kind: str, argument: str) -> str | None:
    """What is wrong with a latency's argument; whether the kind is one is the schema's business."""
    match kind:
        case "layers" if argument and not Path(argument).is_dir():
            return "no such folder; layers:FOLDER is a folder with measured tables of layers"
        case "table" if argument and not Path(argument).is_file() and argument not in named(MEASURED):
            return f"no such file or profile; `octavo measure` writes one; {suggest(argument, _with('steps'))}"
        case "fit" if argument:
            return _unknown_fit(*argument.partition(":")[::2])
    return None


def _unknown_fit(name: str, framework: str) -> str | None:
    try:
        fit = read_data(find(MEASURED, name), name)
    except ConfigError:
        return f"no such fit; {suggest(name, _with('coefficients'))}"
    if "coefficients" not in fit or "error" not in fit:
        return f"it needs coefficients and an error; {suggest(name, _with('coefficients'))}"
    hosts = fit.get("frameworks", {})
    if framework and framework not in hosts:
        return f"{name} has no such framework; {suggest(framework, hosts)}"
    return None


def _with(key: str) -> list[str]:
    """The latency profiles that have this key."""
    return [name for name, path in named(MEASURED).items() if key in read_data(path, name)]
