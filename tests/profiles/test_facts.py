"""The facts that come with octavo: all load, every number has a source, shapes give the known parameter counts."""

from __future__ import annotations

import json
from datetime import date
from importlib.resources import files

import pytest

from octavo.profiles import (
    check_profiles,
    list_profiles,
    load_hardware,
    load_model,
    load_scenario,
    load_workload,
    show_profile,
)
from octavo.profiles.catalog import LOADERS
from octavo.profiles.fact import Fact
from octavo.profiles.find import KINDS
from octavo.profiles.workload import Empirical, Lognormal

EVERY = [(kind, row["name"]) for kind in KINDS for row in list_profiles(kind)]
FACTS = [(kind, name) for kind, name in EVERY if kind != "scenarios"]
HARDWARE = [name for kind, name in EVERY if kind == "hardware"]
MODELS = [name for kind, name in EVERY if kind == "models"]

KNOWN_BILLIONS = {
    "llama-3.1-8b": 8.03,
    "llama-3.1-70b": 70.55,
    "llama-3.1-405b": 405.85,
    "llama-2-7b": 6.74,
    "qwen2.5-0.5b": 0.494,
    "qwen3-30b-a3b": 30.53,
    "mixtral-8x7b": 46.7,
    "gemma-2-9b": 9.24,
    "phi-3-mini": 3.82,
    "gpt-oss-120b": 116.83,
    "deepseek-v3": 671.03,
    "gpt4-rumour-220b": 220,
    "gpt4-rumour-moe": 1800,
    "dense-1760b": 1760,
}
KNOWN_ACTIVE_BILLIONS = {"mixtral-8x7b": 12.9, "deepseek-v3": 37.5, "qwen3-30b-a3b": 3.3, "gpt4-rumour-moe": 280}


def test_every_profile_loads_and_every_number_has_a_source() -> None:
    assert check_profiles() == []


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_profile_says_what_it_is(kind: str, name: str) -> None:
    profile = LOADERS[kind](name)
    assert profile.name == name  # type: ignore[attr-defined]
    assert profile.description  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "name"), FACTS)
def test_sources_are_dated_in_the_past_and_point_at_fields_that_exist(kind: str, name: str) -> None:
    fact = LOADERS[kind](name)
    assert isinstance(fact, Fact)
    shown = fact.model_dump(mode="json", by_alias=True)
    for source in fact.sources:
        assert source.date <= date.today().isoformat()
        for field in source.of:
            at = shown
            for key in field.split("."):
                assert key in at, f"{name}: no field {field}"
                at = at[key]


@pytest.mark.parametrize("name", HARDWARE)
def test_narrower_arithmetic_is_not_slower_and_efficiencies_leave_the_peak_alone(name: str) -> None:
    device = load_hardware(name)
    rates = [device.flops[p] for p in ("fp32", "tf32", "bf16", "fp8", "fp4") if p in device.flops]
    assert rates == sorted(rates)
    assert 0 < device.flops_efficiency <= 1
    assert 0 < device.bandwidth_efficiency <= 1
    assert 0 < device.idle_watts < device.peak_watts


@pytest.mark.parametrize("name", HARDWARE)
def test_every_device_can_be_priced_somehow(name: str) -> None:
    device = load_hardware(name)
    prices = [device.usd_per_hour(basis) for basis in ("owned", "on_demand", "reserved", "spot")]
    assert any(price and price > 0 for price in prices)
    spot, demand = device.usd_per_hour("spot"), device.usd_per_hour("on_demand")
    assert spot is None or demand is None or spot < demand


@pytest.mark.parametrize(("name", "billions"), KNOWN_BILLIONS.items())
def test_a_shape_has_the_parameters_that_its_makers_say(name: str, billions: float) -> None:
    assert load_model(name).parameters / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(("name", "billions"), KNOWN_ACTIVE_BILLIONS.items())
def test_a_sparse_model_uses_the_active_part(name: str, billions: float) -> None:
    assert load_model(name).active_parameters / 1e9 == pytest.approx(billions, rel=0.03)


def test_rumours_are_called_rumours() -> None:
    for name in MODELS:
        model = load_model(name)
        assert model.rumour == ("rumour" in name)
        if model.rumour:
            assert "RUMOUR" in model.description
            assert all(source.estimate for source in model.sources)
    assert load_scenario("gpt4-rumour").description.startswith("RUMOUR")


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("azure-conversation", 1154.7, 211.1),
        ("azure-code", 2047.8, 27.9),
        ("mooncake-conversation", 12035.1, 342.6),
    ],
)
def test_a_fitted_workload_keeps_the_means_of_its_trace(name: str, prompt: float, answer: float) -> None:
    workload = load_workload(name)
    assert isinstance(workload.prompt_tokens, Empirical)
    assert isinstance(workload.answer_tokens, Empirical)
    assert workload.prompt_tokens.mean == pytest.approx(prompt, rel=0.02)
    assert workload.answer_tokens.mean == pytest.approx(answer, rel=0.03)


def test_the_assumed_workloads_are_marked_as_estimates() -> None:
    for name in ("chat", "code", "rag", "agentic", "batch"):
        workload = load_workload(name)
        assert isinstance(workload.prompt_tokens, Lognormal)
        assert "prompt_tokens.mean" in workload.estimates()


def test_the_seed_is_sixteen_inferences_of_eight_experts() -> None:
    rumour = load_scenario("gpt4-rumour")
    assert len(rumour.ensemble.experts) == 8
    assert rumour.ensemble.inferences_per_query == 16
    assert rumour.devices() == {("cloud", "h100-sxm"): 68}


def test_each_scenario_teaches_in_comments() -> None:
    folder = files("octavo.profiles") / "data" / "scenarios"
    for path in folder.iterdir():
        assert path.read_text(encoding="utf-8").startswith("# "), path.name


def test_shown_profiles_are_plain_data() -> None:
    assert json.loads(json.dumps(show_profile("hardware", "h100-sxm")))["bandwidth"] == 3.35e12
