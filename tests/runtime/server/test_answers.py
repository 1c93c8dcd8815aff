"""Answers in OpenAI's shapes: whole and streamed, of the ensemble, a policy or one expert."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

PROMPT = {"messages": [{"role": "user", "content": "abc 123:"}]}


def ask(server: Any, path: str = "chat/completions", **body: Any) -> httpx.Response:
    if path == "chat/completions":
        body = PROMPT | body
    return httpx.post(f"{server.url}/v1/{path}", json={"model": "octavo", "seed": 7} | body, timeout=30)


def events(server: Any, path: str = "chat/completions", **body: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The data of a stream and its comments; it must end with [DONE]."""
    lines = ask(server, path, stream=True, **body).text.split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(each) for each in data], [line for line in lines if line.startswith(":")]


def test_the_ensemble_answers_as_it_does_in_process(server: Any) -> None:
    got = ask(server, max_tokens=12).json()
    result = server.octavo.ask(PROMPT["messages"], seed=7, max_new_tokens=12)
    chosen = result.chosen
    assert got["object"] == "chat.completion"
    assert got["choices"][0]["message"] == {"role": "assistant", "content": result.text, "refusal": None}
    assert got["choices"][0]["finish_reason"] == chosen.finish
    assert got["usage"] == {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": chosen.new_tokens,
        "total_tokens": result.prompt_tokens + chosen.new_tokens,
    }
    assert got["octavo"] == {
        "candidates": 4,
        "total_tokens": result.new_tokens,
        "chosen_expert": chosen.expert,
        "value": chosen.value,
        "degraded": False,
        "reason": "highest value",
        "seed": 7,
        "fallback": None,
    }


def test_without_a_seed_the_one_that_was_drawn_gives_the_answer_again(server: Any) -> None:
    first = ask(server, seed=None, max_tokens=12).json()
    again = ask(server, seed=first["octavo"]["seed"], max_tokens=12).json()
    assert again["choices"] == first["choices"]


@pytest.mark.parametrize("name", ["octavo", "octavo/majority", "octavo/expert-1", "octavo/single", "octavo/best_of_n"])
def test_every_model_that_is_listed_answers(server: Any, name: str) -> None:
    cards = {card["id"]: card for card in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert cards[name] == httpx.get(f"{server.url}/v1/models/{name}").json()
    got = ask(server, model=name, max_tokens=6).json()
    assert got["model"] == name
    assert got["octavo"]["candidates"] == cards[name]["octavo"]["candidates"]
    if name == "octavo/expert-1":
        assert got["octavo"]["chosen_expert"] == "expert-1"


@pytest.mark.parametrize("model", ["octavo", "octavo/expert-0"])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_says_what_the_whole_answer_says(server: Any, path: str, model: str) -> None:
    body = {"model": model, "max_tokens": 12} | ({"prompt": "abc"} if path == "completions" else {})
    whole = ask(server, path, **body).json()
    chunks, comments = events(server, path, stream_options={"include_usage": True}, **body)
    *spoken, last = chunks
    choices = [chunk["choices"][0] for chunk in spoken]
    parts = [choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices]
    choice = whole["choices"][0]
    assert "".join(parts) == (choice["message"]["content"] if "message" in choice else choice["text"])
    assert choices[-1]["finish_reason"] == choice["finish_reason"]
    assert spoken[-1]["octavo"] == whole["octavo"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert comments


def test_usage_comes_with_every_chunk_where_that_is_asked_for(server: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks, _ = events(server, model="octavo/expert-0", stream_options=options, max_tokens=8)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == ask(server, model="octavo/expert-0", max_tokens=8).json()["usage"]["completion_tokens"]


def test_the_tokens_of_one_expert_come_as_they_are_written(server: Any) -> None:
    chunks, _ = events(server, model="octavo/expert-0", max_tokens=12)
    assert len(chunks) > 4  # its opening, a chunk per token, its end


def test_n_gives_the_best_candidates_first(server: Any) -> None:
    got = ask(server, n=3, max_tokens=6).json()
    result = server.octavo.ask(PROMPT["messages"], seed=7, max_new_tokens=6)
    best = sorted(result.candidates, key=lambda reply: -reply.value)[:3]
    assert [choice["message"]["content"] for choice in got["choices"]] == [reply.text for reply in best]
    assert got["usage"]["completion_tokens"] == sum(reply.new_tokens for reply in best)
    chunks, _ = events(server, n=3, max_tokens=6)
    assert {chunk["choices"][0]["index"] for chunk in chunks} == {0, 1, 2}


def test_one_expert_is_asked_best_of_times(server: Any) -> None:
    got = ask(server, model="octavo/expert-1", n=2, best_of=5, max_tokens=4).json()
    assert got["octavo"]["candidates"] == 5
    assert len(got["choices"]) == 2
    assert got["octavo"]["chosen_expert"] == "expert-1"


def test_stop_and_sampling_are_honoured(server: Any) -> None:
    free = ask(server, model="octavo/expert-0", temperature=0, max_tokens=20).json()["choices"][0]
    text = free["message"]["content"]
    stop = text[4:6]
    cut = ask(server, model="octavo/expert-0", temperature=0, max_tokens=20, stop=[stop]).json()["choices"][0]
    assert cut["message"]["content"] == text[: text.index(stop)]
    assert cut["finish_reason"] == "stop"
    narrow = {"model": "octavo/expert-0", "max_tokens": 20}
    assert ask(server, top_k=1, temperature=1.5, **narrow).json()["choices"][0]["message"]["content"] == text
    assert ask(server, top_p=1e-6, seed=3, **narrow).json()["choices"][0]["message"]["content"] == text


def test_a_budget_that_is_used_up_is_told_apart_from_an_end(server: Any) -> None:
    got = ask(server, model="octavo/expert-0", max_completion_tokens=2, temperature=0).json()
    assert got["usage"]["completion_tokens"] == 2
    assert got["choices"][0]["finish_reason"] == "length"


def test_parts_of_a_message_are_one_text(server: Any) -> None:
    parts = [{"type": "text", "text": "abc "}, {"type": "text", "text": "123:"}]
    got = ask(server, messages=[{"role": "user", "content": parts}], max_tokens=6).json()
    assert got["choices"] == ask(server, max_tokens=6).json()["choices"]
