"""Octavo's own products of matrices for x86-64 processors: compiled where they run, used in place of ONNX Runtime's."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from octavo.profiles.errors import MachineError
from octavo.profiles.manifest import GraphEntry

SOURCES = Path(__file__).parent / "native"
UNITS = {
    "kernels.cpp": (),
    "avx2.cpp": ("-mavx2", "-mfma"),
    "avx512.cpp": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma"),
}
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast")
COMPILERS = ("c++", "g++", "clang++")
STOCK = "ONNX Runtime"
PRECISIONS = ("fp32", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled library, and the instructions that it uses on this processor."""

    path: Path
    instructions: str

    def __str__(self) -> str:
        return f"octavo {self.instructions}"


def whose(own: Kernels | str) -> str:
    """Whose products a model uses, and why not octavo's, for people to read."""
    return str(own) if isinstance(own, Kernels) else STOCK + (f" ({own})" if own else "")


def library() -> Path:
    """Where the library of these very sources is, or would be: beside them, named after their hash."""
    texts = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.suffix in (".cpp", ".h"))
    return SOURCES / f"kernels-{blake2b(texts, digest_size=8).hexdigest()}.so"


def kernels_for(name: str, graph: GraphEntry, provider: str, wanted: bool | None, *, prepack: bool) -> Kernels | str:
    """The library, if a model is to use it, or why it is not; `wanted` None: where there is nothing against it.

    Nothing is to be said where nobody could expect it. Raises MachineError where it is wanted and cannot be had.
    """
    found = kernels()
    against = {
        f"it runs on {provider}": provider != "CPUExecutionProvider",
        "its graph was traced": graph.route != "native",  # and multiplies what are no weights, attention's scores say
        f"its weights are {graph.precision}": graph.precision not in PRECISIONS,
        "what is kept prepacked is in ONNX Runtime's own form": prepack,
        str(found): not isinstance(found, Kernels),
    }
    why = next((reason for reason, holds in against.items() if holds), "")
    if wanted and why:
        raise MachineError(f"{name}: octavo's kernels were asked for: {why}")
    if wanted is False or provider != "CPUExecutionProvider":
        return ""
    return why or found


@cache
def kernels() -> Kernels | str:
    """The library, loaded; or why there is none, in words. Nothing but octavo's own folder is ever looked at."""
    path = library()
    if not path.is_file():
        return "octavo's are not compiled: run `octavo kernels`"
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path} cannot be loaded: {error}"
    loaded.octavo_kernels.restype = ctypes.c_char_p
    instructions: str = loaded.octavo_kernels().decode()
    return Kernels(path, instructions) if instructions else "this processor has neither AVX2 nor AVX-512"


def compile_kernels(compiler: str | None = None) -> Path:
    """Compile the library, beside its sources, with the compiler that is given, is named by CXX, or is found.

    Raises MachineError where there is no compiler, it fails, or the folder cannot be written.
    """
    if platform.machine() not in ("x86_64", "AMD64") or os.name != "posix":
        raise MachineError(f"kernels: there are none for {platform.system()} on {platform.machine()}")
    found = compiler or os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if found is None:
        raise MachineError(f"kernels: no C++ compiler, none of {', '.join(COMPILERS)} is on the path; set CXX")
    target = library()
    try:
        with tempfile.TemporaryDirectory(dir=SOURCES) as folder:
            fresh = _compiled(found, Path(folder))
            remove_kernels()
            fresh.rename(target)
    except OSError as error:
        raise MachineError(f"kernels: {found}, {SOURCES}: {error.strerror}") from None
    kernels.cache_clear()
    return target


def remove_kernels() -> list[Path]:
    """Remove what was compiled, of these sources or others."""
    found = sorted(SOURCES.glob("kernels-*.so"))
    for path in found:
        path.unlink()
    kernels.cache_clear()
    return found


def _compiled(compiler: str, folder: Path) -> Path:
    for unit, flags in UNITS.items():
        _run(compiler, *FLAGS, *flags, "-c", str(SOURCES / unit), "-o", str(folder / f"{unit}.o"))
    _run(compiler, "-shared", *(str(folder / f"{unit}.o") for unit in UNITS), "-o", str(folder / "kernels.so"))
    return folder / "kernels.so"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"kernels: {' '.join(command[:1])} failed:\n{done.stderr[-2000:]}")
