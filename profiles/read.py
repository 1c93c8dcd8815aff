"""Reading YAML strictly, changing plain data by dotted keys, and merging one mapping into another."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from octavo.profiles.errors import ConfigError
from octavo.profiles.problems import suggest
from octavo.profiles.quantity import NUMBER

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

Data = dict[str, Any]
UNSCALED = ("amortisation_years",)
"""A price that is scaled is paid off in the same time."""
_SCALED = re.compile(rf"\s*({NUMBER})(\s*[^\d\s-].*)?")


class _Loader(_SafeLoader):
    """safe_load, but a key that is there twice is an error, and 1e9 is a number as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if any(key.value == before.value for before in keys[:index]):
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse_yaml(text: str, origin: str) -> Any:
    """Plain data. Raises ConfigError with the line that is wrong."""
    try:
        data = yaml.load(text, Loader=_Loader)
        json.dumps(data, default=str)  # raises ValueError where an alias makes the data contain itself
        return data
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{origin}{line}: {error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{origin}: not plain YAML: {error}") from None


def read_data(path: Path | Traversable, origin: str) -> Data:
    """The mapping in a YAML or JSON file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{origin}: cannot be read: {error}") from None
    data = _parse_json(text, origin) if path.name.endswith(".json") else parse_yaml(text, origin)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{origin}: a file like this is a mapping of names to values")
    return data


def _parse_json(text: str, origin: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{origin}:{error.lineno}: {error.msg}") from None


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Data:
    """`base` with `change` in it. Lists are replaced as a whole, and so is a mapping whose name or kind changes."""
    merged = dict(base)
    for key, value in change.items():
        have = merged.get(key)
        merges = isinstance(have, dict) and isinstance(value, dict) and _same_alternative(have, value)
        merged[key] = merge(have or {}, value) if merges else copy.deepcopy(value)
    return merged


def _same_alternative(have: Any, change: Any) -> bool:
    return all(change.get(tag, have.get(tag)) == have.get(tag) for tag in ("name", "kind"))


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> Data:
    """A copy of plain data with `a.b=c` set, or `a.b*=0.7` scaling every number at or below a.b.

    Indices of lists are allowed. Keys that are not there are made: whether they may be is for the schema to say.
    Raises ConfigError.
    """
    changed: Data = copy.deepcopy(dict(data))
    for override in overrides:
        key, scaling, text = split_override(override)
        value = parse_yaml(text, f"--set {override}")
        _set(changed, key, value, scaling=scaling, origin=f"--set {override}")
    return changed


def split_override(override: str) -> tuple[str, bool, str]:
    """Key, whether it scales, and value of `a.b=c` or `a.b*=c`."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip("* "):
        raise ConfigError(f"--set {override}: give a dotted key and a value, such as workload.arrivals.rate=3")
    return key.removesuffix("*").strip(), key.endswith("*"), text


def _set(data: Any, key: str, value: Any, *, scaling: bool, origin: str) -> None:
    here, parts = data, key.split(".")
    while True:
        step, parts = _next_key(here, parts, origin)
        if scaling and isinstance(here, dict) and step not in here:
            where = key.rpartition(".".join([step, *parts]))[0].rstrip(".")
            raise ConfigError(
                f"{origin}: {where or 'a scenario'} has no {step!r} to scale; {_meant(step, here, where)}"
            )
        if not parts:
            break
        if isinstance(here, dict) and here.get(step) is None:
            here[step] = {}
        here = here[step]
    if not scaling:
        here[step] = value
        return
    if not isinstance(value, int | float):
        raise ConfigError(f"{origin}: the factor must be a number, got {value!r}")
    here[step] = _scaled(here[step], value, origin)


def _meant(step: str, here: Mapping[str, Any], where: str) -> str:
    """The same key further below, or the nearest one here."""
    below = next(_below(here, step), None)
    return f"did you mean {where}.{below}?".replace("mean .", "mean ") if below else suggest(step, here)


def _below(here: Mapping[str, Any], step: str) -> Iterator[str]:
    for key, value in here.items():
        if isinstance(value, dict):
            yield from ([f"{key}.{step}"] if step in value else [f"{key}.{each}" for each in _below(value, step)])


def _next_key(here: Any, parts: list[str], origin: str) -> tuple[Any, list[str]]:
    """The key or index to take next; a key with dots in it (llama-3.1-8b) is recognised where it is there."""
    if isinstance(here, list):
        if not parts[0].isdigit() or int(parts[0]) >= len(here):
            raise ConfigError(f"{origin}: {parts[0]!r} is no index of a list of {len(here)}; they begin at 0")
        return int(parts[0]), parts[1:]
    if not isinstance(here, dict):
        raise ConfigError(f"{origin}: nothing is below a value, so {parts[0]!r} is not either")
    longest = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in here), 1)
    return ".".join(parts[:longest]), parts[longest:]


def _scaled(value: Any, factor: float, origin: str) -> Any:
    match value:
        case bool() | None:
            return value
        case int() | float():
            product = value * factor
            return int(product) if isinstance(value, int) and float(product).is_integer() else product
        case str() if found := _SCALED.fullmatch(value):
            return f"{float(found[1]) * factor!r}{found[2] or ''}"
        case dict():
            return {key: v if key in UNSCALED else _scaled(v, factor, origin) for key, v in value.items()}
        case list():
            return [_scaled(below, factor, origin) for below in value]
    raise ConfigError(f"{origin}: {value!r} is no number to scale")
