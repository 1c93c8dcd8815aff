"""octavo: run an ensemble of language models on ONNX Runtime, and know what it costs before you buy GPUs.

The public names are loaded when they are first used: `import octavo` loads neither torch nor ONNX Runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from octavo.compiled import prefer_source

if TYPE_CHECKING:
    from octavo.exporters.export import export_bundle
    from octavo.profiles.load import load_scenario
    from octavo.runtime.local import Octavo
    from octavo.simulator.run import simulate

__version__ = "0.1.0"
__all__ = ["Octavo", "export_bundle", "load_scenario", "simulate"]

_HOME = {
    "Octavo": "octavo.runtime.local",
    "export_bundle": "octavo.exporters.export",
    "load_scenario": "octavo.profiles.load",
    "simulate": "octavo.simulator.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


prefer_source()
