"""Prometheus metrics: vLLM's names and buckets under `octavo_`, and what only an ensemble has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.runtime.server.answers import returned
from octavo.runtime.server.desk import Answered, Desk
from octavo.runtime.server.names import ROOT

# vLLM's buckets, in seconds.
FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
CHOICES = (1, 2, 5, 10, 20)
TOKENS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))
GATEWAY = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5)  # octavo's own


class Metrics:
    """What Prometheus scrapes. Requests are told of by the endpoints, queries and inferences by their records."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Gauges(desk))
        self.scraped = CollectorRegistry()
        self.scraped.register(Labelled(self.registry))
        self._outcomes = self._counter("requests", "Requests for an answer, by how they ended.", "outcome")
        self._success = self._counter("request_success", "Answers returned.", "finished_reason")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts, once per query.")
        self._generation = self._counter("generation_tokens", "New tokens of all candidates.")
        self._preemptions = self._counter("num_preemptions", "Times that an inference gave up its memory for others.")
        self._candidates = self._counter("candidates", "Inferences of experts, by how they ended.", "expert", "outcome")
        first, latency = FIRST_TOKEN, LATENCY
        self.first = self._histogram("time_to_first_token_seconds", "Till the answer's first text was there.", first)
        self._whole = self._histogram("e2e_request_latency_seconds", "From request to answer.", latency)
        self._n = self._histogram("request_params_n", "Choices asked for.", CHOICES)
        self._queue = self._histogram("request_queue_time_seconds", "Of an inference, till it is computed.", latency)
        self._prefill = self._histogram("request_prefill_time_seconds", "Of an inference, its prompt.", latency)
        self._decode = self._histogram("request_decode_time_seconds", "Of an inference, after its prompt.", latency)
        self._token = self._histogram("time_per_output_token_seconds", "Between two tokens of one text.", PER_TOKEN)
        self._candidate = self._histogram("candidate_latency_seconds", "Of a finished candidate.", latency, "expert")
        self._inference = self._histogram("request_inference_time_seconds", "Of an inference, computed.", latency)
        self._asked_tokens = self._histogram("request_prompt_tokens", "Tokens of a query's prompt.", TOKENS)
        self._given_tokens = self._histogram("request_generation_tokens", "Tokens of a query's answer.", TOKENS)
        self._gateway = self._histogram("gateway_seconds", "Of an answered request, outside the engine.", GATEWAY)
        self._barrier = self._histogram("barrier_wait_seconds", "From the median candidate to the last.", first)
        self._value = self._histogram("value_seconds", "Of one candidate's judging.", first)

    def answered(self, seconds: float, choices: int, answered: Answered) -> None:
        """An answer was found for a client that still waits."""
        self._outcomes.labels("degraded" if answered.result.degraded else "answered").inc()
        self._whole.observe(seconds)
        self._n.observe(choices)
        self._gateway.observe(max(0.0, seconds - answered.result.seconds))
        for reply in returned(answered, choices):
            self._success.labels(reply.finish).inc()

    def ended(self, outcome: str) -> None:
        """A request ended without an answer: rejected, failed or cancelled."""
        self._outcomes.labels(outcome).inc()

    def hear(self, query: QueryRecord, inferences: list[InferenceRecord]) -> None:
        """A query is over: called by the loop, in a device's thread."""
        self._prompt.inc(query.prompt_tokens)
        self._generation.inc(query.total_tokens)
        if query.chosen is not None:
            self._barrier.observe(query.barrier_wait)
            self._asked_tokens.observe(query.prompt_tokens)
            self._given_tokens.observe(query.answer_tokens)
        for each in inferences:
            if not each.judge:
                self._candidates.labels(each.model, each.end).inc()
                self._preemptions.inc(each.preemptions)
            if each.end == "finished":
                self._finished(each)

    def _finished(self, each: InferenceRecord) -> None:
        if each.ended is None or each.scheduled is None:
            return
        if each.judge:
            self._value.observe(each.ended - each.submitted)
            return
        self._candidate.labels(each.model).observe(each.ended - each.submitted)
        self._queue.observe(each.scheduled - each.submitted)
        self._inference.observe(each.ended - each.scheduled)
        if each.first_token is not None:
            self._prefill.observe(each.first_token - each.scheduled)
            self._decode.observe(each.ended - each.first_token)
            if each.new_tokens > 1:
                self._token.observe((each.ended - each.first_token) / (each.new_tokens - 1))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"octavo_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"octavo_{name}", what, labels, buckets=buckets, registry=self.registry)


class Labelled(Collector):
    """The same, with the two labels that vLLM's dashboards select by; a server is one model and one engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            both = {"model_name": ROOT, "engine": "0"}
            metric.samples = [sample._replace(labels=both | dict(sample.labels)) for sample in metric.samples]
            yield metric


class Gauges(Collector):
    """What is so at the moment of the scrape."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        lanes, admission = self._desk.octavo.loop.lanes, self._desk.admission
        queues = {model: queue for lane in lanes for model, queue in lane.schedulers.items() if model in self._served}
        waiting = sum(len(prompt.jobs) for queue in queues.values() for prompt in tuple(queue.waiting))
        yield _gauge("num_requests_waiting", "Inferences that wait for memory or a row.", waiting)
        running = max(0, sum(len(queue) for queue in queues.values()) - waiting)
        yield _gauge("num_requests_running", "Inferences that are computed.", running)
        yield _gauge("queued_queries", "Queries taken in and not over.", admission.queries)
        yield _gauge("queued_reqs", "Candidates counted against max_num_queued_reqs.", admission.candidates)
        yield _gauge("queued_tokens", "Tokens counted against max_num_queued_tokens.", admission.tokens)
        yield _gauge("models_dead", "Models that died and answer no more.", len(self._desk.octavo.loop.dead))
        usage = GaugeMetricFamily("octavo_kv_cache_usage_perc", "Share of KV blocks in use.", labels=["expert"])
        for model, queue in queues.items():
            usage.add_metric([model], queue.kv.used / queue.kv.capacity)
        yield usage

    @property
    def _served(self) -> set[str]:
        ensemble = self._desk.octavo.ensemble
        return {*ensemble.experts, *([ensemble.value_model] if ensemble.value_model else [])}


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"octavo_{name}", what, value=value)
