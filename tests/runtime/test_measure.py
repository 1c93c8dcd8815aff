"""Measuring: steps are timed by what is alike about them, a load comes at its times, and its trace can be run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from octavo import cli
from octavo.loads import read_load
from octavo.profiles.errors import ConfigError
from octavo.profiles.latency import StepTime, read_latency
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, RunRecord, from_lines
from octavo.runtime.local import Octavo
from octavo.runtime.measure import joules, measure, numbers_in_line, slug, summary
from octavo.runtime.profiled import fitted
from octavo.runtime.replay import Arrival, fitting, poisson, serve_load
from octavo.runtime.steps import Cell, grid, time_steps


def test_a_grid_stays_within_the_limits() -> None:
    cells = grid(context=96, max_rows=16, samples=2, max_step_tokens=256)
    assert cells
    for cell in cells:
        assert cell.queries * cell.samples <= 16
        assert cell.queries * cell.tokens <= 256
        assert cell.tokens < 96
    assert {cell.queries * cell.samples for cell in cells} == {1, 2, 4, 8, 16}


def test_steps_of_every_kind_are_timed_and_nothing_is_left_behind(bundle: Path) -> None:
    with Octavo.load(bundle, devices=["cpu:0", "cpu:1"]) as octavo:
        cells = [Cell(1, 1, 8), Cell(2, 2, 8), Cell(1, 2, 16)]
        times = time_steps(octavo.placed.lanes, octavo.loop.contents, "value", cells, 3.0, 0)
        decoder, judge = (times.step_times(judge=judge) for judge in (False, True))
        assert any(step.decodes == 4 and not step.prefill_tokens for step in decoder)
        assert any(step.decodes and step.prefill_tokens for step in decoder)
        assert any(step.prefill_rows == 2 for step in decoder)
        assert all(not step.decodes and step.prefill_tokens for step in judge)
        assert judge
        assert len(octavo.loop.contents) == 0
        assert all(not len(scheduler) for lane in octavo.placed.lanes for scheduler in lane.schedulers.values())
        assert octavo.ask("abc", max_new_tokens=3).candidates


def test_a_fit_finds_the_line_that_the_times_were_made_from() -> None:
    steps = [
        StepTime(decodes=d, context=d * c, prefill_tokens=t, prefill_rows=min(t, 1), seconds=1e-4 + 1e-5 * d + 2e-6 * t)
        for d in (1, 4, 16)
        for c in (10, 100)
        for t in (0, 32, 128)
    ]
    fit = fitted(steps)
    assert fit.residuals["worst"] < 1e-6
    assert fit.seconds(8, 200, 64, 1) == pytest.approx(1e-4 + 8e-5 + 1.28e-4, rel=0.01)


def test_a_load_comes_at_its_times_and_its_trace_says_how_to_run_it_again(bundle: Path) -> None:
    arrivals = [Arrival(0.05 * number, "abc"[: 1 + number % 3]) for number in range(8)]
    with Octavo.load(bundle, keep_records=True) as octavo:
        head, *records = serve_load(octavo, arrivals, policy="majority", max_new_tokens=6, seed=4)
    assert isinstance(head, RunRecord)
    assert (head.policy, head.seed, head.source) == ("majority", 4, "measured")
    queries = [record for record in records if isinstance(record, QueryRecord)]
    late = [query.arrival - each.at for query, each in zip(queries, arrivals, strict=True)]
    assert all(0 <= seconds < 5 for seconds in late)  # never early; how late is the machine's affair
    assert summary(records)["queries"] == 8


def test_a_recorded_load_is_served_with_its_lengths_at_its_times_or_faster(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    rows = [f"2023-11-16 18:15:{46 + i}.5000000,{5 + i},4" for i in range(4)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, "2023-11-16 18:16:00.5,900,4"]))
    assert [each.at for each in read_load(path, queries=3, rate=None)] == [0, 1, 2]
    arrivals = read_load(path, queries=9, rate=40.0)
    with pytest.raises(ConfigError, match="no query fits the context of 8 tokens; the shortest takes 9"):
        fitting(arrivals, 8)
    found = measure(bundle, arrivals=arrivals, seconds=0.2, context=40)
    queries = [record for record in found.trace if isinstance(record, QueryRecord)]
    assert [query.prompt_tokens for query in queries] == [5, 6, 7, 8]
    assert (found.left_out, json.loads(found.to_json())["left_out"]) == (1, 1)
    assert found.rate == pytest.approx(40 * 14 / 4 / 1)
    assert {r.new_tokens for r in found.trace if isinstance(r, InferenceRecord) and not r.judge} == {4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no records"),
        ('{"timestamp": 0}\n', "record 1: not mooncake"),
        ('{"timestamp": 0, "input_length": -3, "output_length": 1}\n', "record 1: times and lengths must not"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,3\n", "record 1: not azure"),
    ],
)
def test_a_load_that_is_wrong_is_refused_with_its_record(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "load"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_load(path, queries=9, rate=None)


def test_random_arrivals_are_those_of_the_seed() -> None:
    assert poisson(["a", "b"], 10, 50, 1) == poisson(["a", "b"], 10, 50, 1)
    assert poisson(["a"], 10, 2000)[-1].at == pytest.approx(200, rel=0.1)
    with pytest.raises(ConfigError, match="rate and queries must be positive"):
        poisson(["a"], 0, 5)


def test_a_measurement_writes_profiles_and_a_trace_that_can_be_read(bundle: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"prompt": "abc"}\n{"prompt": "mids 12:"}\n')
    out = tmp_path / "out"
    found = measure(bundle, prompts=tasks, queries=12, seconds=1.0, max_new_tokens=6, context=40, max_rows=8, out=out)
    decoder, judge = (read_latency(next(out.glob(f"latency-*-{kind}.json"))) for kind in ("decoder", "judge"))
    assert (decoder.kind, judge.kind) == ("decoder", "judge")
    assert decoder.weight_bytes > 0
    assert decoder.kv_precision == "fp32"
    assert (out / f"latency-{slug(decoder.hardware)}-decoder.json").is_file()
    assert decoder.concurrent == len(set(found.trace[0].devices))  # type: ignore[union-attr]
    for each in (decoder, judge):  # where lanes share the interpreter
        assert (each.host is not None) == any(step.alone for step in each.steps)
        assert each.pace is not None
        assert [len(lane) for lane in each.pace.lanes] == [len(each.pace.lanes[0])] * each.concurrent
    assert cli.main(["simulate", "--replay", str(out), "--out", str(tmp_path / "replay.json")]) == 0
    assert json.loads((tmp_path / "replay.json").read_text())["kind"] == "validation"
    trace = list(from_lines((out / "trace.jsonl").read_text().splitlines()))
    assert summary(trace) == summary(found.trace)
    document = json.loads((out / "measure.json").read_text())
    assert document["kind"] == "measure"
    for profile in document["profiles"]:
        assert set(profile["residuals"]) == {"mape", "p90", "worst"}
        assert profile["peak_memory_bytes"] > 0
        assert all(step["samples"] > 1 for step in profile["steps"])
    energy = document["energy"]
    assert (energy["watts"] is None) == (energy["source"] is None) == (energy["reason"] is not None)


def test_numbers_stand_in_a_line_and_nothing_else_changes() -> None:
    found = {"a": [1, -2.5, 3e-07], "b": [[1.0, 2.0], []], "c": [{"d": 1}, "1, 2"], "e": "[ 1,\n2]"}
    text = numbers_in_line(json.dumps(found, indent=2))
    assert json.loads(text) == found
    assert '"a": [1, -2.5, 3e-07]' in text


def test_a_step_costs_its_seconds_at_the_power_meanwhile() -> None:
    step = StepTime(decodes=2, context=8, prefill_tokens=0, prefill_rows=0, seconds=0.5)
    prefill = StepTime(decodes=0, context=0, prefill_tokens=8, prefill_rows=1, seconds=2.0)
    found = joules({False: [step, prefill], True: [prefill]}, 10.0)
    assert found == {"decode": 5.0, "prefill": 20.0, "value": 20.0}
