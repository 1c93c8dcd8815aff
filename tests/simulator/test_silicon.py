"""Step times carry over: to a model that was not in the fit, and to a device that was not; measured operators alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import edge
import operators
import points
import public
import served
import silicon
import unseen

from octavo.profiles import load_hardware, load_model, load_scenario
from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator import simulate
from octavo.simulator.fleet import limits_of
from octavo.simulator.latency import Band, Physics
from octavo.simulator.latency.choose import fitted
from octavo.simulator.latency.operators import Operators
from octavo.simulator.latency.physics import BEND
from octavo.simulator.latency.roofline import OTHER, SERVER, WORKSTATION
from octavo.simulator.latency.roofline import band as band_of
from octavo.simulator.latency.silicon import Silicon

needs_points = pytest.mark.skipif(
    not points.DATA.exists(), reason=f"{points.DATA} is not here: published operating points of real servers"
)


@pytest.fixture
def tables() -> None:
    pytest.importorskip("aiconfigurator_core", reason="measured operators: pip install 'octavo[silicon]'")


@needs_points
@pytest.mark.parametrize("kind", ["model", "hardware"])
def test_what_was_left_out_is_predicted(kind: str) -> None:
    found = points.left_out(points.points(), silicon.fit, silicon.predict, [kind])
    for name, errors in found.items():
        assert errors.mape < 0.15, (name, errors)


@needs_points
@pytest.mark.usefixtures("tables")
def test_measured_operators_give_the_times_of_servers() -> None:
    lines, unseen, _ = operators.table(points.points())
    assert lines["operators and hosts"].mape < 0.1
    for name, errors in unseen.items():
        assert errors.mape < 0.15, (name, errors)


@needs_points
@pytest.mark.usefixtures("tables")
def test_a_model_that_no_fit_has_seen_is_predicted() -> None:
    """Qwen3-32B on H100: in sixteen bits under vLLM and SGLang, in fp8 with scales of blocks under TensorRT-LLM."""
    every = unseen.by_kind(unseen.unseen())
    for framework, precision in (("vllm", "bf16"), ("trtllm", "fp8"), ("sglang", "bf16")):
        some = every["qwen3-32b", "h100-sxm", framework, precision][::3]
        assert points.Errors.of(unseen.silicon(some), some).mape < 0.1
        assert points.Errors.of([unseen.fit(point) for point in some], some).mape < 0.15


@needs_points
def test_nine_in_ten_points_lie_in_the_band() -> None:
    """Roofline's on all, the fit's on those that it has not seen."""
    every = points.points()
    ratios = points.Errors.of([silicon.bare(point) for point in every], every).ratios
    assert inside(ratios, SERVER) > 0.85
    if find_spec("aiconfigurator_core"):
        some = [point for point in unseen.unseen() if point.servers == 1]
        assert inside(points.Errors.of([unseen.fit(point) for point in some], some).ratios, fitted("servers")[1]) > 0.85


def inside(ratios: Sequence[float], band: Band) -> float:
    """The share of ratios of measured to predicted times that a band allows."""
    return sum(1 - band.shorter <= ratio <= 1 + band.longer for ratio in ratios) / len(ratios)


def test_what_others_published_lies_in_the_band() -> None:
    """Sparse experts do not, as docs/benchmarks/simulator.md says."""
    for series in public.SERIES:
        if series.model != "qwen3-30b-a3b":
            band = band_of(load_hardware(series.device))
            assert inside([1 / (1 + error) for error in public.errors(series, public.by_roofline)], band) == 1, series


@pytest.mark.skipif(not edge.DATA.exists(), reason=f"{edge.DATA} is not here: results of MLPerf Inference v5.1")
@pytest.mark.parametrize(("word", "band"), [("Jetson", OTHER), ("Arc", WORKSTATION)])
def test_edge_devices_of_mlperf_lie_in_the_band(word: str, band: Band) -> None:
    accelerator, seconds = next(pair for pair in edge.measured().items() if word in pair[0])
    assert inside([seconds / edge.simulated(accelerator)], band) == 1


@pytest.mark.parametrize("in_step", [True, False])
@pytest.mark.parametrize(("clients", "prompt", "answer"), [(8, 1000, 200), (24, 3000, 100), (100, 500, 150)])
def test_prompts_that_go_first_take_what_the_closed_form_says(
    clients: int, prompt: int, answer: int, in_step: bool
) -> None:
    """As simulated: clients that begin together with equal lengths stay in step, those of other lengths do not."""
    point = points.Point(
        *(load_hardware("h100-sxm"), load_model("llama-3.1-8b"), "sglang", "bf16", "bf16", 1),
        *(clients, prompt, answer, 1.0),
        cached=False,
        in_step=in_step,
    )
    latency = Physics("", *fitted("servers:sglang"), BEND, point.hardware, point.model)
    found = served.served(point, latency, prefill_first=True, spread=0.0 if in_step else served.SPREAD)
    assert point.of(latency) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (["latency='fit:servers:sglang'"], True),
        (["latency='fit:servers'"], False),
        (["latency='fit:servers:sglang'", "engine.schedule=mixed"], False),
        (["engine.schedule=prefill_first"], True),
    ],
)
def test_step_times_of_sglang_come_with_its_schedule(said: list[str], first: bool) -> None:
    scenario = load_scenario("one-server", [*said, "workload.queries=5"])
    assert limits_of(scenario, 100).prefill_first == first
    told = [note for note in simulate(scenario, seeds=[0]).notes if "as fit:servers:sglang does" in note]
    assert len(told) == (said == ["latency='fit:servers:sglang'"])


def test_the_fit_that_is_shipped_can_be_asked_for() -> None:
    result = simulate(load_scenario("single-box", ["latency='fit:servers'", "workload.queries=30"]), seeds=[0])
    shipped = json.loads(silicon.OUT.read_text())
    assert result.latency_model.startswith("fit servers")
    assert [*result.band] == shipped["band"]
    assert shipped["error"] < 0.1


@pytest.mark.usefixtures("tables")
def test_measured_operators_can_be_asked_for() -> None:
    calm = ["workload.queries=30"]
    known = simulate(load_scenario("single-box", ["latency=silicon:trtllm", *calm]), seeds=[0])
    assert known.latency_model.startswith("silicon of llama-3.1-8b bf16 on h100-sxm with trtllm")
    assert [*known.band] == json.loads(operators.OUT.read_text())["band"]
    assert known["latency_p50"] == pytest.approx(
        simulate(load_scenario("single-box", calm), seeds=[0])["latency_p50"], rel=0.3
    )


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("hardware", "model", "shards"),
    [
        ("h100-sxm", "llama-3.1-8b", 1),
        ("a100-80", "llama-2-70b", 4),
        ("b200", "gemma-3-27b", 2),
        ("h200", "mixtral-8x7b", 1),
    ],
)
def test_a_larger_step_of_measured_operators_is_no_shorter(hardware: str, model: str, shards: int) -> None:
    silicon = Silicon(hardware, "vllm", load_model(model), tensor_parallel=shards)
    for rows in (1, 3, 40, 300):
        seconds = [silicon.decode(rows, rows * context).seconds for context in (1, 10, 100, 1000, 5000, 50_000)]
        assert all(0 < a <= b for a, b in pairwise(seconds))
    prefills = [
        silicon.mixed(4, 400, [Chunk(Prompt(0, tokens, ()), 0, tokens)]) for tokens in (1, 16, 100, 600, 2000, 30_000)
    ]
    assert all(a <= b for a, b in pairwise(prefills))


@pytest.mark.usefixtures("tables")
def test_an_operator_is_as_it_was_measured() -> None:
    """4096 x 4096 in bfloat16 on an H100, a size that is in the tables: between its bound and twice that."""
    product = Operators("h100_sxm", "vllm").product("bf16", 4096, 4096)
    bound = 2 * 8192 * 4096 * 4096 / 989e12
    assert bound < product.line(8192).seconds < 2 * bound


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("hardware", "model", "said"),
    [("rtx-4090", "llama-3.1-8b", "rtx-4090"), ("h100-sxm", "deepseek-v3", "latent"), ("a100-80", "phi-3-mini", "96")],
)
def test_what_was_not_measured_is_refused(hardware: str, model: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Silicon(hardware, "vllm", load_model(model))


def test_without_the_tables_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.simulator.latency.operators.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"octavo\[silicon\]"):
        Silicon("h100-sxm", "vllm", load_model("llama-3.1-8b"))
