"""Facts: hardware, models, links, prices, workloads, and the files that describe ensembles. Imports nothing of ours.

The public names are loaded when they are first used, so that importing `octavo.profiles.errors` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.profiles.catalog import add_profile, check_profiles, list_profiles, show_profile
    from octavo.profiles.errors import ConfigError
    from octavo.profiles.hardware import Hardware
    from octavo.profiles.link import Link
    from octavo.profiles.load import (
        baselines,
        load_hardware,
        load_link,
        load_model,
        load_price,
        load_scenario,
        load_workload,
        override,
        vary,
    )
    from octavo.profiles.model import Model
    from octavo.profiles.price import Price
    from octavo.profiles.read import apply_overrides
    from octavo.profiles.scenario import Scenario
    from octavo.profiles.schema import scenario_schema
    from octavo.profiles.workload import Workload

_LOADERS = ("load_hardware", "load_link", "load_model", "load_price", "load_scenario", "load_workload")
_HOME = {
    **dict.fromkeys(("add_profile", "check_profiles", "list_profiles", "show_profile"), "catalog"),
    **dict.fromkeys(("baselines", "override", "vary", *_LOADERS), "load"),
    **{name: name.lower() for name in ("Hardware", "Link", "Model", "Price", "Scenario", "Workload")},
    "ConfigError": "errors",
    "apply_overrides": "read",
    "scenario_schema": "schema",
}

__all__ = [
    "ConfigError",
    "Hardware",
    "Link",
    "Model",
    "Price",
    "Scenario",
    "Workload",
    "add_profile",
    "apply_overrides",
    "baselines",
    "check_profiles",
    "list_profiles",
    "load_hardware",
    "load_link",
    "load_model",
    "load_price",
    "load_scenario",
    "load_workload",
    "override",
    "scenario_schema",
    "show_profile",
    "vary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"octavo.profiles.{_HOME[name]}"), name)
