"""`octavo export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from octavo import show, terminal
from octavo.options import Json
from octavo.profiles.errors import ConfigError
from octavo.show import KVPrecision, Precision, Reads

if TYPE_CHECKING:
    from octavo.exporters.progress import ExportProgress

Lora = Literal["stacked", "merged", "detect"]


def export(
    experts: Annotated[list[Path], typer.Argument(help="Checkpoint folders: config.json and safetensors.")],
    out: Annotated[Path | None, typer.Option(help="The bundle folder to write.")] = None,
    value: Annotated[Path | None, typer.Option(help="A sequence-classification checkpoint with one logit.")] = None,
    value_reads: Annotated[
        str | None,
        typer.Option(help="Of prompt and answer: tokens (the experts'), text, pair or chat; as suits it by default."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the folder's by default.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="cpu, cuda or tensorrt; may be given several times.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or int4.")] = "fp32",
    kv: Annotated[str, typer.Option(help="The KV cache: as the model computes it (model), or int8.")] = "model",
    route: Annotated[str, typer.Option(help="native, optimum, or auto.")] = "auto",
    parity_text: Annotated[Path | None, typer.Option(help="Real text for the parity check.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Give the k largest logits instead of all.", min=1)] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also give the last hidden state.")] = False,
    max_length: Annotated[int | None, typer.Option(help="Limit the context to so many tokens.", min=1)] = None,
    lora: Annotated[
        str,
        typer.Option(help="stacked on one base, merged into it, or detect: full experts of low rank are stacked too."),
    ] = "stacked",
    base: Annotated[Path | None, typer.Option(help="The base of PEFT or low-rank experts, if not as named.")] = None,
    verify: Annotated[bool, typer.Option(help="Check parity; --no-verify is recorded in the manifest.")] = True,
    check_build: Annotated[
        bool, typer.Option("--check-build", help="Let TensorRT-RTX's builder try the graphs; needs no GPU.")
    ] = False,
    build_engines: Annotated[
        bool,
        typer.Option("--build-engines", help="Build TensorRT's engines for this GPU; also of BUNDLE, given alone."),
    ] = False,
    strip_engines: Annotated[
        bool, typer.Option("--strip-engines", help="Keep engines without weights, refitted from the bundle.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    json: Json = False,
) -> None:
    """Export checkpoints to ONNX: one verified bundle, proven equal to the originals.

    Exits with 6, and leaves no bundle, when a model is not equal to its original within its precision's tolerance, or
    when --check-build is asked for and a graph is refused. Exits with 4 when engines are to be built and TensorRT does
    not work here, or would leave a node of a graph to another provider.
    """
    if strip_engines and not build_engines:
        raise ConfigError("--strip-engines: goes with --build-engines")
    if build_engines and out is None and len(experts) == 1:
        _build(experts[0], stripped=strip_engines, as_json=json)
        return
    if out is None:
        raise ConfigError("--out: name the bundle folder to write")
    if build_engines:
        _buildable(target or ["cpu"])
    from octavo.exporters.export import export_bundle

    with terminal.watching() as watch:
        manifest = export_bundle(
            experts,
            out,
            value=value,
            value_reads=None if value_reads is None else show.choice("value-reads", value_reads, Reads),
            name=name,
            targets=target or ["cpu"],
            precision=show.choice("precision", precision, Precision),
            kv=show.choice("kv", kv, KVPrecision),
            route=route,
            verify=verify,
            parity_text=parity_text,
            top_k=top_k,
            hidden=hidden,
            max_length=max_length,
            lora=show.choice("lora", lora, Lora),
            base=base,
            check_build=check_build,
            overwrite=overwrite,
            progress=lambda p: _tell(watch, p),
        )
    show.manifest(manifest, out, as_json=json)
    if build_engines:
        _build(out, stripped=strip_engines)


def _buildable(targets: list[str]) -> None:
    """Raise, before anything is exported, where no engine could be built."""
    from octavo.runtime.ort.build import check_tensorrt

    if "tensorrt" not in targets:
        raise ConfigError(f"--build-engines: of the targets {', '.join(targets)} none is tensorrt")
    check_tensorrt()


def _build(bundle: Path, *, stripped: bool, as_json: bool = False) -> None:
    """Build a bundle's engines; each is told when it is there."""
    from octavo.profiles.manifest import verify_bundle
    from octavo.runtime.ort.build import build_engines

    built = []
    for engine in build_engines(bundle, verify_bundle(bundle), stripped=stripped):
        told = f"{engine.model}: {engine.graph}, {show.size(engine.bytes)}, in {engine.seconds:.1f} s"
        terminal.note(f"engine of {told}, kept in {engine.folder}")
        built.append(engine.as_dict())
    if as_json:
        terminal.dump(built)


def _tell(watch: terminal.Watcher, progress: ExportProgress) -> None:
    if progress.stage == "plan" and progress.note:
        terminal.note(progress.note)
    watch("export", progress.done / max(1, progress.total), f"{progress.stage} {progress.model or ''}".strip())
