"""Which modules belong to which extra of the package."""

from __future__ import annotations

EXTRAS = {
    "runtime": ("onnxruntime", "tokenizers", "jinja2", "psutil"),
    "serve": ("starlette", "uvicorn", "h11", "prometheus_client"),
    "cluster": ("ray",),
    "grammar": ("llguidance",),
    "otel": ("opentelemetry",),
    "export": ("torch", "onnx", "onnx_ir", "safetensors", "transformers", "optimum", "ml_dtypes"),
    "rtx": ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_rtx_bindings"),
    "silicon": ("aiconfigurator_core",),
    "studio": ("dash", "flask", "werkzeug"),
}


def extra_with(module: str) -> str | None:
    """The extra that brings a module, None for one of no extra."""
    return next((extra for extra, modules in EXTRAS.items() if module.split(".")[0] in modules), None)
