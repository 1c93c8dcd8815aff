"""Reads a recording, by what is in the file: LLMServingSim, vLLM's and SGLang's bench, GuideLLM, AIPerf, or a table.

A request that failed or was cancelled is left out, and counted in the notes. A file without per-request times (a load
that is to be replayed, a summary) is refused with what to do instead.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from statistics import median
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.simulator.recordings.cached import with_cached
from octavo.simulator.recordings.request import Engine, Request, Served, served

FORMATS = {
    "LLMServingSim": "a folder with requests.jsonl and meta.json, or requests.jsonl",
    "vLLM": "the JSON of `vllm bench serve --save-result --save-detailed`",
    "SGLang": "the JSON Lines of `python -m sglang.bench_serving --output-details`, of one run",
    "GuideLLM": "benchmarks.json, of one benchmark",
    "AIPerf": "profile_export.jsonl",
    "table": "CSV or JSON Lines: arrival, prompt_tokens, answer_tokens, first_token, ended (seconds on one clock), "
    "and, where known, cached_tokens",
}
_ONE = {"queued_ts", "arrival", "metadata", "timestamp"}
"""Keys by which a file of one line is told from a document,"""
_WHOLE = {"input_lens", "benchmarks", "experiments"}
"""which has one of these."""
SLOWEST = 5.0
"""Seconds for a token of an answer: no server takes that long, and what says so is in another unit."""
EXPERT_PARALLEL = (
    "the server's engines shared out the experts of each layer (expert parallelism) and stepped together; simulated "
    "are engines of their own that hold all experts"
)
NANOSECOND = 1e-9
MILLISECOND = 1e-3
Row = Mapping[str, Any]
Parse = Callable[[Row], Request | None]


def read_served(path: Path) -> Served:
    """Raises ConfigError naming the file, the record, and what is wrong with it."""
    found = path / "requests.jsonl" if path.is_dir() else path
    if not found.is_file():
        raise ConfigError(f"{found}: no such recording; there may be {_forms()}")
    try:
        text = found.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{found}: cannot be read as text ({error})") from None
    rows, whole = _rows(found, text)
    if len(rows) > 1 and "input_lens" in rows[0]:
        raise ConfigError(f"{found}: {len(rows)} runs, one a line; keep one of them in a file of its own")
    if whole is not None and "input_lens" in whole:
        return _requests(found, list(_bench_rows(found, whole)), _bench, Engine(model=whole.get("model_id")))
    if whole is not None and "benchmarks" in whole:
        return _guidellm(found, whole)
    if whole is not None and "experiments" in whole:
        raise ConfigError(f"{found}: GenAI-Perf notes no tokens of a request; record with AIPerf: {FORMATS['AIPerf']}")
    if whole is not None or not rows:
        raise ConfigError(f"{found}: no requests with times; there may be {_forms()}")
    first = rows[0]
    if "queued_ts" in first:
        return _requests(
            found, rows, _llmservingsim, _engine(found.parent / "meta.json"), found.parent / "timeseries.csv"
        )
    if isinstance(first.get("metadata"), dict) and "metrics" in first:
        return _requests(found, rows, _aiperf, Engine())
    if "arrival" in first and "ended" in first:
        return _requests(found, rows, _table, Engine())
    if {"TIMESTAMP", "Timestamp", "timestamp", "hash_ids", "input_length"} & set(first):
        raise ConfigError(
            f"{found}: a load without the times of its answers, nothing to compare with; simulate it as "
            "workload.arrivals: {kind: trace, file: ..., format: ...}"
        )
    raise ConfigError(
        f"{found}: columns {', '.join(list(first)[:8])} are of no known recording; there may be {_forms()}"
    )


def _forms() -> str:
    return "; ".join(f"{name}: {what}" for name, what in FORMATS.items())


def _rows(path: Path, text: str) -> tuple[list[Row], Row | None]:
    """The lines of a table, or the one document of a JSON file."""
    if path.suffix.lower() == ".csv":
        return list(csv.DictReader(text.splitlines())), None
    try:
        data = json.loads(text)
    except ValueError:
        return _json_lines(path, text), None
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        return data, None
    if isinstance(data, dict):
        return ([], data) if _WHOLE & set(data) or not _ONE & set(data) else ([data], None)
    raise ConfigError(f"{path}: requests are mappings, one a line")


def _json_lines(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{path}:{number}: a request is a mapping, got {type(row).__name__}")
        rows.append(row)
    return rows


def _requests(path: Path, rows: Sequence[Row], parse: Parse, engine: Engine, series: Path | None = None) -> Served:
    """All requests that were answered; a time `series` may say how much of their prompts was cached."""
    kept, failed = [], 0
    for number, row in enumerate(rows, 1):
        try:
            request = parse(row)
        except KeyError as error:
            raise ConfigError(f"{path}: request {number}: it has no {error.args[0]}") from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: request {number}: {error}") from None
        if request is None:
            failed += 1
        else:
            kept.append(request)
    if not kept:
        raise ConfigError(f"{path}: none of its {len(rows)} requests was answered")
    token = median((r.ended - (r.first_token or r.arrival)) / r.answer_tokens for r in kept)
    if token > SLOWEST:
        raise ConfigError(f"{path}: a token of an answer takes {token:.3g} s in the median; times are in seconds")
    notes = [f"{failed} of {len(rows)} requests failed or wrote nothing, and are left out"] if failed else []
    if any(request.first_token is None for request in kept):
        notes.append("not all requests have the time of their first token")
    if series:
        kept = with_cached(kept, series, engine.settings.get("block_size") or 16)
        if cached := sum(request.cached_tokens for request in kept):
            notes.append(
                f"{cached:,} prompt tokens were found in the cache, by the second; of which requests is guessed"
            )
    return served(str(path), kept, engine, tuple(notes))


def _table(row: Row) -> Request | None:
    tokens, first = (int(row["prompt_tokens"]), int(row["answer_tokens"])), row.get("first_token")
    if row["ended"] in (None, "") or not tokens[1]:
        return None
    return Request(
        float(row["arrival"]),
        *tokens,
        None if first in (None, "") else float(first),
        float(row["ended"]),
        int(row.get("cached_tokens") or 0),
    )


def _llmservingsim(row: Row) -> Request | None:
    """On the engine's own clock: from when it was queued."""
    tokens = int(row["input_toks"]), int(row["output_toks"])
    if row["last_token_ts"] is None or not tokens[1]:
        return None
    return Request(float(row["queued_ts"]), *tokens, float(row["first_token_ts"]), float(row["last_token_ts"]))


