"""Fills a scenario's plain data with the profiles that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.files import absent, locate
from octavo.profiles.find import named, read
from octavo.profiles.read import Data, merge

REFERENCES: Mapping[str, tuple[str, ...]] = {
    "hardware": ("fleet.placement.*.hardware", "fleet.tiers.*.devices.@"),
    "models": ("ensemble.experts.*.model", "ensemble.experts.model", "ensemble.value.model"),
    "links": ("fleet.tiers.*.client_link", "fleet.links.*.link"),
    "prices": ("fleet.tiers.*.price",),
}
"""Where a scenario names profiles; `*` stands for every key or index, `@` for the keys themselves."""

ALWAYS = {"prices": ("us-average",)}
"""What a scenario refers to by leaving something out."""


def expand(kind: str, value: object, folder: Path | None = None, chain: tuple[str, ...] = ()) -> Any:
    """Plain data of a profile that is named, or that starts `from` another one. Raises ConfigError.

    A profile of the user's own that starts from its own name starts from the package's.
    """
    if isinstance(value, str):
        itself = chain == (value,)
        if value in chain and not itself:
            raise ConfigError(f"profiles start from each other: {' -> '.join((*chain, value))}")
        return expand(kind, read(kind, value, folder, own=not itself), folder, (*chain, value))
    if not isinstance(value, dict) or not isinstance(value.get("from"), str):
        return value
    rest = {key: below for key, below in value.items() if key != "from"}
    return merge(expand(kind, value["from"], folder, chain), rest)


def fill(data: Data, origin: str, folder: Path | None) -> tuple[Data, list[str]]:
    """The data with its workload and its tables of profiles in place, and a line for each that could not be found."""
    filled, problems = _with_workload(data, origin, folder)
    locate(filled, folder)
    everything = [("", filled), *((f"baselines.{name}.", changed) for name, changed in variants(filled))]
    lacking: dict[str, str] = {}  # what the scenario lacks, its baselines mostly lack too
    for prefix, each in everything:
        for line in absent(each):
            lacking.setdefault(line, prefix)
    problems += [f"{origin}: {prefix}{line}" for line, prefix in lacking.items()]
    for kind, places in REFERENCES.items():
        if isinstance(filled.get(kind, {}), dict):
            wanted = [(prefix + place, name) for prefix, each in everything for place, name in references(each, places)]
            wanted += [("", name) for name in ALWAYS.get(kind, ())]
            filled[kind], wrong = _table(kind, filled.get(kind) or {}, wanted, folder)
            problems += [f"{origin}: {line}" for line in wrong]
    return filled, problems


def variants(data: Data) -> Iterator[tuple[object, Data]]:
    """The baselines that can be made out, by name."""
    lines = data.get("baselines")
    for line in lines if isinstance(lines, list) else ():
        if isinstance(line, dict) and isinstance(line.get("change"), dict):
            own = {"name": line.get("name"), "description": line.get("description", ""), "baselines": []}
            yield line.get("name"), merge(data, line["change"]) | own


def references(data: Data, places: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every (dotted key, name) at these places; what has another shape there is left to the schema."""
    for place in places:
        yield from ((path, name) for path, name in _at(data, place.split("."), "") if isinstance(name, str))


def _at(data: Any, parts: list[str], path: str) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield path, data
        return
    part, rest = parts[0], parts[1:]
    below = dict(enumerate(data)) if isinstance(data, list) else data if isinstance(data, dict) else {}
    if part == "@":
        yield from ((f"{path}.{key}", key) for key in below)
    for key, value in below.items():
        if part == "*" or part == key:
            yield from _at(value, rest, f"{path}.{key}" if path else str(key))


def _table(kind: str, given: Data, wanted: list[tuple[str, str]], folder: Path | None) -> tuple[Data, list[str]]:
    """Every profile that is given or wanted, in full."""
    table: Data = {}
    missing: dict[str, str] = {}
    own = [(f"{kind}.{name}", name, value) for name, value in given.items()]
    for place, name, value in [*own, *((place, name, name) for place, name in wanted)]:
        if name in table or name in missing:
            continue
        try:
            found = expand(kind, value, folder)
        except ConfigError as error:
            missing[name] = f"{place}: {error}"
        else:
            table[name] = {**found, "name": name} if isinstance(found, dict) else found
    return table, list(missing.values())


def _with_workload(data: Data, origin: str, folder: Path | None) -> tuple[Data, list[str]]:
    if "workload" not in data:
        return dict(data), []
    try:
        workload = expand("workloads", data["workload"], folder)
    except ConfigError as error:
        return dict(data), [f"{origin}: workload: {error}"]
    if isinstance(workload, dict):
        workload = {"name": data.get("name", "workload"), **workload}
    return {**data, "workload": workload}, []


def opened(data: Data, key: str, folder: Path | None) -> Data:
    """The data with the profile in place that a dotted key leads into, so that the key finds what it changes."""
    first, _, rest = key.partition(".")
    if first == "workload" and rest:
        return {**data, "workload": expand("workloads", data.get("workload", {}), folder)}
    if first not in REFERENCES or not rest:
        return data
    table = data.get(first) or {}
    name = max((name for name in {*named(first), *table} if f"{rest}.".startswith(f"{name}.")), key=len, default=None)
    if name is None or (name in table and "from" not in table[name]):
        return data
    return {**data, first: {**table, name: expand(first, table.get(name, name), folder)}}
