"""What an answer must look like and what is told of it: JSON of a schema, log-probabilities, lengths."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
import jsonschema
import pytest

CHAT = {"model": "octavo", "messages": [{"role": "user", "content": "abc 123:"}], "seed": 7}
SCHEMA = {
    "type": "object",
    "properties": {"side": {"enum": ["left", "right"]}, "turns": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["side", "turns"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "move", "strict": True, "schema": SCHEMA}}


def ask(server: Any, path: str = "chat/completions", **body: Any) -> httpx.Response:
    base = CHAT if path == "chat/completions" else {"model": "octavo", "prompt": "abc 123:", "seed": 7}
    return httpx.post(f"{server.url}/v1/{path}", json=base | body, timeout=30)


def chunks(server: Any, path: str = "chat/completions", **body: Any) -> list[dict[str, Any]]:
    lines = ask(server, path, stream=True, **body).text.split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(each)["choices"][0] for each in data]


def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)


@pytest.mark.parametrize("model", ["octavo", "octavo/majority", "octavo/expert-1", "octavo/early_exit"])
def test_every_choice_keeps_to_the_schema_that_was_sent(server: Any, model: str) -> None:
    pytest.importorskip("llguidance")
    n = {"n": 4} if model in ("octavo", "octavo/majority") else {}
    got = ask(server, model=model, response_format=FORMAT, max_tokens=50, **n).json()
    assert len(got["choices"]) == n.get("n", 1)
    for choice in got["choices"]:
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    said = chunks(server, model=model, response_format=FORMAT, max_tokens=50)
    jsonschema.validate(json.loads("".join(each["delta"].get("content", "") for each in said)), SCHEMA)


def test_a_json_object_begins_as_one(server: Any) -> None:
    pytest.importorskip("llguidance")
    got = ask(server, "completions", response_format={"type": "json_object"}, max_tokens=40).json()["choices"][0]
    assert got["text"].startswith("{")
    if got["finish_reason"] == "stop":
        assert isinstance(json.loads(got["text"]), dict)


def test_without_the_extra_it_is_named(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        without_extra(patch)
        refused = ask(server, response_format=FORMAT)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "response_format")
    assert "octavo[grammar]" in error["message"]
    assert server.wait_until_empty()


def test_a_schema_that_is_a_bomb_costs_a_refusal(server: Any) -> None:
    pytest.importorskip("llguidance")
    deep: Any = {"type": "string"}
    for _ in range(180):
        deep = {"type": "array", "items": deep}
    wide = {"enum": [f"{n}{'x' * 40}" for n in range(20_000)]}
    regex = {"type": "string", "pattern": "((a|b|c){1,200}d?){1,200}$" * 40}
    for schema in (deep, wide, regex):
        sent = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        assert ask(server, response_format=sent, max_tokens=2).status_code in (200, 400, 500)
    assert ask(server, max_tokens=2).status_code == 200
    assert server.wait_until_empty()


@pytest.mark.parametrize("model", ["octavo", "octavo/expert-0"])
def test_chats_tell_how_likely_each_token_was(server: Any, model: str) -> None:
    body = {"model": model, "max_tokens": 12, "logprobs": True, "top_logprobs": 3, "n": 2}
    choices = ask(server, **body).json()["choices"]
    asked = {"policy": "best_of_n", "settings": {"expert": "expert-0", "samples": 2}} if model != "octavo" else {}
    result = server.octavo.ask(CHAT["messages"], seed=7, max_new_tokens=12, top_logprobs=3, **asked)
    pieces = {reply.text: reply.pieces for reply in result.candidates}
    for choice in choices:
        text, content = choice["message"]["content"], choice["logprobs"]["content"]
        assert "".join(each["token"] for each in content) == text
        assert [each["logprob"] for each in content] == pytest.approx([p.logprob for p in pieces[text]], abs=1e-5)
        for each in content:
            assert bytes(each["bytes"]).decode() == each["token"]
            assert len(each["top_logprobs"]) == 3
            assert each["logprob"] <= each["top_logprobs"][0]["logprob"] + 1e-6 <= 1e-6
    for index, choice in enumerate(choices):
        said = [each for each in chunks(server, **body) if each["index"] == index]
        told = [token for each in said if each["logprobs"] for token in each["logprobs"]["content"]]
        content = choice["logprobs"]["content"]
        assert [each["token"] for each in told] == [each["token"] for each in content]
        assert [each["logprob"] for each in told] == pytest.approx([each["logprob"] for each in content], abs=1e-4)
        assert "".join(each["delta"].get("content", "") for each in said) == choice["message"]["content"]


def test_completions_tell_it_in_lists(server: Any) -> None:
    body = {"logprobs": 2, "max_tokens": 10, "stop": ["7"]}
    choice = ask(server, "completions", **body).json()["choices"][0]
    lists = choice["logprobs"]
    assert "".join(lists["tokens"])[: len(choice["text"])] == choice["text"]
    assert lists["text_offset"] == [sum(map(len, lists["tokens"][:at])) for at in range(len(lists["tokens"]))]
    for token, logprob, likely in zip(lists["tokens"], lists["token_logprobs"], lists["top_logprobs"], strict=True):
        assert likely[token] == pytest.approx(logprob)
        assert 1 <= len(likely) <= 3
    said = [each for each in chunks(server, "completions", **body) if each["logprobs"]]
    assert [offset for each in said for offset in each["logprobs"]["text_offset"]] == lists["text_offset"]
    assert "".join(each["text"] for each in said) == choice["text"]


def test_without_top_logprobs_only_the_tokens_themselves_are_told(server: Any) -> None:
    content = ask(server, logprobs=True, max_tokens=6).json()["choices"][0]["logprobs"]["content"]
    assert all(each["top_logprobs"] == [] for each in content)
    assert ask(server, max_tokens=6).json()["choices"][0]["logprobs"] is None


def test_end_tokens_end_nothing_where_that_is_asked_for(server: Any) -> None:
    for body in ({"ignore_eos": True, "max_tokens": 60}, {"min_tokens": 60, "max_tokens": 60}):
        for seed in range(4):
            got = ask(server, model="octavo/expert-0", seed=seed, temperature=2, **body).json()
            assert got["usage"]["completion_tokens"] == 60
            assert got["choices"][0]["finish_reason"] == "length"


def test_a_prompt_may_be_its_tokens(server: Any) -> None:
    ids = server.octavo.vocabulary.encode("abc").tolist()
    plain = ask(server, "completions", prompt="abc", max_tokens=8).json()["choices"]
    for prompt in (ids, [ids], ["abc"]):
        assert ask(server, "completions", prompt=prompt, max_tokens=8).json()["choices"] == plain


def test_an_answer_may_be_sent_back_as_it_came(server: Any) -> None:
    said = ask(server, max_tokens=6).json()["choices"][0]["message"]
    told = said | {"annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    again = ask(server, messages=[*CHAT["messages"], told, {"role": "user", "content": "and"}], max_tokens=6)
    assert again.status_code == 200, again.text
