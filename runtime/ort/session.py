"""Opens a model of a bundle as an ONNX Runtime session: no spinning threads, no silent change of provider."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import GraphEntry, KVLayout, Manifest, Weights
from octavo.runtime.ort.assignment import RECORD, check_assignment
from octavo.runtime.ort.engines import Engines, find_engines, make_room
from octavo.runtime.ort.fusing import FORKS, fused
from octavo.runtime.ort.kernels import STOCK, Kernels, kernels_for, whose
from octavo.runtime.ort.pages import huge_pages, let_go
from octavo.runtime.ort.prepacked import prepacked
from octavo.runtime.ort.providers import CPU, CUDA, TENSORRT, check_session
from octavo.runtime.trouble import told

LOWERINGS = {CPU: ("ort",), CUDA: ("ort",), TENSORRT: ("tensorrt",)}


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs: `cpu:1` is the second worker on the processor, `cuda:1` the second GPU."""

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, name: str) -> Device:
        """Raises ConfigError where the name is not a kind and a number."""
        kind, _, index = name.partition(":")
        if kind not in ("cpu", "cuda", "tensorrt") or not (index or "0").isdecimal():
            raise ConfigError(f"device: {name!r} is not cpu, cuda or tensorrt with a number, such as cuda:0")
        return cls(kind, int(index or 0))

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}"

    @property
    def on_host(self) -> bool:
        return self.kind == "cpu"


@dataclass(frozen=True, slots=True)
class Model:
    """An open model: its session, its graph's description, and what of it runs on another provider, in words.

    Where it `captures`, a decode call of so many rows is recorded once as a CUDA graph, and replayed from then on.
    `kernels` says whose products of matrices it uses, and why not octavo's where they might be expected.
    """

    name: str
    session: Any
    graph: GraphEntry
    provider: str
    device: Device
    fallback: str | None = None
    captures: bool = False
    kernels: str = STOCK

    @property
    def kv(self) -> KVLayout:
        assert self.graph.kv is not None
        return self.graph.kv

    @property
    def outputs(self) -> list[str]:
        """What a call gives besides the cache, in the graph's order."""
        return [output.name for output in self.graph.outputs if not output.name.startswith("present.")]

    @property
    def forks(self) -> bool:
        """Whether a call is told which rows hold the same first tokens."""
        return any(entry.name == FORKS for entry in self.session.get_inputs())

    @property
    def most(self) -> int | None:
        """The most rows in one call; only TensorRT's profile says."""
        shapes = self.graph.trt_profiles.get("trt_profile_max_shapes", "") if self.provider == TENSORRT else ""
        found = [int(part.split(":")[1].split("x")[0]) for part in shapes.split(",") if part.startswith("input_ids:")]
        return found[0] if found else None

    @property
    def fixed_length(self) -> bool:
        """Whether the cache's length is part of the graph."""
        return self.graph.lowering == "tensorrt"

    def width(self, output: str) -> int | None:
        """Columns of an output [batch, picks, columns]; None where it is [batch, picks]."""
        shape = next(entry.shape for entry in self.graph.outputs if entry.name == output)
        return int(shape[2]) if len(shape) == 3 else None


def open_model(
    bundle: Path,
    manifest: Manifest,
    name: str,
    weights: Sequence[Weights],
    provider: str,
    device: Device,
    threads: int,
    *,
    allow_fallback: bool = False,
    built: Engines | None = None,
    capture: bool = False,
    prepack: bool = False,
    verify: bool = True,
    kernels: bool | None = None,
) -> Model:
    """Open the graph of a model that is written for the provider; on TensorRT as `built`, or as engines are found.

    With `prepack`, the processor's own form of the weights is kept on disk (see `octavo.runtime.ort.prepacked`), its
    hashes checked if `verify`; otherwise each session makes its own. `kernels` asks for octavo's own (see
    `octavo.runtime.ort.kernels`); None: where they are compiled and fit. Raises BundleError where it has no such graph,
    MachineError where the session cannot be created, where any of its nodes runs elsewhere and no fallback is allowed,
    or where the kernels that were asked for cannot be had.
    """
    graphs = {entry.graph: manifest.graph(entry.graph) for entry in weights}
    fitting = [entry for entry in weights if graphs[entry.graph].lowering in LOWERINGS[provider]]
    if not fitting:
        raise BundleError(f"{bundle}: {name} has no graph for {provider}, only {', '.join(graphs)}")
    graph = graphs[fitting[0].graph]
    if provider == TENSORRT:
        demand_one_profile(bundle, graph)
    if provider == TENSORRT and built is None:
        built = find_engines(manifest, graph, fitting[0], device.index)
    chosen = providers(provider, device, built, capture=capture)
    own = kernels_for(name, graph, provider, kernels, prepack=prepack)
    with told(f"{name}: {provider} cannot open {fitting[0].model}"):
        if prepack and provider == CPU:
            open_ = partial(open_session, bundle, fitting[0], chosen=chosen)
            kept = prepacked(manifest, fitting[0], session_options(threads), open_, verify=verify)
            session = ort.InferenceSession(kept, session_options(threads), providers=chosen)
        else:
            with huge_pages():
                open_ = partial(open_session, bundle, fitting[0], chosen=chosen, engines=built, kv=graph.kv)
                session, own = with_kernels(own, threads, open_, required=bool(kernels))
            if isinstance(own, Kernels):  # their packed form is what is read from now on
                let_go([bundle / path for path in fitting[0].locations.values()])
    check_session(session, provider, name)
    read = (bundle / fitting[0].model).read_bytes
    fallback = check_assignment(name, session, provider, read, allow_fallback=allow_fallback)
    return Model(name, session, graph, provider, device, fallback, capture, whose(own))


