"""Laws of drawing: the right distribution, the same filters as a plain reference, and a stream per inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo.profiles.errors import ConfigError
from octavo.runtime.ort.sampling import SETTINGS, Sampler, logsumexp, penalise, search, settings_of, uniforms
from octavo.runtime.sampling import Sampling, stream_key


def rows_of(samplings: list[Sampling], columns: int, seed: int = 0) -> Any:
    return np.array(
        [settings_of(each, stream_key(seed, row, "m", 0), 0, columns) for row, each in enumerate(samplings)], SETTINGS
    )


def draw_many(logits: Any, sampling: Sampling, draws: int) -> Any:
    """Relative frequency of each column over many rows of the same logits."""
    rows = rows_of([sampling] * draws, len(logits))
    sampler = Sampler(len(logits))
    sampler.prepare(rows)
    drawn, _ = sampler.draw(np.tile(logits, (draws, 1)), rows)
    return np.bincount(drawn, minlength=len(logits)) / draws


def reference(logits: Any, sampling: Sampling) -> Any:
    """Temperature, top-k, top-p, min-p, one after another, on sorted probabilities."""
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    weights = np.exp(scaled[order] - scaled.max())
    weights[sampling.top_k or len(weights) :] = 0
    before = np.concatenate([[0], np.cumsum(weights)[:-1]]) / weights.sum()
    weights[before >= sampling.top_p] = 0
    weights[weights < sampling.min_p * weights[0]] = 0
    chances = np.zeros(len(logits))
    chances[order] = weights / weights.sum()
    return chances


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_k=5),
        Sampling(top_p=0.6),
        Sampling(min_p=0.2),
        Sampling(temperature=1.7, top_k=12, top_p=0.8, min_p=0.05),
    ],
    ids=str,
)
@pytest.mark.parametrize("columns", [40, 1000])
def test_columns_are_drawn_as_often_as_their_chances_say(sampling: Sampling, columns: int) -> None:
    logits = np.random.default_rng(1).normal(0, 1.5, columns).astype(np.float32)
    draws = 20_000
    seen, expected = draw_many(logits, sampling, draws), reference(logits, sampling)
    assert not seen[expected == 0].any()
    deviation = np.abs(seen - expected) / np.sqrt(np.maximum(expected, 1e-9) * (1 - expected) / draws + 1e-12)
    assert deviation[expected > 5e-4].max() < 5


@pytest.mark.parametrize("seed", range(25))
def test_what_may_be_drawn_is_what_transformers_processors_leave(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random settings on random logits, each row its own; equal logits apart, of which ours keeps all or none."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(seed)
    columns = int(rng.choice([8, 300, 1000]))
    kinds = [
        Sampling(
            temperature=float(rng.choice([1.0, 0.7, 3.0])),
            top_k=rng.choice([None, 1, 5, 10**6]),
            top_p=float(rng.choice([1.0, 0.9, 0.2])),
            min_p=float(rng.choice([0.0, 0.05, 0.5])),
            repetition_penalty=float(rng.choice([1.0, 1.3, 0.8])),
        )
        for _ in range(3)
    ]
    logits = rng.normal(0, 2, (3, columns)).astype(np.float32)
    prompt, written = rng.integers(0, columns, (3, 5)), rng.integers(0, columns, (3, 4))
    rows, sampler, weights = rows_of(kinds, columns), Sampler(columns), []
    sampler.prepare(rows)
    monkeypatch.setattr(
        "octavo.runtime.ort.sampling.search", lambda w, points: (weights.append(w), search(w, points))[1]
    )
    shaped = [penalise(each, kinds[row], prompt[row], written[row]) for row, each in enumerate(logits)]
    sampler.draw(np.stack(shaped), rows)
    for row, kind in enumerate(kinds):
        steps = [
            processors.RepetitionPenaltyLogitsProcessor(kind.repetition_penalty),
            processors.TemperatureLogitsWarper(kind.temperature),
            processors.TopKLogitsWarper(kind.top_k or columns),
            processors.TopPLogitsWarper(kind.top_p),
            processors.MinPLogitsWarper(kind.min_p),
        ]
        ids = torch.tensor(np.concatenate([prompt[row], written[row]]))[None]
        expected = processors.LogitsProcessorList(steps)(ids, torch.tensor(logits[row : row + 1])).softmax(-1)[0]
        drawn = weights[0][row] / weights[0][row].sum()
        assert drawn == pytest.approx(expected.numpy(), abs=1e-5)


def test_rows_keep_their_own_settings_and_streams() -> None:
    logits = np.random.default_rng(2).normal(size=(4, 50)).astype(np.float32)
    kinds = [Sampling(temperature=0), Sampling(), Sampling(top_k=1), Sampling(temperature=0.7, top_p=0.5)]
    rows, sampler = rows_of(kinds, 50), Sampler(50)
    sampler.prepare(rows)
    together, total = sampler.draw(logits, rows)
    assert together[0] == logits[0].argmax()
    assert together[2] == logits[2].argmax()
    assert total == pytest.approx(np.log(np.exp(logits.astype(np.float64)).sum(axis=1)), abs=1e-5)
    for row, kind in enumerate(kinds):
        alone = np.array([settings_of(kind, stream_key(0, row, "m", 0), 0, 50)], SETTINGS)
        sampler.prepare(alone)
        assert sampler.draw(logits[row : row + 1], alone)[0] == together[row]
        assert alone["drawn"] == rows["drawn"][row] == 1


def test_random_numbers_are_uniform_and_independent_of_their_neighbours() -> None:
    keys = np.array([stream_key(3, number, "m", 1) for number in range(200)], np.uint64)
    table = np.stack([uniforms(keys, np.full(200, draw, np.uint64)) for draw in range(100)])
    assert ((table >= 0) & (table < 1)).all()
    assert len(np.unique(table)) == table.size
    assert table.mean() == pytest.approx(0.5, abs=0.01)
    assert np.bincount((table.ravel() * 10).astype(int), minlength=10) == pytest.approx(2000, rel=0.12)
    assert abs(np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]) < 0.03


def test_a_column_without_weight_is_never_found() -> None:
    weights = np.zeros((3, 700), np.float32)
    weights[0, 699], weights[1, 0], weights[2, [255, 256]] = 1, 1, 1
    for point in (0.0, 0.3, 0.999999999):
        found = search(weights, np.full(3, point))
        assert (weights[np.arange(3), found] > 0).all()


def test_the_lowest_temperature_is_the_largest_logit() -> None:
    logits = np.random.default_rng(3).normal(size=(1, 600)).astype(np.float32)
    rows, sampler = rows_of([Sampling(temperature=1e-39)], 600), Sampler(600)
    sampler.prepare(rows)
    with np.errstate(over="ignore", under="ignore"):
        assert sampler.draw(logits, rows)[0] == logits.argmax()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_not_finite_show_in_the_logsumexp(wrong: float) -> None:
    logits = np.zeros((2, 10), np.float32)
    logits[1, 3] = wrong
    rows, sampler = rows_of([Sampling()] * 2, 10), Sampler(10)
    sampler.prepare(rows)
    with np.errstate(all="ignore"):
        _, total = sampler.draw(logits, rows)
        assert np.isfinite(logsumexp(logits)).tolist() == [True, False]
    assert np.isfinite(total).tolist() == [True, False]


def test_penalties_are_those_of_hugging_face_and_openai() -> None:
    logits = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    prompt, written = np.array([0, 1]), np.array([2, 2])
    assert penalise(logits, Sampling(repetition_penalty=2.0), prompt, written).tolist() == [1.0, -4.0, 0.5, 0.5]
    assert penalise(logits, Sampling(presence_penalty=1.0), prompt, written).tolist() == [2.0, -2.0, 0.0, 0.5]
    largest = np.array([7, 2, 9, 0])
    assert penalise(logits, Sampling(presence_penalty=1.0), prompt, written, largest).tolist() == [2.0, -3.0, 1.0, 0.5]


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_k": 0}, {"min_p": 1}])
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)
