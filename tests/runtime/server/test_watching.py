"""What operators see: metrics, the log, the trace file, the OpenAPI document; and how a server ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, RunRecord, from_lines
from octavo.runtime.server import ServerSettings
from octavo.runtime.server import serve as serve_bundle
from octavo.runtime.server.journal import JsonLines, TraceFile, Unhurried

BODY = {"model": "octavo", "messages": [{"role": "user", "content": "abc 123:"}], "seed": 3, "max_tokens": 20}
ASK = "/v1/chat/completions"


def metrics(server: Any) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(server.url + "/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    assert {(sample.labels.pop("model_name"), sample.labels.pop("engine")) for sample in samples} == {("octavo", "0")}
    return {
        "".join([sample.name, *(f",{key}={value}" for key, value in sorted(sample.labels.items()))]): sample.value
        for sample in samples
    }


def test_metrics_count_queries_candidates_and_tokens(serve: Any) -> None:
    with serve() as up:
        assert httpx.head(up.url + "/metrics").status_code == 200
        got = [httpx.post(up.url + ASK, json=BODY | {"seed": seed}).json() for seed in range(3)]
        httpx.post(up.url + ASK, json=BODY | {"n": 99})
        assert up.wait_until_empty()
        seen = metrics(up)
        assert seen["octavo_requests_total,outcome=answered"] == 3
        assert seen["octavo_requests_total,outcome=rejected"] == 1
        assert seen["octavo_generation_tokens_total"] == sum(each["octavo"]["total_tokens"] for each in got)
        assert seen["octavo_prompt_tokens_total"] == sum(each["usage"]["prompt_tokens"] for each in got)
        assert seen["octavo_candidates_total,expert=expert-0,outcome=finished"] == 6
        assert seen["octavo_candidate_latency_seconds_count,expert=expert-1"] == 6
        assert seen["octavo_value_seconds_count"] == 12
        for name in ("request_queue_time", "request_prefill_time", "request_decode_time", "request_inference_time"):
            assert seen[f"octavo_{name}_seconds_count"] == 12
        assert seen["octavo_request_generation_tokens_sum"] == sum(each["usage"]["completion_tokens"] for each in got)
        assert seen["octavo_request_prompt_tokens_count"] == seen["octavo_gateway_seconds_count"] == 3
        assert seen["octavo_num_preemptions_total"] == 0
        for name in ("barrier_wait_seconds", "e2e_request_latency_seconds", "time_to_first_token_seconds"):
            assert seen[f"octavo_{name}_count"] == 3
        assert seen["octavo_num_requests_running"] == seen["octavo_queued_tokens"] == 0
        assert seen["octavo_kv_cache_usage_perc,expert=expert-0"] == 0


def test_the_trace_says_what_happened_and_a_second_server_appends(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        with serve(trace=path, deadline=9) as up:
            got = httpx.post(up.url + ASK, json=BODY).json()
            assert up.wait_until_empty()
    records = list(from_lines(path.read_text().splitlines()))
    heads = [record for record in records if isinstance(record, RunRecord)]
    queries = [record for record in records if isinstance(record, QueryRecord)]
    candidates = [record for record in records if isinstance(record, InferenceRecord) and not record.judge]
    assert [head.deadline for head in heads] == [9, 9]
    assert [query.total_tokens for query in queries] == [got["octavo"]["total_tokens"]] * 2
    assert sum(each.new_tokens for each in candidates) == 2 * got["octavo"]["total_tokens"]
    assert str(queries[0].chosen).startswith(got["octavo"]["chosen_expert"])
    assert got["choices"][0]["message"]["content"] not in path.read_text()
    assert all(each.answer for each in candidates)


def test_a_trace_that_cannot_be_written_is_said_at_once(serve: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trace"), serve(trace=tmp_path / "no" / "folder"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_trace_and_nothing_else(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "octavo.server"), serve(trace=Path("/dev/full")) as up:
        assert [httpx.post(up.url + ASK, json=BODY).status_code for _ in range(3)] == [200, 200, 200]
    assert [record.getMessage() for record in caplog.records] == ["trace stopped"]


def test_every_request_is_one_line_of_json_without_its_words(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "octavo.server"), serve() as up:
        answer = httpx.post(up.url + ASK, json=BODY).json()
        httpx.post(up.url + ASK, json=BODY | {"stream": True})
        httpx.post(up.url + ASK, json=BODY | {"model": "x"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 404]
    assert requests[0]["chosen_expert"] == answer["octavo"]["chosen_expert"]
    assert "abc 123" not in json.dumps(lines)


def test_a_trace_file_survives_being_told_after_it_broke(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t", RunRecord("ensemble", {}, ("a",), 1, None, {}, {}))
    trace.hear(QueryRecord(1, 0.0, 3), [])
    trace.close()
    assert len((tmp_path / "t").read_text().splitlines()) == 2


def test_the_openapi_document_names_every_path_that_answers(server: Any) -> None:
    document = httpx.get(server.url + "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            answer = httpx.request(method, server.url + path.replace("{model}", "octavo"))
            assert str(answer.status_code) in methods[method]["responses"], path
    fields = set(document["components"]["schemas"]["ChatRequest"]["properties"])
    assert {"messages", "n", "best_of", "seed", "stop", "stream", "max_completion_tokens"} <= fields
    assert document["components"]["schemas"]["ChatRequest"]["additionalProperties"] is False


PROGRAM = """
import sys, time
from pathlib import Path
from octavo.runtime.lane import Lane
from octavo.runtime.server import ServerSettings, serve

