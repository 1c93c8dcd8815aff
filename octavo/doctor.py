"""What this machine has: processor, memory, libraries, and which execution providers really create a session."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from octavo.compiled import form
from octavo.extras import EXTRAS

Status = Literal["ok", "absent", "wrong"]

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve")
LIBRARIES = {"CUDA driver": "cuda", "CUDA runtime": "cudart", "cuDNN": "cudnn"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `wrong` is something that will fail later; `absent` is only good to know."""

    what: str
    status: Status
    detail: str


def examine(folder: Path) -> Iterator[Finding]:
    """Everything worth knowing before an export or a run whose files go to `folder`."""
    yield Finding("system", "ok", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Finding("python", "ok", platform.python_version())
    yield Finding(
        "processor",
        "ok",
        f"{processor()}, {os.cpu_count()} cores, {', '.join(instructions()) or 'no known extensions'}",
    )
    yield _core()
    yield _memory()
    yield _disk(folder)
    yield from _extras()
    yield from _libraries()
    if find_spec("onnxruntime"):
        yield from _onnxruntime()


def processor() -> str:
    """The processor's name as the system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The vector and matrix extensions that matter for inference."""
    present = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return [flag for flag in FLAGS if flag in present]


def _cpuinfo(key: str) -> str | None:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)


def _core() -> Finding:
    """Whether the simulator's hot modules are compiled."""
    match form():
        case "compiled":
            return Finding("core", "ok", "compiled")
        case "source":
            return Finding("core", "absent", "runs from source; `make compile` makes simulations several times as fast")
        case "stale":
            return Finding("core", "absent", "changed since it was compiled, so it runs from source; `make compile`")


def _memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Finding("memory", "absent", "this system does not say")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Finding("memory", "ok", f"{total / 2**30:.1f} GiB")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    return Finding("disk", "ok" if free > 2**30 else "wrong", f"{free / 2**30:.1f} GiB free in {folder}")


def _extras() -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if not find_spec(module)]
        detail = f"missing {', '.join(missing)}: install octavo[{extra}]" if missing else "installed"
        yield Finding(f"octavo[{extra}]", "absent" if missing else "ok", detail)


def _libraries() -> Iterator[Finding]:
    for name, library in LIBRARIES.items():
        found = ctypes.util.find_library(library)
        yield Finding(name, "ok" if found else "absent", found or f"no lib{library} on the loader's path")


def _onnxruntime() -> Iterator[Finding]:
    from octavo.runtime.ort.kernels import Kernels, kernels
    from octavo.runtime.ort.providers import probe_providers

    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    versions = ", ".join(f"{name} {_version(name)}" for name in installed)
    if len(installed) > 1:
        yield Finding("ONNX Runtime", "wrong", f"{versions}: one overwrites the other; uninstall both, install one")
    else:
        yield Finding("ONNX Runtime", "ok", versions)
    found = kernels()
    yield Finding("kernels", "ok" if isinstance(found, Kernels) else "absent", str(found))
    yield from _gpus()
    for probe in probe_providers():
        yield Finding(probe.provider, "ok" if probe.works else "absent", probe.detail)


def _gpus() -> Iterator[Finding]:
    """What engines are built for, and with; a wheel's TensorRT is not on the loader's path, but is found here."""
    from octavo.runtime.ort.gpu import MAJOR, device_name, tensorrt_version

    index = 0
    while name := device_name(index):
        yield Finding(f"GPU {index}", "ok", name)
        index += 1
    if not index:
        yield Finding("GPU 0", "absent", "the NVIDIA driver is absent, or sees none")
    version = tensorrt_version()
    yield Finding("TensorRT", "ok" if version else "absent", version or f"no libnvinfer.so.{MAJOR}, which is needed")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
