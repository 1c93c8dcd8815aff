"""Latency models: leaps equal steps, tables give back what was measured, more work never takes less time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.profiles import load_hardware, load_model, load_scenario
from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.latency import Coefficients, LatencyModel, Physics, Table, roofline
from octavo.simulator.latency.choose import other_cache
from octavo.simulator.latency.fit import closed_loop_tpot, fit_coefficients
from octavo.simulator.latency.model import leap_seconds, leap_steps
from octavo.simulator.latency.physics import BEND
from octavo.simulator.run import simulate


def chunk(tokens: int, start: int = 0, whole: int | None = None) -> Chunk:
    return Chunk(Prompt(0, whole or start + tokens, ()), start, tokens)


def machine_steps() -> list[StepTime]:
    """A made-up machine: 2 ms, 0.1 ms a row, 1 us a KV token; prefill 1 ms and 20 us a token."""
    decodes = [
        StepTime(decodes=n, context=n * c, prefill_tokens=0, prefill_rows=0, seconds=2e-3 + 1e-4 * n + 1e-6 * n * c)
        for n in (1, 2, 4, 8, 16)
        for c in (16, 128, 512)
    ]
    prefills = [
        StepTime(decodes=0, context=0, prefill_tokens=t, prefill_rows=1, seconds=1e-3 + 2e-5 * t)
        for t in (16, 64, 256, 512)
    ]
    return decodes + prefills


def profile(kind: str = "decoder") -> LatencyProfile:
    return LatencyProfile(
        name="machine",
        model="experts",
        kind=kind,
        hardware="made-up",
        provider="none",
        precision="fp32",
        threads=1,
        measured_on="2025-01-01",
        machine={},
        steps=machine_steps(),
    )


def models() -> list[LatencyModel]:
    h100, llama = load_hardware("h100-sxm"), load_model("llama-3.1-8b")
    windowed = load_model("gemma-3-27b")
    return [
        roofline(h100, llama),
        roofline(h100, llama, tensor_parallel=4),
        roofline(h100, windowed),
        roofline(load_hardware("rtx-pro-6000-server"), llama),
        roofline(load_hardware("h200"), load_model("mixtral-8x7b")),
        Table(profile()),
        Physics("made-up", Coefficients(), 0.1, BEND, h100, llama),
        Physics("made-up", Coefficients(), 0.1, BEND, h100, windowed, tensor_parallel=2),
    ]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.label)
@given(st.integers(1, 64), st.integers(1, 4000), st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_a_leap_takes_as_long_as_its_steps(model: LatencyModel, rows: int, context: int, repeats: int) -> None:
    context = max(context, rows)
    steps = sum(leap_seconds(model, rows, context + i * rows, 1) for i in range(repeats))
    assert leap_seconds(model, rows, context, repeats) == pytest.approx(steps, rel=1e-9)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.label)
@given(st.integers(1, 64), st.integers(1, 4000), st.integers(1, 700), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_leap_is_cut_at_the_first_step_that_ends_after_the_moment(
    model: LatencyModel, rows: int, context: int, repeats: int, share: float
) -> None:
    whole = leap_seconds(model, rows, context, repeats)
    steps, seconds = leap_steps(model, rows, context, repeats, share * whole)
    assert 1 <= steps <= repeats
    assert seconds == pytest.approx(leap_seconds(model, rows, context, steps), rel=1e-12)
    assert seconds >= share * whole * (1 - 1e-12)
    if steps > 1:
        assert leap_seconds(model, rows, context, steps - 1) < share * whole * (1 + 1e-12)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.label)
def test_a_larger_step_is_no_shorter(model: LatencyModel) -> None:
    for rows in (1, 3, 8, 40):
        seconds = [model.decode(rows, rows * context).seconds for context in (1, 10, 100, 1000, 5000)]
        assert all(0 < a <= b for a, b in pairwise(seconds))
    prefills = [model.mixed(4, 400, [chunk(tokens)]) for tokens in (1, 16, 100, 300, 600, 2000)]
    assert all(a <= b for a, b in pairwise(prefills))
    assert all(a <= b for a, b in pairwise(model.mixed(rows, 100 * rows, [chunk(64)]) for rows in (1, 2, 5, 9, 30)))


def test_a_table_gives_back_what_was_measured() -> None:
    table = Table(profile())
    for step in machine_steps():
        if step.decodes:
            found = table.decode(step.decodes, step.context).seconds
        else:
            found = table.mixed(0, 0, [chunk(step.prefill_tokens)])
        assert found == pytest.approx(step.seconds, rel=1e-3)


def test_a_table_is_linear_between_and_beyond_its_points() -> None:
    table = Table(profile())
    assert table.decode(6, 600).seconds == pytest.approx(2e-3 + 6e-4 + 6e-4, rel=1e-2)
    assert table.decode(8, 8000).seconds == pytest.approx(2e-3 + 8e-4 + 8e-3, rel=1e-2)


def test_a_fit_finds_the_coefficients_that_made_the_times() -> None:
    truth = Coefficients(3e-4, 4e-5, 4e-6, 1.2, 1.5, 1.9, 2.5, 2e-5, 1.1)
    points = [
        (load_hardware(hardware), load_model(model), shards, batch, prompt)
        for hardware in ("h100-sxm", "l40s")
        for model in ("llama-3.1-8b", "llama-3.1-70b")
        for shards in (1, 8)
        for batch in (1, 16, 128)
        for prompt in (100, 2000)
    ]

    def predict(c: Coefficients, point: tuple[Any, ...]) -> float:
        hardware, model, shards, batch, prompt = point
        physics = Physics("", c, 0.1, BEND, hardware, model, tensor_parallel=shards)
        return closed_loop_tpot(physics, batch, prompt, 400)

    measured = [predict(truth, point) for point in points]
    found = fit_coefficients([partial(predict, point=point) for point in points], measured).shared
    assert [predict(found, point) for point in points] == pytest.approx(measured, rel=0.05)


def test_tensor_parallel_devices_are_faster_but_not_by_their_number() -> None:
    one, four = (roofline(load_hardware("h100-sxm"), load_model("llama-3.1-70b"), tensor_parallel=n) for n in (1, 4))
    ratio = one.decode(8, 8000).seconds / four.decode(8, 8000).seconds
    assert 1.5 < ratio < 4


def test_a_row_beside_a_prefill_costs_a_tile_of_attention() -> None:
    """FlashAttention-2 computes 64 tokens for every row of a mixed step; rows among rows share their heads' reads."""
    device, model = load_hardware("rtx-4090"), load_model("llama-3.1-8b")
    assert device.mixed_tile == 64
    tiled, packed = (roofline(device.model_copy(update={"mixed_tile": tile}), model) for tile in (64, 1))
    assert tiled.decode(64, 64_000).seconds == packed.decode(64, 64_000).seconds
    more = tiled.mixed(64, 64_000, [chunk(500)]) - packed.mixed(64, 64_000, [chunk(500)])
    assert more == pytest.approx(64_000 * model.layers * (64 * tiled.pair - tiled.read))


def test_a_table_that_was_measured_over_another_kind_of_cache_is_told(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(profile().model_copy(update={"kv_precision": "int8"}).model_dump_json())
    asked = [f"latency=table:{path}", "workload.queries=20"]
    other, same = (load_scenario("single-box", [*asked, f"engine.kv_precision={kv}"]) for kv in ("bf16", "int8"))
    said = other_cache(other)
    assert said is not None
    assert said.endswith("measured with KV in int8, memory is counted with KV in bf16 (engine.kv_precision)")
    assert said in simulate(other).notes
    assert other_cache(same) is None
