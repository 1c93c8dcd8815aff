"""A value head over the experts' own hidden states: one weight per element, fitted by logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from octavo.exporters.checkpoint import Array
from octavo.exporters.player import Player
from octavo.exporters.train.judged import Judged, Parts, verdicts
from octavo.exporters.train.progress import Progress, Watch
from octavo.exporters.value import HEAD_NAME
from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import ExpertEntry, GraphEntry, Manifest

ROWS = 32  # candidates that are read together
PRIOR = 1e-3  # on each weight of standardised states, per candidate


def fit_states(bundle: Path, manifest: Manifest, parts: Parts, folder: Path, watch: Watch) -> tuple[Array, Array]:
    """Write the head to `folder`; returns its logits of the calibration and of the test candidates.

    The state is that of the token before the last: there the last token was drawn, so a value costs no forward pass.
    Raises ConfigError where the bundle's graphs do not give their hidden state.
    """
    everyone = [*parts.train, *parts.calibration, *parts.test]
    states = read_states(bundle, manifest, everyone, watch)
    known, held, _ = np.split(states, np.cumsum([len(parts.train), len(parts.calibration)]))
    weight = logistic(known, verdicts(parts.train))
    save_file({"weight": weight[None].astype(np.float32)}, folder / HEAD_NAME)
    return held @ weight, states[-len(parts.test) :] @ weight


def read_states(bundle: Path, manifest: Manifest, candidates: Sequence[Judged], watch: Watch) -> Array:
    """The states [candidates, hidden_size] in float64, expert by expert, of rows that are about equally long."""
    states: dict[int, Array] = {}
    for expert in manifest.experts:
        order = [index for index, each in enumerate(candidates) if each.expert == expert.name]
        order.sort(key=lambda index: len(candidates[index]))
        reader = Reader(bundle, manifest, expert, max((len(candidates[index]) for index in order), default=1))
        for start in range(0, len(order), ROWS):
            some = order[start : start + ROWS]
            states |= zip(some, reader([candidates[index] for index in some]), strict=True)
            watch(Progress("hidden states", len(states) / len(candidates)))
    return np.stack([states[index] for index in range(len(candidates))])


class Reader:
    """One expert, reading candidates of at most `length` tokens with their prompts."""

    def __init__(self, bundle: Path, manifest: Manifest, expert: ExpertEntry, length: int) -> None:
        graphs = {weights.graph: manifest.graph(weights.graph) for weights in expert.weights}
        giving = [weights for weights in expert.weights if _gives_states(graphs[weights.graph])]
        if not giving:
            raise ConfigError(f"{bundle}: {expert.name}'s graph does not give its hidden state; export with --hidden")
        graph = graphs[giving[0].graph]
        adapter = graph.adapters.index(expert.adapter) if expert.adapter else 0
        self._player = Player(bundle, giving[0], graph, ROWS, length, adapter=adapter)

    def __call__(self, candidates: Sequence[Judged]) -> Array:
        """The state at the token before the last of each candidate, [candidates, hidden_size]."""
        lengths = np.array([len(each) - 1 for each in candidates])
        ids = np.zeros((len(candidates), lengths.max()), np.int64)
        for row, each in zip(ids, candidates, strict=True):
            row[: len(each) - 1] = each.row[:-1]
        rows, picks = slice(0, len(ids)), lengths[:, None] - 1
        self._player.run(rows, ids, np.zeros(len(ids)), lengths, ids.shape[1], picks)
        return np.asarray(self._player.others["hidden"][:, 0].astype(np.float64))


def _gives_states(graph: GraphEntry) -> bool:
    return graph.lowering == "ort" and any(output.name == "hidden" for output in graph.outputs)


def logistic(states: Array, right: Array) -> Array:
    """Weights [hidden_size] for which sigmoid(states @ weights + some shift) is most likely, with a weak prior."""
    mean, spread = states.mean(0), states.std(0) + 1e-6
    inputs = np.concatenate([(states - mean) / spread, np.ones((len(states), 1))], 1)
    signs = 2 * right - 1

    def loss(line: Array) -> tuple[float, Array]:
        margins = signs * (inputs @ line)
        pull = PRIOR * line[:-1]
        slope = -(signs * expit(-margins)) @ inputs / len(signs)
        slope[:-1] += pull
        return float(-log_expit(margins).mean() + pull @ line[:-1] / 2), slope

    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return np.asarray(found.x[:-1] / spread)
