"""`octavo export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from octavo import show, terminal
from octavo.options import Json
from octavo.show import Precision


def export(
    experts: Annotated[list[Path], typer.Argument(help="Checkpoint folders: config.json and safetensors.")],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    value: Annotated[Path | None, typer.Option(help="A sequence-classification checkpoint with one logit.")] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the folder's by default.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="cpu, cuda or tensorrt; may be given several times.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or int4.")] = "fp32",
    route: Annotated[str, typer.Option(help="native, optimum, or auto.")] = "auto",
    parity_text: Annotated[Path | None, typer.Option(help="Real text for the parity check.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Give the k largest logits instead of all.", min=1)] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also give the last hidden state.")] = False,
    max_length: Annotated[int | None, typer.Option(help="Limit the context to so many tokens.", min=1)] = None,
    lora: Annotated[str, typer.Option(help="PEFT experts: stacked on one base, or merged into it.")] = "stacked",
    base: Annotated[Path | None, typer.Option(help="The base of PEFT experts, where not the one they name.")] = None,
    verify: Annotated[bool, typer.Option(help="Check parity; --no-verify is recorded in the manifest.")] = True,
    check_build: Annotated[
        bool, typer.Option("--check-build", help="Let TensorRT-RTX's builder try the graphs; needs no GPU.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    json: Json = False,
) -> None:
    """Export checkpoints to ONNX: one verified bundle, proven equal to the originals.

    Exits with 6, and leaves no bundle, when a model is not equal to its original within its precision's tolerance, or
    when --check-build is asked for and a graph is refused.
    """
    from octavo.exporters.export import export_bundle

    with terminal.watching() as watch:
        manifest = export_bundle(
            experts,
            out,
            value=value,
            name=name,
            targets=target or ["cpu"],
            precision=show.choice("precision", precision, Precision),
            route=route,
            verify=verify,
            parity_text=parity_text,
            top_k=top_k,
            hidden=hidden,
            max_length=max_length,
            lora=show.choice("lora", lora, Literal["stacked", "merged"]),
            base=base,
            check_build=check_build,
            overwrite=overwrite,
            progress=lambda p: watch("export", p.done / max(1, p.total), f"{p.stage} {p.model or ''}".strip()),
        )
    show.manifest(manifest, out, as_json=json)
