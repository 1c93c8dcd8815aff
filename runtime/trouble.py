"""What a library's complaint means and what helps, for the complaints that users of GPUs meet most."""

from __future__ import annotations

import ctypes.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

from octavo.profiles.errors import MachineError, OctavoError

Remedy = Callable[[re.Match[str]], str]
LONGEST = 300  # characters of a library's own words
TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")  # distributions of its libraries


def explain(text: str) -> str | None:
    """The meaning of a message and what helps; None for one that is not known."""
    for pattern, remedy in TROUBLES:
        if found := pattern.search(text):
            return remedy(found)
    return None


def said(error: BaseException | str) -> str:
    """A library's error in a line, and what helps, if that is known."""
    text = str(error).strip()
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    meaning = explain(text)
    return f"{meaning} ({line[:LONGEST]})" if meaning else line[:LONGEST]


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn a library's error into a MachineError that says what it means."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OctavoError) or not (_theirs(error) or explain(str(error))):
            raise
        raise MachineError(f"{what}: {said(error)}") from None


def _theirs(error: Exception) -> bool:
    """ONNX Runtime's own kinds of errors differ by release."""
    return isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")


def _memory(found: re.Match[str]) -> str:
    wanted = f" for {int(found['bytes']) / 1e9:.2f} GB more" if found.groupdict().get("bytes") else ""
    return f"there is no memory{wanted}: lower max_rows, context or kv_bytes, or use more devices"


def _tensorrt(found: re.Match[str]) -> str:
    needed = found["major"]
    advice = f"ONNX Runtime needs TensorRT {needed}: pip install 'tensorrt-cu13=={needed}.*'"
    other = ctypes.util.find_library("nvinfer") or _installed(TENSORRT)
    return f"{advice}; {other} is another or cannot be found by the loader" if other else advice


def _installed(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def _cuda(found: re.Match[str]) -> str:
    return "ONNX Runtime needs CUDA 13 and cuDNN 9 on the loader's path: pip install 'onnxruntime-gpu[cuda,cudnn]'"


def _said(words: str) -> Remedy:
    return lambda found: words


ABSENT = r"\.so\.(?P<major>\d+)[\d.]*: cannot open shared object file"
TROUBLES: tuple[tuple[re.Pattern[str], Remedy], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (rf"libcuda{ABSENT}", _said("there is no NVIDIA driver here; a container must be started with its GPUs")),
        (rf"lib(nvinfer\w*|nvonnxparser){ABSENT}", _tensorrt),
        (rf"lib(cudnn|cublas|cublasLt|cudart|curand|cufft|nvrtc)\w*{ABSENT}", _cuda),
        (
            r"undefined symbol: \w+, version lib\w+\.so",
            _said("a CUDA library is of another release than ONNX Runtime's"),
        ),
        (r"driver version is insufficient|CUDA failure 35\b", _said("the NVIDIA driver is too old for this CUDA")),
        (r"no CUDA-capable device|CUDA failure 100\b", _said("the NVIDIA driver sees no GPU")),
        (r"no kernel image|CUDA failure 209\b", _said("this ONNX Runtime has no kernels for this GPU")),
        (r"allocate memory for requested buffer of size (?P<bytes>\d+)", _memory),
        (r"requested bytes of (?P<bytes>\d+)", _memory),
        (r"bad_alloc|out of memory|CUDA failure 2\b|CUBLAS_STATUS_ALLOC_FAILED|OutOfMemory", _memory),
    )
)
