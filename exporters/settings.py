"""How an export draws its graphs, validated once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.exporters.outputs import Outputs
from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import KVPrecision, Lowering, Precision

LOWERINGS: dict[str, Lowering] = {"cpu": "ort", "cuda": "ort", "tensorrt": "tensorrt"}
Lora = Literal["stacked", "merged", "detect"]
ROUTES = ("auto", "native", "optimum")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the graphs are drawn."""

    targets: Sequence[str]
    precision: Precision
    outputs: Outputs
    max_length: int | None = None
    lora: Lora = "stacked"
    base: Path | None = None
    route: str = "auto"
    kv: KVPrecision = "model"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.targets) - set(LOWERINGS))
        if unknown or not self.targets:
            raise ConfigError(f"targets: {unknown or 'none given'}; choose from {', '.join(LOWERINGS)}")
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError(f"max_length: {self.max_length}; a context has room for 2 tokens at least")
        if self.route not in ROUTES:
            raise ConfigError(f"route: {self.route!r}; choose from {', '.join(ROUTES)}")
        if self.lora == "detect" and self.base is None:
            raise ConfigError("lora detect: name the model that the experts were tuned from with base")
        if "tensorrt" in self.targets and self.precision not in ("fp16", "bf16"):
            what = f"precision {self.precision}: TensorRT's attention has kernels for fp16 and bf16"
            raise ConfigError(f"{what}; choose one, or export for TensorRT into a bundle of its own")
        if "cuda" in self.targets and self.route != "optimum" and self.fp32:
            what = f"precision {self.precision}: ONNX Runtime's attention on CUDA has no kernel for fp32"
            raise ConfigError(f"{what}; choose fp16 or bf16, quantized weights without cpu, or --route optimum")
        if self.precision == "bf16" and "cpu" in self.targets:
            raise ConfigError(
                "precision bf16: the CPU provider has no bfloat16 kernels; choose fp32, fp16, int8 or int4"
            )
        if self.kv == "int8" and (set(self.targets) != {"cpu"} or self.route == "optimum"):
            what = "route optimum" if self.route == "optimum" else f"target {', '.join(self.targets)}"
            raise ConfigError(f"kv int8: proven of native graphs on the cpu alone, not of {what}; leave it out")

    @property
    def activations(self) -> str:
        """What quantized weights are multiplied by: a CPU wants fp32, a GPU fp16."""
        return "fp32" if "cpu" in self.targets else "fp16"

    @property
    def fp32(self) -> bool:
        """Whether graphs compute in fp32."""
        return self.precision == "fp32" or (self.precision in ("int8", "int4") and self.activations == "fp32")

    @property
    def lowerings(self) -> list[Lowering]:
        """In the order of the targets, each once."""
        return list(dict.fromkeys(LOWERINGS[target] for target in self.targets))

    def untraceable(self, model_type: str) -> str:
        """Why the `optimum` route cannot take over a model that the native route does not know; empty where it can."""
        from octavo.exporters.tracing import traceable

        if not traceable(model_type):
            return f"Optimum cannot trace {model_type!r} models with a cache either"
        if self.precision != "fp32" or self.lowerings != ["ort"] or self.outputs != Outputs():
            return "Optimum could trace it, but only with all logits, in fp32 and for the targets cpu and cuda"
        if self.kv != "model":
            return "Optimum could trace it, but not with its KV cache in int8"
        return ""