def runnable(graph: GraphEntry) -> list[str]:
    """The providers that a graph is written for, less those that lack a kernel for it.

    GroupQueryAttention in ONNX Runtime 1.31's CUDA provider takes fp16 and bf16; in fp32 it would be left to the CPU.
    """
    lacking = graph.route == "native" and graph.kv is not None and graph.kv.dtype == "float32"
    return [provider for provider in graph.providers if not (lacking and provider == CUDA)]


def demand_one_profile(bundle: Path, graph: GraphEntry) -> None:
    """Raise BundleError where a graph for TensorRT has several shape profiles.

    ONNX Runtime's provider would build them all and run the first only, which was that of decoding.
    """
    if graph.trt_profiles.get("trt_profile_min_shapes", "").count("input_ids:") > 1:
        raise BundleError(f"{bundle}: {graph.name} has several shape profiles, and one would be run; export it again")


def session_options(threads: int, own: Kernels | None = None) -> Any:
    """One call at a time per session, `threads` in it, none of them spinning while they wait."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(*RECORD)
    if own:
        options.register_custom_ops_library(str(own.path))
        options.add_session_config_entry("optimization.disable_specified_optimizers", "MatMulAddFusion")
    return options


def with_kernels(
    own: Kernels | str, threads: int, open_: Callable[..., Any], *, required: bool
) -> tuple[Any, Kernels | str]:
    """A session with octavo's kernels, or unless they are `required` without them, and why."""
    if isinstance(own, Kernels):
        try:
            return open_(session_options(threads, own), own=own), own
        except Exception as error:
            if required:
                raise
            own = f"the graph is not for octavo's: {str(error).splitlines()[0]}"
    return open_(session_options(threads)), own


def providers(provider: str, device: Device, engines: Engines | None, *, capture: bool = False) -> list[Any]:
    """The provider with its options; the CPU comes after a GPU only for the shapes' arithmetic.

    `capture` lets CUDA record calls as CUDA graphs.
    """
    if provider == CPU:
        return [CPU]
    own = {"device_id": str(device.index)}
    if provider == CUDA:
        graphs = {"enable_cuda_graph": "1"} if capture else {}
        return [(CUDA, own | {"arena_extend_strategy": "kSameAsRequested"} | graphs), CPU]
    assert engines is not None
    make_room(engines)
    return [(TENSORRT, own | engines.options), (CUDA, own), CPU]


def open_session(
    bundle: Path,
    weights: Weights,
    options: Any,
    chosen: list[Any],
    engines: Engines | None = None,
    kv: KVLayout | None = None,
    own: Kernels | None = None,
) -> Any:
    """Weights beside the graph are found by path; shared ones are mapped and given to ONNX Runtime by name.

    An engine that was built ahead has its weights in itself. With `own` kernels, operators of theirs are in the graph,
    which has a cache as `kv` says.
    """
    if engines and engines.model:
        return ort.InferenceSession(engines.model, options, providers=chosen)
    path = bundle / weights.model
    model = path.read_bytes()
    graph = fused(model, kv) if own else model
    files = {location: bundle / place for location, place in weights.locations.items()}
    if all(place == path.parent / location for location, place in files.items()):
        if graph is model:
            return ort.InferenceSession(path, options, providers=chosen)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    else:
        maps = [mapped(place) for place in files.values()]
        options.add_external_initializers_from_files_in_memory(list(files), maps, [len(data) for data in maps])
    return ort.InferenceSession(graph, options, providers=chosen)


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
