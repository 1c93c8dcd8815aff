"""Spans of OpenTelemetry: one per query, with all that happened under it."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from octavo.profiles.errors import ConfigError
from octavo.runtime.server.journal import JsonLines, TextLines
from octavo.runtime.server.settings import ServerSettings

pytest.importorskip("opentelemetry.sdk", reason="needs octavo[otel]")
BODY = {"model": "octavo", "messages": [{"role": "user", "content": "abc"}], "seed": 1, "max_tokens": 6}


@pytest.fixture
def exporter() -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def traced(serve: Any, exporter: Any) -> Iterator[Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with serve(tracers=provider) as up:
        yield up


def ask(server: Any, **headers: str) -> None:
    assert httpx.post(server.url + "/v1/chat/completions", json=BODY, headers=headers).status_code == 200
    assert server.wait_until_empty()


def test_a_query_is_a_span_and_all_its_work_lies_under_it(traced: Any, exporter: Any) -> None:
    ask(traced)
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    names = [span.name for span in spans]
    assert {name: names.count(name) for name in set(names)} == {
        "query": 1,
        "candidate": 4,
        "queue": 4,
        "prefill": 4,
        "decode": 4,
        "value": 4,
    }
    for span in spans:
        assert span.end_time >= span.start_time
        if span.name == "query":
            assert span.parent is None
            continue
        above = by_id[span.parent.span_id]
        assert above.name == ("candidate" if span.name in ("queue", "prefill", "decode") else "query")
        assert above.start_time <= span.start_time <= span.end_time <= above.end_time + 1000
    [query] = [span for span in spans if span.name == "query"]
    assert query.attributes["gen_ai.request.model"] == "octavo"
    assert query.attributes["octavo.candidates"] == 4
    assert query.attributes["gen_ai.usage.output_tokens"] <= 6
    assert "abc" not in json.dumps([dict(span.attributes) for span in spans])


def test_a_clients_trace_goes_on_here(traced: Any, exporter: Any) -> None:
    ask(traced, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    spans = exporter.get_finished_spans()
    assert {format(span.context.trace_id, "032x") for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    [query] = [span for span in spans if span.name == "query"]
    assert format(query.parent.span_id, "016x") == "b7ad6b7169203331"


def test_the_environment_says_where_spans_go(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    with serve(otel=True) as up:
        ask(up)
    collector.shutdown()
    assert {path for path, _ in got} == {"/v1/traces"}
    sent = b"".join(body for _, body in got)
    assert b"octavo" in sent
    assert b"prefill" in sent


def test_without_the_extra_it_is_named(octavo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app = importlib.import_module("octavo.runtime.server.app")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"octavo\[otel\]"):
        app.Server(octavo, ServerSettings(otel=True))


def test_a_log_line_is_json_or_for_a_reader() -> None:
    record = logging.LogRecord("octavo.server", logging.INFO, "", 0, "request", (), None)
    record.fields = {"status": 200, "path": "/v1/x", "model": None}
    told = json.loads(JsonLines().format(record))
    assert (told["event"], told["status"], told["model"]) == ("request", 200, None)
    assert TextLines().format(record).endswith(' info request status=200 path="/v1/x"')
    with pytest.raises(ConfigError, match="log_format"):
        ServerSettings(log_format="xml")
