"""Maps the repository's top-level folders into the `octavo` package (pyproject.toml holds everything else)."""

from setuptools import find_packages, setup

PARTS = ["runtime", "exporters", "simulator", "profiles"]
setup(
    package_dir={"octavo": "octavo", **{f"octavo.{part}": part for part in PARTS}},
    packages=[
        "octavo",
        *(f"octavo.{part}" for part in PARTS),
        *(f"octavo.{part}.{inner}" for part in PARTS for inner in find_packages(part)),
    ],
)
