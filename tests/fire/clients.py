"""Clients that nobody here wrote, against a real server: the `openai` client, guidellm and AIPerf.

    python tests/fire/clients.py BUNDLE [--openai PYTHON] [--guidellm PROGRAM] [--aiperf PROGRAM] [--queries 40]

Each lives in an environment of its own; what is not given is not run. The tools read the tokenizer in the bundle, so
that none of them needs a network. The figures that they report are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from serving import serving

KEY = "a-key-for-this-check"
PROMPT, ANSWER, STREAMS = 20, 8, 2  # tokens, tokens, queries at once


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # guidellm wants it said; AIPerf then finds no folder


def run(*command: str, offline: bool = False) -> str:
    """What a program printed. Raises SystemExit where it failed."""
    kept = {key: value for key, value in os.environ.items() if key not in OFFLINE}
    environment = kept | dict.fromkeys(OFFLINE if offline else (), "1")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def with_openai(python: str, bundle: Path) -> str:
    with serving(bundle, api_keys=[KEY], max_num_queued_reqs=160) as url:
        return run(python, str(Path(__file__).with_name("openai_client.py")), url, KEY)


def with_guidellm(program: str, bundle: Path, queries: int) -> str:
    with serving(bundle, deadline=600) as url, tempfile.TemporaryDirectory() as folder:
        run(
            *(program, "run", "--disable-console-interactive"),
            *("--backend", f"kind=openai_http,target={url}"),
            *("--tokenizer", f"kind=huggingface_auto,model={tokenizer(bundle)}"),
            *("--profile", f"kind=concurrent,streams={STREAMS}"),
            *("--constraint", f"kind=max_requests,count={queries}"),
            *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={ANSWER}"),
            *("--output", f"kind=json,path={folder}"),
            offline=True,
        )
        found = json.loads((Path(folder) / "benchmarks.json").read_text())
    metrics = found["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]
    mean = {name: metrics[name]["successful"]["mean"] for name in ("output_token_count", "time_to_first_token_ms")}
    median = metrics["request_latency"]["successful"]["median"] * 1e3
    judge("guidellm", totals["successful"] == queries, totals)
    judge("guidellm", mean["output_token_count"] == ANSWER, mean)
    first = f"first token {mean['time_to_first_token_ms']:.0f} ms mean"
    return f"{run(program, '--version')}: {queries} of {queries}, {ANSWER} tokens each, {median:.0f} ms median, {first}"


def with_aiperf(program: str, bundle: Path, queries: int) -> str:
    with serving(bundle, deadline=600) as url, tempfile.TemporaryDirectory() as folder:
        run(
            *(program, "profile", "--model", "octavo", "--url", url, "--endpoint-type", "chat", "--streaming"),
            *("--tokenizer", str(tokenizer(bundle)), "--ui", "none", "--output-artifact-dir", folder),
            *("--request-count", str(queries), "--concurrency", str(STREAMS)),
            *("--isl", str(PROMPT), "--osl", str(ANSWER)),
            *("--extra-inputs", "ignore_eos:true", "--extra-inputs", f"min_tokens:{ANSWER}"),
        )
        lines = (Path(folder) / "profile_export.jsonl").read_text().splitlines()
        found = json.loads((Path(folder) / "profile_export_aiperf.json").read_text())
    records = [json.loads(line) for line in lines]
    errors = [record["error"] for record in records if record.get("error")]
    spent = {record["metrics"]["usage_completion_tokens"]["value"] for record in records}
    judge("aiperf", len(records) == queries and not errors, errors[:3])
    judge("aiperf", spent == {ANSWER}, spent)
    latency, first = (found[name] for name in ("request_latency", "time_to_first_token"))
    times = f"{latency['p50']:.0f} ms median, first token {first['avg']:.0f} ms mean"
    return f"aiperf {run(program, '--version')}: {queries} of {queries}, {ANSWER} tokens each, {times}"


def tokenizer(bundle: Path) -> Path:
    """A folder with the bundle's tokenizer."""
    return next(path.parent for path in sorted(bundle.resolve().glob("*/tokenizer.json")))


def judge(client: str, right: bool, found: object) -> None:
    if not right:
        raise SystemExit(f"{client}: not as expected: {found}")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--openai", metavar="PYTHON")
    parser.add_argument("--guidellm", metavar="PROGRAM")
    parser.add_argument("--aiperf", metavar="PROGRAM")
    parser.add_argument("--queries", type=int, default=40)
    given = parser.parse_args(arguments)
    if given.openai:
        print(with_openai(given.openai, given.bundle), flush=True)
    if given.guidellm:
        print(with_guidellm(given.guidellm, given.bundle, given.queries), flush=True)
    if given.aiperf:
        print(with_aiperf(given.aiperf, given.bundle, given.queries), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
