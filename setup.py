"""Maps the repository's top-level folders into the `octavo` package (pyproject.toml holds everything else).

With OCTAVO_COMPILE=1 mypyc compiles the core's hot modules from the same source; `make compile` does it in place, and
a stamp then says of which text (octavo/compiled.py).
"""

import os
import runpy
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

PARTS = ["runtime", "exporters", "simulator", "profiles"]
HOT = [
    *(f"runtime/core/{name}" for name in ("council", "kv", "policies", "query", "scheduler", "trace")),
    *(f"simulator/latency/{name}" for name in ("model", "physics", "work")),
    "simulator/plan/batches",
    *(f"simulator/{name}" for name in ("device", "independent", "lane", "network", "outcomes", "station")),
    *(f"simulator/{name}" for name in ("timeline", "tokens", "truth", "world")),
]
FORMS = runpy.run_path("octavo/compiled.py")
# Taken before the compiler reads them: should a source change meanwhile, what was compiled is stale.
HASHES = {f"{name}.py": FORMS["digest"](Path(f"{name}.py")) for name in HOT}


def compiled() -> list[Extension]:
    if os.environ.get("OCTAVO_COMPILE") != "1":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        sys.exit("OCTAVO_COMPILE=1 needs mypy here: `pip install mypy`, and --no-build-isolation where pip builds.")
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    if compiler and not shutil.which(compiler.split()[0]):
        sys.exit(f"OCTAVO_COMPILE=1 needs a C compiler, and there is no {compiler.split()[0]} (CC names another).")

    # Seen through .typing, where the modules have their import names. Without mypy's cache: from there mypyc 2.4 reads
    # classes without saying which of their attributes may be undefined, and stops after an edit.
    sources = [f".typing/octavo/{name}.py" for name in HOT]
    options = ["--config-file=mypyc.ini", f"--cache-dir={os.devnull}"]
    return mypycify([*sources, *options], separate=True, debug_level="0")


class Stamped(build_ext):
    """Leaves a stamp beside what was compiled in place."""

    def run(self) -> None:
        super().run()
        if self.inplace and self.extensions:
            FORMS["stamp"](HASHES)


setup(
    package_dir={"octavo": "octavo", **{f"octavo.{part}": part for part in PARTS}},
    packages=[
        "octavo",
        *(f"octavo.{inner}" for inner in find_packages("octavo")),
        *(f"octavo.{part}" for part in PARTS),
        *(f"octavo.{part}.{inner}" for part in PARTS for inner in find_packages(part)),
    ],
    ext_modules=compiled(),
    cmdclass={"build_ext": Stamped},
)