def _engine(path: Path) -> Engine:
    """What vLLM said of itself when it started."""
    if not path.is_file():
        return Engine()
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        asked, memory = meta.get("engine_kwargs") or {}, meta.get("kv_cache") or {}
        resolved = meta.get("resolved_config") or {}
        scheduler, cache = resolved.get("scheduler_config") or {}, resolved.get("cache_config") or {}
        device = (meta.get("hardware") or {}).get("device_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: not the meta.json of a recording ({error})") from None
    settings = {
        "max_num_seqs": scheduler.get("max_num_seqs", asked.get("max_num_seqs")),
        "max_num_batched_tokens": scheduler.get("max_num_batched_tokens", asked.get("max_num_batched_tokens")),
        "chunked_prefill": scheduler.get("enable_chunked_prefill"),
        "kv_blocks": memory.get("num_gpu_blocks", cache.get("num_gpu_blocks")),
        "block_size": memory.get("block_size", cache.get("block_size")),
        "prefix_caching": memory.get("enable_prefix_caching", cache.get("enable_prefix_caching")),
        "memory_utilization": memory.get("gpu_memory_utilization", cache.get("gpu_memory_utilization")),
        "precision": _precision(asked.get("dtype")),
        "kv_precision": _precision(asked.get("kv_cache_dtype")),
    }
    degrees = {"tensor_parallel": "tensor", "pipeline_parallel": "pipeline", "replicas": "data"}
    spread = {**(resolved.get("parallel_config") or {}), **asked}
    sizes = {key: spread.get(f"{name}_parallel_size") for key, name in degrees.items()}
    if settings["kv_blocks"] and sizes["replicas"]:
        settings["kv_blocks"] //= sizes["replicas"]  # vLLM adds up what its data-parallel engines have
    known = {key: value for key, value in settings.items() if value is not None}
    shared = spread.get("enable_expert_parallel") and (sizes["replicas"] or 1) * (sizes["tensor_parallel"] or 1) > 1
    notes = (EXPERT_PARALLEL,) if shared else ()
    return Engine(known, {key: size for key, size in sizes.items() if size}, meta.get("model"), device, notes)


