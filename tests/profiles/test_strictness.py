"""A file that is wrong is refused with every error at once: file, key, value, what is allowed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.profiles import ConfigError, Scenario, list_profiles, load_hardware, load_scenario
from octavo.profiles.load import resolve

Ask = Callable[..., list[str]]


def test_the_small_scenario_is_right(problems: Ask) -> None:
    assert problems() == []


TABLES = ("tiers", "devices", "hardware", "models", "prices", "flops")


def mappings(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in plain data a mapping with fixed keys stands; tables by name and a baseline's change have free keys."""
    table = (path[-1:] and path[-1] in TABLES) or path == ("links",)
    if isinstance(data, dict) and not table:
        yield path
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in below:
        if key != "change":
            yield from mappings(value, (*path, key))


@pytest.mark.parametrize("name", [row["name"] for row in list_profiles("scenarios")])
def test_an_unknown_key_at_any_level_is_an_error_that_names_the_choices(name: str) -> None:
    whole = load_scenario(name).dump()
    for path in mappings(whole):
        data = copy.deepcopy(whole)
        at: Any = data
        for key in path:
            at = at[key]
        at["surprise"] = 1
        with pytest.raises(ConfigError) as refused:
            resolve(data, "file")
        expected = ".".join(map(str, [*path, "surprise"]))
        assert f"file: {expected}: unknown key -> " in str(refused.value), path
        assert "allowed: " in str(refused.value)


def test_a_near_miss_is_suggested(problems: Ask) -> None:
    said = problems(engine={"max_num_seq": 3})
    assert said[0].startswith("engine.max_num_seq: unknown key -> did you mean 'max_num_seqs'? allowed: block_size, ")


def test_all_errors_are_reported_at_once(problems: Ask) -> None:
    said = problems(
        "workload.arrivals.rate='3 parsec'",
        "hardware.rtx-4090.memory=-3",
        "ensemble.policy={name: sngle}",
        "fleet.placement.0.replicas=1.5",
        "latency=guess",
        engin={},
    )
    keys = [line.split(":")[0] for line in said]
    assert sorted(keys) == sorted(
        [
            "workload.arrivals.rate",
            "hardware.rtx-4090.memory",
            "ensemble.policy.name",
            "fleet.placement.0.replicas",
            "latency",
            "engin",
        ]
    )


def test_wrong_names_are_reported_beside_all_other_errors(problems: Ask) -> None:
    said = problems(
        "engine.block_size=0",
        "fleet.operations={down: [expert-9], outages: [{tier: mars, at: 0, lasts: -1}], retrys: 1}",
        "fleet.placement.0.tier=moon",
        "ensemble.policy={name: cascade, first: me, accept_at: 2}",
        "ensemble.min_candidates=99",
        baselines=[{"name": "far", "change": {"fleet": {"tiers": {"here": {"client_link": "wan"}, "sun": {"x": 1}}}}}],
    )
    assert sorted(line.split(":")[0] for line in said) == [
        "baseline far",
        "engine.block_size",
        "ensemble.policy.accept_at",
        "ensemble.policy.first",
        "fleet.operations.down.0",
        "fleet.operations.outages.0.lasts",
        "fleet.operations.outages.0.tier",
        "fleet.operations.retrys",
        "fleet.placement.0.tier",
    ]
    assert said[-1].startswith("baseline far: fleet.tiers.sun.x: unknown key")


def test_too_few_devices_are_reported_beside_all_other_errors(problems: Ask) -> None:
    said = problems("engine.block_size=0", "seeds=true", "fleet.tiers.here.devices={rtx-4090: 1}")
    assert [line.split(":")[0].split(" ")[0] for line in said] == [
        "seeds",
        "engine.block_size",
        "fleet.tiers.here.devices.rtx-4090",
    ]


