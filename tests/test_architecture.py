"""Who may import whom, and what the light commands must not load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("octavo", "profiles", "runtime", "exporters", "simulator")

# Each package and what of ours it may import; the longest matching name counts.
MAY_IMPORT = {
    "octavo.profiles": {"octavo.profiles"},
    "octavo.runtime.core": {"octavo.runtime.core"},
    "octavo.runtime": {"octavo.runtime", "octavo.profiles"},
    "octavo.exporters": {"octavo.exporters", "octavo.profiles"},
    "octavo.simulator": {"octavo.simulator", "octavo.runtime.core", "octavo.profiles"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts if part == "octavo" else ("octavo", *parts)).removesuffix(".__init__"), path


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write octavo.… in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_only_what_its_package_may(module: str, path: Path) -> None:
    owners = [package for package in MAY_IMPORT if within(module, package)]
    for name in imported(path):
        assert name.split(".")[0] not in {"runtime", "exporters", "simulator", "profiles"}, f"{path} imports {name}"
        if owners and within(name, "octavo") and name != "octavo.__version__":
            allowed = MAY_IMPORT[max(owners, key=len)]
            assert any(within(name, package) for package in allowed), f"{module} must not import {name}"


def test_the_core_needs_only_the_standard_library() -> None:
    for module, path in modules():
        if within(module, "octavo.runtime.core"):
            names = {name.split(".")[0] for name in imported(path)} - {"octavo"}
            assert names <= set(sys.stdlib_module_names), f"{module} imports {names - set(sys.stdlib_module_names)}"


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["simulate", "--help"],
        ["plan", "--help"],
        ["profiles", "list"],
        ["simulate", "single-box", "--queries", "50"],
    ],
)
def test_light_commands_load_neither_torch_nor_onnxruntime(command: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['octavo', *sys.argv[1:]]\n"
        "from octavo.cli import main\n"
        "code = main()\n"
        "heavy = {'torch', 'onnxruntime', 'transformers', 'onnx', 'optimum'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
