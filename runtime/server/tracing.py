"""OpenTelemetry (an extra): a span per query, under it one per candidate with queue, prefill and decode, one per value.

Names and attributes follow the GenAI conventions where they have one; these are still in development, so may change.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.runtime.recorder import Recorder


def tracer_from_environment() -> Any:
    """A provider of tracers that exports by OTLP; the OTEL_ variables say where to and what of it.

    Raises ConfigError without the extra.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve: --otel: {error.name} is not installed; install octavo[otel]") from None
    known = Resource.create()  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    named = not str(known.attributes.get("service.name", "unknown_service")).startswith("unknown_service")
    provider = TracerProvider(resource=known if named else known.merge(Resource({"service.name": "octavo"})))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Spans:
    """Turns the records of queries that are over into spans, with the times that they had.

    Prompts and answers are never among the attributes.
    """

    def __init__(self, provider: Any, recorder: Recorder) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import set_span_in_context

        self._provider = provider
        self._tracer = provider.get_tracer("octavo")
        self._extract = extract
        self._under = set_span_in_context
        self._begin = time.time() - recorder.now()
        self._parents: dict[int, tuple[Any, str]] = {}

    def expect(self, query: int, model: str, headers: Mapping[str, str]) -> None:
        """A query is about to begin; `traceparent` among the headers makes its span a child of the client's."""
        self._parents[query] = (self._extract(headers), model)

    def hear(self, query: QueryRecord, inferences: Sequence[InferenceRecord]) -> None:
        """A query is over: called by the loop, in a device's thread."""
        context, model = self._parents.pop(query.query, (None, "octavo"))
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": query.prompt_tokens,
            "gen_ai.usage.output_tokens": query.answer_tokens,
            "octavo.total_tokens": query.total_tokens,
            "octavo.candidates": query.candidates,
            "octavo.outcome": query.outcome,
            "octavo.reason": query.reason,
            "octavo.chosen": query.chosen,
            "octavo.value": query.value,
            "octavo.degraded": query.degraded,
        }
        ended = query.arrival if query.ended is None else query.ended
        root = self._span("query", context, query.arrival, ended, about, failed=query.outcome == "failed")
        for each in inferences:
            self._inference(each, self._under(root), ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _inference(self, each: InferenceRecord, context: Any, latest: float) -> None:
        ended = latest if each.ended is None else each.ended
        about = {"octavo.model": each.model, "octavo.sample": each.sample, "octavo.end": each.end}
        if each.judge:
            self._span("value", context, each.submitted, ended, about | {"octavo.value": each.value})
            return
        counts = {"gen_ai.usage.output_tokens": each.new_tokens, "octavo.preemptions": each.preemptions}
        failed = each.end == "lost"
        under = self._under(self._span("candidate", context, each.submitted, ended, about | counts, failed=failed))
        scheduled = ended if each.scheduled is None else each.scheduled
        self._span("queue", under, each.submitted, scheduled, about)
        if each.scheduled is not None:
            first = ended if each.first_token is None else each.first_token
            self._span("prefill", under, scheduled, first, about)
            if each.first_token is not None:
                self._span("decode", under, first, ended, about)

    def _span(
        self, name: str, context: Any, start: float, end: float, about: Mapping[str, Any], *, failed: bool = False
    ) -> Any:
        from opentelemetry.trace import StatusCode

        known = {key: value for key, value in about.items() if value is not None}
        span = self._tracer.start_span(name, context, attributes=known, start_time=self._nanoseconds(start))
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(self._nanoseconds(max(start, end)))
        return span

    def _nanoseconds(self, at: float) -> int:
        return round((self._begin + at) * 1e9)
