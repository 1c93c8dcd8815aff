"""What of a bundle runs where on this machine: each graph opened once, its nodes counted by provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octavo.profiles.manifest import Manifest, Weights
from octavo.runtime.ort.assignment import assigned
from octavo.runtime.ort.providers import SHORT, Choice, choose_provider
from octavo.runtime.ort.session import LOWERINGS, Device, open_model, runnable


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A graph: how many of its nodes each provider runs, what runs elsewhere than it was asked to, whose kernels."""

    graph: str
    provider: str
    nodes: dict[str, int]
    fallback: str | None
    kernels: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def survey(
    bundle: Path, manifest: Manifest, provider: str | None = None, *, allow_fallback: bool = False
) -> list[Surveyed]:
    """Open one model of every graph that the provider can run; None: the best that works.

    Raises ConfigError, BundleError, or MachineError where nodes would run elsewhere and no fallback is allowed.
    """
    able = (graph.providers if provider else runnable(graph) for graph in manifest.graphs)
    every = sorted({each for providers in able for each in providers})
    choice = choose_provider(every, provider, allow_fallback=allow_fallback)
    return list(_opened(bundle, manifest, choice, allow_fallback))


def _opened(bundle: Path, manifest: Manifest, choice: Choice, allow_fallback: bool) -> Iterator[Surveyed]:
    device = Device(next(short for short, full in SHORT.items() if full == choice.provider))
    for name, entry in first_models(manifest).items():
        if manifest.graph(name).lowering in LOWERINGS[choice.provider]:
            model = open_model(
                bundle, manifest, name, [entry], choice.provider, device, 1, allow_fallback=allow_fallback
            )
            nodes = Counter(node.provider for node in assigned(model.session))
            notes = "; ".join(note for note in (choice.fallback, model.fallback) if note)
            yield Surveyed(name, choice.provider, dict(nodes), notes or None, model.kernels)


def first_models(manifest: Manifest) -> dict[str, Weights]:
    """A model of each graph."""
    value = manifest.value.weights if manifest.value else []
    every = [*(entry for expert in manifest.experts for entry in expert.weights), *value]
    found = {entry.graph: entry for entry in reversed(every)}
    return {graph.name: found[graph.name] for graph in manifest.graphs}
