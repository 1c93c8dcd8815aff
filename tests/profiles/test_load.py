"""Names, paths and the user's own folder; round trips; the JSON Schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from octavo.profiles import (
    ConfigError,
    Scenario,
    add_profile,
    check_profiles,
    list_profiles,
    load_hardware,
    load_scenario,
    load_workload,
    scenario_schema,
)
from octavo.profiles.load import resolve
from octavo.simulator.latency.choose import choose

SCENARIOS = [row["name"] for row in list_profiles("scenarios")]

MINE = """
from: rtx-4090
description: the one under my desk
memory: 22 GiB
"""


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_was_dumped_loads_as_an_equal_one(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(name)
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(scenario.dump()))
    assert load_scenario(path) == scenario
    assert resolve(scenario.dump(), name) == scenario


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_json_schema_accepts_the_built_in_scenarios_and_what_they_dump(name: str) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(scenario_schema())
    text = (files("octavo.profiles") / "data" / "scenarios" / f"{name}.yaml").read_text(encoding="utf-8")
    for data in (yaml.safe_load(text), load_scenario(name).dump()):
        assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(data)] == []


def test_the_json_schema_refuses_what_loading_refuses() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(scenario_schema())
    text = (files("octavo.profiles") / "data" / "scenarios" / "single-box.yaml").read_text(encoding="utf-8")
    wrong: list[dict[str, object]] = [
        {"engin": {}},
        {"targets": {"ttft_p95": "3 parsec"}},
        {"workload": 3},
        {"engine": {"kv_blocks": -1}},
    ]
    for change in wrong:
        assert not validator.is_valid(yaml.safe_load(text) | change)


def test_the_users_profile_wins_over_the_one_of_that_name(own_profiles: Path, tmp_path: Path) -> None:
    path = tmp_path / "rtx-4090-desk.yaml"
    path.write_text(MINE)
    target = add_profile("hardware", path)
    assert target == own_profiles / "hardware" / "rtx-4090-desk.yaml"
    mine = load_hardware("rtx-4090-desk")
    assert (mine.memory, mine.bandwidth, mine.description) == (22 * 2**30, 1008e9, "the one under my desk")
    assert check_profiles("hardware") == []
    [row] = [row for row in list_profiles("hardware") if row["name"] == "rtx-4090-desk"]
    assert row["origin"] == str(target)
    with pytest.raises(ConfigError, match="is there already"):
        add_profile("hardware", path)


@pytest.mark.parametrize(("start", "prefix"), [("chat", 100), ("rag", 300)])
def test_a_users_profile_may_start_from_the_one_that_it_replaces(own_profiles: Path, start: str, prefix: int) -> None:
    (own_profiles / "workloads").mkdir(parents=True)
    (own_profiles / "workloads" / "chat.yaml").write_text(f"from: {start}\nqueries: 7\n")
    chat = load_workload("chat")
    assert (chat.queries, chat.shared_prefix_tokens) == (7, prefix)


def test_a_wrong_profile_is_not_added(own_profiles: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(MINE + "colour: green\n")
    with pytest.raises(ConfigError, match="colour: unknown key"):
        add_profile("hardware", path)
    assert not own_profiles.exists()


def test_a_path_works_where_a_name_does(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "scenario.yaml").write_text(
        """
        ensemble: {experts: {model: qwen2.5-7b}}
        fleet: {tiers: {here: {}}, placement: [{of: experts, tier: here, hardware: ./mine.yaml}]}
        workload: chat
        """
    )
    scenario = load_scenario(tmp_path / "scenario.yaml")
    assert scenario.hardware_of(scenario.fleet.placement[0]).memory == 22 * 2**30


def test_the_user_may_define_facts_inside_a_scenario(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(
        """
        hardware: {mine: {from: h100-sxm, memory: 94 GiB}}
        ensemble: {experts: {model: qwen2.5-7b}}
        fleet: {tiers: {here: {}}, placement: [{of: experts, tier: here, hardware: mine}]}
        workload: {from: chat, queries: 5}
        """
    )
    scenario = load_scenario(tmp_path / "scenario.yaml")
    assert scenario.hardware["mine"].memory == 94 * 2**30
    assert scenario.hardware["mine"].name == "mine"


def test_files_that_a_scenario_names_are_seen_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text("{}\n")
    (tmp_path / "scenario.yaml").write_text(
        """
        ensemble: {experts: {model: qwen2.5-7b}}
        fleet: {tiers: {here: {}}, placement: [{of: experts, tier: here, hardware: l4}]}
        workload:
          arrivals: {kind: trace, file: trace.jsonl}
          prompt_tokens: {kind: trace}
          answer_tokens: {kind: trace}
        """
    )
    scenario = load_scenario(tmp_path / "scenario.yaml")
    assert scenario.workload.arrivals.file == str((tmp_path / "trace.jsonl").resolve())  # type: ignore[union-attr]


def test_the_design_page_shows_a_scenario_that_loads(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "design" / "scenario.md"
    found = re.search(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    (tmp_path / "page.yaml").write_text(found[1])
    assert load_scenario(tmp_path / "page.yaml").ensemble.inferences_per_query == 16


def test_loading_a_scenario_imports_nothing_heavy() -> None:
    code = "import sys; from octavo.profiles import load_scenario; load_scenario('gpt4-rumour'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"torch", "onnxruntime", "numpy", "scipy", "simpy", "plotly", "octavo.runtime", "octavo.simulator"}
    assert not heavy & set(loaded)


def test_importing_the_errors_does_not_import_pydantic() -> None:
    code = "import sys, octavo.profiles.errors; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "pydantic" not in loaded


def test_a_measured_machine_is_added_and_used_by_its_name(own_profiles: Path, tmp_path: Path) -> None:
    step = {"decodes": 1, "context": 10, "prefill_tokens": 0, "prefill_rows": 0, "seconds": 0.01}
    facts = {"name": "desk", "model": "small", "hardware": "cpu", "provider": "cpu", "precision": "fp32", "threads": 1}
    facts |= {"measured_on": "2025-01-01", "machine": {}, "steps": [step]}
    path = tmp_path / "desk.json"
    path.write_text(json.dumps(facts))
    assert add_profile("latency", path) == own_profiles / "latency" / "desk.json"
    assert {row["name"]: row["description"] for row in list_profiles("latency")}["desk"].startswith("small on cpu")
    scenario = load_scenario("single-box", ["latency=table:desk"])
    assert choose(scenario, scenario.fleet.placement[0], "expert-1").decode(1, 10).seconds == pytest.approx(0.01)
    path.write_text(json.dumps({**facts, "steps": []}))
    with pytest.raises(ConfigError, match="steps"):
        add_profile("latency", path, replace=True)


def test_a_scenario_loads_itself() -> None:
    assert Scenario.load("single-box", ["seeds=2"]) == load_scenario("single-box", ["seeds=2"])


def test_a_latency_that_is_not_known_is_told_what_is() -> None:
    with pytest.raises(ConfigError, match=r"latency: 'exact' -> must be auto, roofline, table:FILE, layers:FOLDER"):
        load_scenario("single-box", ["latency=exact"])


@pytest.mark.parametrize(
    ("latency", "why"),
    [
        ("fit:serverz", "no such fit; did you mean 'servers'? allowed: servers, servers-2023"),
        ("fit:servers:trtlm", "servers has no such framework; did you mean 'trtllm'? allowed: sglang, trtllm, vllm"),
        ("fit:silicon", "it needs coefficients and an error; allowed: servers, servers-2023"),
        ("layers:nowhere", "no such folder; layers:FOLDER is a folder with measured tables of layers"),
        ("table:nowhere.json", "no such file or profile; `octavo measure` writes one; allowed: nothing"),
    ],
)
def test_step_times_and_files_that_are_not_there_are_errors_among_the_others(
    latency: str, why: str, own_profiles: Path
) -> None:
    wrong = [f"latency={latency}", "workload.arrivals={kind: trace, file: nowhere.jsonl}", "engine.max_num_seqs=0"]
    with pytest.raises(ConfigError) as raised:
        load_scenario("single-box", [*wrong, "baselines=[{name: other, change: {latency: 'fit:none'}}]"])
    assert str(raised.value).splitlines() == [
        "single-box: workload.arrivals.file: 'nowhere.jsonl' -> no such file",
        f"single-box: latency: '{latency}' -> {why}",
        "single-box: baselines.other.latency: 'fit:none' -> no such fit; allowed: servers, servers-2023",
        "single-box: engine.max_num_seqs: 0 -> input should be greater than 0",
    ]


def test_a_workload_that_is_not_there_is_one_error_and_hides_no_other() -> None:
    wrong = ["workload={from: chatt, arrivals: {kind: poisson, rate: 0}}", "engine.max_num_seqs=many"]
    with pytest.raises(ConfigError) as raised:
        load_scenario("single-box", wrong)
    said = [line.split(" -> ")[0].removeprefix("single-box: ") for line in str(raised.value).splitlines()]
    assert said == [
        "workload: 'chatt': no such profile in workloads",
        "engine.max_num_seqs: 'many'",
        "workload.arrivals.rate: 0",
    ]