take = Lane.next_turn
Lane.next_turn = lambda lane: (time.sleep(0.01), take(lane))[1]
serve(Path(sys.argv[1]), ServerSettings(port=0), provider="cpu", threads=1)
print("left in order")
"""


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(server: Any) -> None:
    with pytest.raises(MachineError, match="cannot listen"):
        serve_bundle(Path("no bundle"), ServerSettings(port=server.port))


def test_on_sigterm_what_is_in_flight_is_answered_and_nothing_else(bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    line = json.loads(process.stderr.readline())
    assert line["event"] == "listening"
    url = f"http://127.0.0.1:{line['port']}"

    async def fire() -> list[Any]:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            asks = [
                asyncio.create_task(client.post(url + ASK, json=BODY | {"seed": n, "stream": n % 2 == 0}))
                for n in range(20)
            ]
            while (await client.get(url + "/metrics")).text.count(
                'octavo_queued_queries{engine="0",model_name="octavo"} 20.0'
            ) == 0:
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*asks)
            with pytest.raises(httpx.TransportError):
                await client.get(url + "/health")
            return answers

    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    answers = asyncio.run(fire())
    out, code = process.stdout.read() if process.stdout else "", process.wait(20)
    reader.join()
    assert [answer.status_code for answer in answers] == [200] * 20
    assert all('"finish_reason":"' in answer.text for answer in answers)
    assert (code, out) == (0, "left in order\n")
    assert json.loads(errors[-1])["event"] == "stopped"


def test_a_log_that_nobody_reads_holds_up_no_request_and_says_what_it_lost() -> None:
    class Stuck(logging.Handler):
        """Writes when it is let."""

        def __init__(self) -> None:
            super().__init__()
            self.go, self.written = threading.Event(), list[logging.LogRecord]()

        def emit(self, record: logging.LogRecord) -> None:
            self.go.wait(10)
            self.written.append(record)

    stuck, logger = Stuck(), logging.Logger("stuck")
    unhurried = Unhurried(stuck, room=3)
    logger.addHandler(unhurried)
    for _ in range(10):
        logger.info("line")
    stuck.go.set()
    while len(stuck.written) < 3:
        time.sleep(0.01)
    logger.info("last")
    unhurried.close()
    lost = sum(getattr(record, "fields", {}).get("lines_lost", 0) for record in stuck.written)
    assert stuck.written[-1].getMessage() == "last"
    assert len(stuck.written) + lost == 11
