"""Maps the repository's top-level folders into the `octavo` package (pyproject.toml holds everything else).

With OCTAVO_COMPILE=1 mypyc compiles the core's hot modules from the same source; `make compile` does it in place, and
a stamp then says of which text (octavo/compiled.py).
"""

import os
import runpy

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

PARTS = ["runtime", "exporters", "simulator", "profiles"]
HOT = [
    *(f"runtime/core/{name}" for name in ("council", "kv", "policies", "query", "scheduler", "trace")),
    *(f"simulator/latency/{name}" for name in ("model", "physics", "work")),
    *(f"simulator/{name}" for name in ("device", "independent", "lane", "network", "outcomes", "station")),
    *(f"simulator/{name}" for name in ("timeline", "truth", "world")),
]


def compiled() -> list[Extension]:
    if os.environ.get("OCTAVO_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    # Seen through .typing, where the modules have their import names.
    sources = [f".typing/octavo/{name}.py" for name in HOT]
    return mypycify([*sources, "--config-file=mypyc.ini"], separate=True, debug_level="0")


class Stamped(build_ext):
    """Leaves a stamp beside what was compiled in place."""

    def run(self) -> None:
        super().run()
        if self.inplace and self.extensions:
            runpy.run_path("octavo/compiled.py")["stamp"]([f"{name}.py" for name in HOT])


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