def _precision(name: str | None) -> str | None:
    """What a scenario calls one of vLLM's types; None where the server chose by itself."""
    short = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}
    return short.get(str(name))


def _bench_rows(path: Path, whole: Row) -> Iterator[Row]:
    """One row a request of the columns that vLLM's bench and SGLang's write."""
    names = ("input_lens", "output_lens", "ttfts", "itls")
    if missing := [name for name in names if name not in whole]:
        raise ConfigError(f"{path}: it has no {missing[0]}; record with --save-detailed (SGLang: --output-details)")
    errors = whole.get("errors") or [""] * len(whole["input_lens"])
    columns = [*(whole[name] for name in names), errors]
    if len({len(column) for column in columns}) != 1:
        raise ConfigError(f"{path}: {', '.join(names)} and errors differ in length")
    starts = whole.get("start_times") or _starts(path, whole)
    yield from (dict(zip((*names, "error", "start"), row, strict=True)) for row in zip(*columns, starts, strict=True))


def _starts(path: Path, whole: Row) -> list[float]:
    """When requests were sent that were ready at once: as soon as `max_concurrency` allows, in their order."""
    if float(whole.get("request_rate") or 0) != float("inf"):
        raise ConfigError(
            f"{path}: it has no start_times, and requests that came at a rate came at unknown times; record with a "
            "vLLM that notes start_times, or with --request-rate inf and --max-concurrency"
        )
    latencies = [first + sum(gaps) for first, gaps in zip(whole["ttfts"], whole["itls"], strict=True)]
    free = [0.0] * int(whole.get("max_concurrency") or len(latencies))
    starts = []
    for latency in latencies:
        starts.append(heappop(free))
        heappush(free, starts[-1] + latency)
    return starts


def _bench(row: Row) -> Request | None:
    """On the client's clock. The gaps between tokens add up to the time from the first to the last."""
    if row["error"] or not row["output_lens"]:
        return None
    start, first = float(row["start"]), float(row["start"]) + float(row["ttfts"])
    return Request(start, int(row["input_lens"]), int(row["output_lens"]), first, first + sum(row["itls"]))


def _guidellm(path: Path, whole: Row) -> Served:
    """One benchmark; its requests carry other names since 0.4."""
    benchmarks = whole["benchmarks"]
    if len(benchmarks) != 1:
        raise ConfigError(f"{path}: {len(benchmarks)} benchmarks; keep one of them in a file of its own")
    requests = benchmarks[0].get("requests") or {}
    failed = [*(requests.get("errored") or []), *(requests.get("incomplete") or [])]
    rows = [*(requests.get("successful") or []), *({"failed": True} for _ in failed)]
    return _requests(path, rows, _guidellm_request, Engine())


def _guidellm_request(row: Row) -> Request | None:
    if row.get("failed"):
        return None
    start = row["request_start_time"] if "request_start_time" in row else row["start_time"]
    end = row["request_end_time"] if "request_end_time" in row else row["end_time"]
    wait = row.get("time_to_first_token_ms")
    first = row.get("first_token_time") if wait is None else start + wait * MILLISECOND
    return Request(float(start), int(row["prompt_tokens"]), int(row["output_tokens"]), first, float(end))


def _aiperf(row: Row) -> Request | None:
    """On the client's clock; tokens of reasoning are part of the output."""
    metrics, meta = row["metrics"], row["metadata"]
    if row.get("error") or meta.get("was_cancelled") or not metrics:
        return None
    start = meta["request_start_ns"] * NANOSECOND
    output = metrics.get("output_sequence_length") or metrics["output_token_count"]
    first = metrics.get("time_to_first_token")
    return Request(
        start,
        int(metrics["input_sequence_length"]["value"]),
        int(output["value"]),
        start + _seconds(first) if first else None,
        start + _seconds(metrics["request_latency"]),
    )


def _seconds(metric: Row) -> float:
    units = {"ms": MILLISECOND, "s": 1.0, "sec": 1.0, "us": 1e-6, "ns": NANOSECOND}
    if metric["unit"] not in units:
        raise ValueError(f"unit {metric['unit']!r} of a time; there are {', '.join(units)}")
    return float(metric["value"]) * units[metric["unit"]]
