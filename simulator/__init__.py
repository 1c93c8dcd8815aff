"""A discrete-event simulator of serving the ensemble: the core's decisions on SimPy's clock."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.simulator.result import Result
    from octavo.simulator.run import simulate, simulate_all, simulate_until

_HOME = {"Result": "result", "simulate": "run", "simulate_all": "run", "simulate_until": "run"}
__all__ = ["Result", "simulate", "simulate_all", "simulate_until"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"octavo.simulator.{_HOME[name]}"), name)
