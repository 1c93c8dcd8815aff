"""Where ONNX Runtime really runs each node of a session, compared with where it was asked to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.profiles.errors import MachineError
from octavo.runtime.ort.nodes import shape_nodes

RECORD = ("session.record_ep_graph_assignment_info", "1")  # without it ONNX Runtime forgets
CUDA = "CUDAExecutionProvider"
NAMED = 5  # nodes in a message


@dataclass(frozen=True, slots=True)
class Assigned:
    """A node, and the execution provider that runs it."""

    name: str
    op_type: str
    provider: str

    def __str__(self) -> str:
        return f"{self.name} ({self.op_type}) on {self.provider}"


def assigned(session: Any) -> list[Assigned]:
    """Every node of a session that was opened with RECORD, as ONNX Runtime divided the graph among providers."""
    return [
        Assigned(node.name, node.op_type, part.ep_name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def strays(nodes: Sequence[Assigned], provider: str, model: Callable[[], bytes]) -> list[Assigned]:
    """The nodes that another provider runs.

    CUDA leaves the arithmetic of shapes to the CPU on purpose (`GetCpuPreferredNodes` in ONNX Runtime): it is not a
    stray. `model` reads the graph, to tell.
    """
    found = [node for node in nodes if node.provider != provider]
    if found and provider == CUDA:
        shapes = shape_nodes(model())
        found = [node for node in found if node.name not in shapes]
    return found


def check_assignment(
    name: str, session: Any, provider: str, model: Callable[[], bytes], *, allow_fallback: bool = False
) -> str | None:
    """What of a model runs elsewhere, in words; None when nothing does. Raises MachineError unless that is allowed."""
    nodes = assigned(session)
    found = strays(nodes, provider, model)
    if not found:
        return None
    said = f"{name}: {len(found)} of {len(nodes)} nodes do not run on {provider}: {describe(found)}"
    if allow_fallback:
        return said
    advice = "export it in fp16 or bf16" if provider == CUDA and needs_half(found) else "export it for another target"
    raise MachineError(f"{said}; {advice}, or allow a fallback")


def needs_half(nodes: Sequence[Assigned]) -> bool:
    """Whether attention is among them: on CUDA it has no kernel for fp32."""
    return any(node.op_type == "GroupQueryAttention" for node in nodes)


def describe(nodes: Sequence[Assigned]) -> str:
    """The first few nodes by name, the rest counted by what they are."""
    rest = Counter(node.op_type for node in nodes[NAMED:])
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(rest.items()))
    return ", ".join(map(str, nodes[:NAMED])) + (f", and {counted}" if rest else "")
