"""What `octavo profiles` shows: the profiles there are, one of them in full, a new one added, all of them checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from octavo.profiles.errors import ConfigError
from octavo.profiles.fact import Fact
from octavo.profiles.find import KINDS, MEASURED, built_in, kind_of, named, user_folder
from octavo.profiles.load import (
    load_hardware,
    load_latency,
    load_link,
    load_model,
    load_price,
    load_scenario,
    load_workload,
)
from octavo.profiles.read import Data, read_data

LOADERS: Mapping[str, Callable[[str], BaseModel]] = {
    "hardware": load_hardware,
    "models": load_model,
    "links": load_link,
    "prices": load_price,
    "workloads": load_workload,
    "scenarios": load_scenario,
    MEASURED: load_latency,
}


def list_profiles(kind: str) -> list[Data]:
    """Name, description and origin (`built-in`, or the file) of every profile of a kind, by name."""
    kind = kind_of(kind)
    packaged = built_in(kind)
    rows = []
    for name, path in named(kind).items():
        data = read_data(path, str(path))
        description = str(data.get("description") or (_measured(data) if kind == MEASURED else ""))
        ours = packaged.joinpath(path.name) == path
        rows.append({"name": name, "description": description, "origin": "built-in" if ours else str(path)})
    return rows


def _measured(data: Data) -> str:
    """What was measured, where and when."""
    return f"{data.get('model')} on {data.get('hardware')}, measured {str(data.get('measured_on'))[:10]}"


def show_profile(kind: str, name: str) -> Data:
    """Everything that is known of a profile, in base units, defaults filled in."""
    kind = kind_of(kind)
    return LOADERS[kind](name).model_dump(mode="json", by_alias=True)


def add_profile(kind: str, path: Path | str, *, replace: bool = False) -> Path:
    """Check a profile file and copy it into the user's folder. Returns where it is; raises ConfigError."""
    kind, path = kind_of(kind), Path(path)
    LOADERS[kind](str(path.resolve()))
    target = user_folder() / kind / path.name
    if target.exists() and not replace:
        raise ConfigError(f"{target}: is there already; say so if it shall be replaced")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    return target


def check_profiles(kind: str | None = None) -> list[str]:
    """A line for every profile that doesn't load and every number that has no source; empty when all is well."""
    return [line for each in ([kind_of(kind)] if kind else (*KINDS, MEASURED)) for line in _problems(each)]


def _problems(kind: str) -> Iterator[str]:
    for name in named(kind):
        try:
            profile = LOADERS[kind](name)
        except ConfigError as error:
            yield from str(error).splitlines()
            continue
        if isinstance(profile, Fact):
            yield from (f"{kind}/{name}: {path}: no source -> list it in sources" for path in profile.unsourced())
