"""What the drivers and libraries of a GPU say of themselves, asked through their C interfaces: nothing to install."""

from __future__ import annotations

import ctypes
import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path

import onnxruntime as ort

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR = 10  # of the TensorRT that ONNX Runtime's provider is linked with
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h


def device_name(index: int) -> str | None:
    """A GPU's name and compute capability, such as `NVIDIA H200 sm90`; None where there is no such device."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, name, numbers = ctypes.c_int(), ctypes.create_string_buffer(256), [ctypes.c_int(), ctypes.c_int()]
    calls = [driver.cuInit(0), driver.cuDeviceGet(ctypes.byref(device), index)]
    calls.append(driver.cuDeviceGetName(name, len(name), device))
    for number, attribute in zip(numbers, CAPABILITY, strict=True):
        calls.append(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
    return None if any(calls) else f"{name.value.decode()} sm{numbers[0].value}{numbers[1].value}"


def free_memory(index: int) -> int | None:
    """Bytes that are free on a GPU; None where there is no such device.

    Asked in the device's primary context, the one that ONNX Runtime works in.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context):
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        return None if failed else free.value
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def tensorrt_version() -> str | None:
    """The TensorRT that a session will use, such as 10.14.1; None where the loader finds none."""
    preload()
    name = f"nvinfer_{MAJOR}.dll" if sys.platform == "win32" else f"libnvinfer.so.{MAJOR}"
    try:
        number = int(ctypes.CDLL(name).getInferLibVersion())  # 10000 * major + 100 * minor + patch
    except (OSError, AttributeError):
        return None
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def preload() -> None:
    """Load CUDA, cuDNN and TensorRT where they were installed as Python wheels, for the loader does not look there."""
    with redirect_stdout(io.StringIO()):  # it prints what it does not find
        ort.preload_dlls()
    for library in _wheels():
        with suppress(OSError):  # one that cannot be loaded is complained of when it is needed
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _wheels() -> Iterator[Path]:
    spec = find_spec("tensorrt_libs")
    for place in spec.submodule_search_locations or () if spec else ():
        for stem in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
            yield from Path(place).glob(f"{stem}.so.{MAJOR}")
