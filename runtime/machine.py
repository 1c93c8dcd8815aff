"""This machine in words, for whatever is measured on it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

from octavo.runtime.place import cores


def machine() -> dict[str, str]:
    """Processor, cores, memory, operating system, and the versions that decide how fast a model runs."""
    found = {
        "processor": processor(),
        "cores": str(cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for library in ("octavo", "onnxruntime-gpu", "onnxruntime", "numpy"):
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name as the system gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def load() -> float:
    """Other work on the machine: runnable processes per core over the last minute (0 where unknown)."""
    return os.getloadavg()[0] / cores() if hasattr(os, "getloadavg") else 0.0
