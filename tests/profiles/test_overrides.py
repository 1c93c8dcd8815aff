"""`a.b=c` sets and `a.b*=2` scales, through lists, named profiles and names with dots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.profiles import ConfigError, apply_overrides, baselines, load_scenario, override, vary
from octavo.profiles.read import merge
from octavo.profiles.workload import Poisson

KEYS = st.text("abcxyz", min_size=1, max_size=4)
PLAIN = st.recursive(st.integers(), lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=8)


@given(st.dictionaries(KEYS, PLAIN, max_size=4), KEYS, st.integers())
def test_setting_a_key_leaves_the_rest_and_the_original(data: dict[str, object], key: str, value: int) -> None:
    before = repr(data)
    changed = apply_overrides(data, [f"{key}={value}"])
    assert changed == {**data, key: value}
    assert repr(data) == before


def test_lists_take_an_index() -> None:
    assert apply_overrides({"a": [{"b": 1}, {"b": 2}]}, ["a.1.b=3"]) == {"a": [{"b": 1}, {"b": 3}]}


def test_values_are_yaml() -> None:
    changed = apply_overrides({}, ["a=true", "b=[1, 2]", "c=2 GiB", "d=1e9", "e={f: null}", "g='7'"])
    assert changed == {"a": True, "b": [1, 2], "c": "2 GiB", "d": 1e9, "e": {"f": None}, "g": "7"}


def test_scaling_reaches_every_number_below_and_keeps_units() -> None:
    data = {"a": {"b": "24 GiB", "c": [2, 4.0], "d": True, "e": None}}
    assert apply_overrides(data, ["a*=0.5"]) == {"a": {"b": "12.0 GiB", "c": [1, 2.0], "d": True, "e": None}}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("a", "give a dotted key and a value"),
        ("=3", "give a dotted key and a value"),
        ("list.7.b=1", "'7' is no index of a list of 1"),
        ("list.x=1", "'x' is no index of a list of 1"),
        ("number.b.c=1", "nothing is below a value"),
        ("missing*=2", "has no 'missing' to scale"),
        ("number*=much", "the factor must be a number, got 'much'"),
        ("word*=2", "'plenty' is no number to scale"),
        ("a=[", "--set a=["),
    ],
)
def test_an_override_that_cannot_be_is_refused_by_name(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        apply_overrides({"list": [1], "number": 1, "word": "plenty"}, [wrong])
    assert said in str(refused.value)
    assert "--set" in str(refused.value)


def test_an_override_of_a_key_that_the_schema_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"workload\.arrivals\.rat: unknown key -> did you mean 'rate'\?"):
        load_scenario("single-box", ["workload.arrivals.rat=3"])


def test_overrides_reach_into_named_profiles() -> None:
    plain = load_scenario("single-box")
    scenario = load_scenario(
        "single-box",
        ["models.llama-3.1-8b.max_context=4096", "hardware.h100-sxm.bandwidth*=0.5", "workload.arrivals.rate*=3"],
    )
    assert scenario.models["llama-3.1-8b"].max_context == 4096
    assert scenario.hardware["h100-sxm"].bandwidth == plain.hardware["h100-sxm"].bandwidth / 2
    assert isinstance(scenario.workload.arrivals, Poisson)
    assert scenario.workload.arrivals.rate == 6


def test_overriding_a_loaded_scenario_is_overriding_its_file() -> None:
    changes = ["hardware.h100-sxm.price.usd_per_hour*=0.7", "ensemble.samples_per_expert=4"]
    assert override(load_scenario("single-box"), changes) == load_scenario("single-box", changes)


def test_a_change_of_name_or_kind_replaces_the_alternative() -> None:
    assert merge({"p": {"name": "a", "x": 1}}, {"p": {"name": "b"}}) == {"p": {"name": "b"}}
    assert merge({"p": {"name": "a", "x": 1}}, {"p": {"y": 2}}) == {"p": {"name": "a", "x": 1, "y": 2}}


def test_varying_nothing_changes_nothing() -> None:
    scenario = load_scenario("gpt4-rumour")
    assert vary(scenario, {}) == scenario


def test_a_baseline_is_the_scenario_with_its_change() -> None:
    scenario = load_scenario("gpt4-rumour")
    found = baselines(scenario)
    assert list(found) == ["single-220b", "single-220b-x16", "dense-1760b", "moe-1800b"]
    assert all(line.workload == scenario.workload for line in found.values())
    assert [line.ensemble.inferences_per_query for line in found.values()] == [1, 16, 1, 1]
    assert [sum(line.devices().values()) for line in found.values()] == [8, 20, 64, 64]