def test_a_wrong_unit_names_the_value_and_the_units(problems: Ask) -> None:
    [said] = problems("workload.arrivals.rate='3 parsec'")
    assert said.startswith(
        "workload.arrivals.rate: '3 parsec' -> a number in 1/s, or a string with one of the units /s, "
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "ensemble.policy={name: sngle}",
            "ensemble.policy.name: 'sngle' -> did you mean 'single'? allowed: best_of_n, ",
        ),
        ("ensemble.policy={}", "ensemble.policy: missing 'name' -> "),
        ("ensemble.policy={name: cascade}", "ensemble.policy.first: missing -> a value is needed"),
        (
            "ensemble.policy={name: cascade, first: me}",
            "ensemble.policy.first: 'me' -> no such expert; allowed: expert-1, expert-2",
        ),
        ("ensemble.min_candidates=99", "ensemble.min_candidates -> at most 4 are made, got 99"),
        ("fleet.placement.0.mode=shared", "fleet.placement.0.mode: 'shared' -> "),
        ("fleet.placement.0.tier=moon", "fleet.placement.0.tier: 'moon' -> no such tier; allowed: here"),
        ("fleet.placement.0.of=expert-1", "fleet.placement -> expert-2 lives nowhere"),
        ("fleet.placement.0.of=expert-9", "fleet.placement.0.of: 'expert-9' -> no such expert; did you mean 'exper"),
        (
            "fleet.tiers.here.devices={rtx-4090: 1}",
            "fleet.tiers.here.devices.rtx-4090 -> placements take 2, there are 1",
        ),
        (
            "fleet.placement.0.hardware=rtx-4091",
            "fleet.placement.0.hardware: 'rtx-4091': no such profile in hardware -> did",
        ),
        ("ensemble.experts.model=llama", "ensemble.experts.model: 'llama': no such profile in models -> "),
        ("workload=chatt", "workload: 'chatt': no such profile in workloads -> did you mean 'chat'?"),
        ("workload.duration=1 h", "workload -> queries and duration exclude each other"),
        ("targets.ttft_p95=.nan", "targets.ttft_p95: nan -> input should be a finite number"),
        ("seeds=true", "seeds: True -> "),
        ("models.llama-3.1-8b.layers=40", "models.llama-3.1-8b.parameters -> stated 8.03 B, but the shape has"),
        ("hardware.rtx-4090.flops.fp7=1e12", "hardware.rtx-4090.flops.fp7"),
    ],
)
def test_each_mistake_is_named_where_it_is(problems: Ask, override: str, said: str) -> None:
    found = problems(override)
    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_baseline_is_checked_with_the_scenario(problems: Ask) -> None:
    [said] = problems(baselines=[{"name": "odd", "change": {"ensemble": {"policy": {"name": "sngle"}}}}])
    assert "baseline odd: ensemble.policy.name: 'sngle' -> did you mean 'single'?" in said


def test_a_key_that_is_there_twice_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("description: one\nkind: gpu\ndescription: two\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml:3: the key 'description' is there twice"):
        load_hardware(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "a: [",
        "!!python/object:os.system {}",
        "3: 4",
        "",
        "\x00",
        "a: &x [*x]",
        "a: 2024-13-45",
        "a: " + "[" * 5000,
    ],
)
def test_what_is_no_profile_is_refused_without_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"odd\.yaml"):
        load_hardware(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_scenario(tmp_path / "nowhere.yaml")


def test_profiles_that_start_from_each_other_are_refused(own_profiles: Path) -> None:
    (own_profiles / "hardware").mkdir(parents=True)
    for one, other in (("a", "b"), ("b", "a")):
        (own_profiles / "hardware" / f"{one}.yaml").write_text(yaml.safe_dump({"from": other}))
    with pytest.raises(ConfigError, match="start from each other"):
        load_hardware("a")


JUNK = [None, -1, 1e308, math.nan, "x", "3 s", "chat", True, [], [1], {}, {"a": 1}, {"from": "chat"}, {"from": 3}]


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in below:
        yield (*path, key)
        yield from places(value, (*path, key))


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_is_damaged_the_file_is_refused_with_reasons_or_means_the_same_again(random: Random) -> None:
    data = load_scenario(random.choice(["gpt4-rumour", "edge-cascade", "failure-day"])).dump()
    path = random.choice(list(places(data)))
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = copy.deepcopy(random.choice(JUNK))
    scenario, reasons = understood(data)
    assert all(line.startswith("file: ") for line in reasons)
    assert scenario is None or resolve(scenario.dump(), "file") == scenario


def understood(data: dict[str, Any]) -> tuple[Scenario | None, list[str]]:
    try:
        return resolve(data, "file"), []
    except ConfigError as refused:
        return None, str(refused).splitlines()
