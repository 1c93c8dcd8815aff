"""What is refused: wrong fields, wrong names, wrong bytes. Each gets an error in OpenAI's JSON, and nothing is held."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpx
import pytest

CHAT = {"model": "octavo", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 4}
JSON = {"content-type": "application/json"}


def post(server: Any, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else None
    return httpx.post(server.url + path, json=None if raw else body, content=raw, headers=JSON | headers, timeout=30)


def problem(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


FIELDS = [
    ("logprobs", 2),
    ("top_logprobs", 2),
    ("logit_bias", {"1": 5}),
    ("frequency_penalty", 0.5),
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("functions", [{"name": "f"}]),
    ("tool_choice", "required"),
    ("parallel_tool_calls", 1),
    ("response_format", {"type": "grammar"}),
    ("response_format", {"type": "json_schema"}),
    ("response_format", {"type": "json_schema", "json_schema": {}}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nothing"}}}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}),
    ("store", True),
    ("store", 0),
    ("frequency_penalty", False),
    ("service_tier", "flex"),
    ("modalities", ["audio"]),
    ("reasoning_effort", "high"),
    ("verbosity", "low"),
    ("prediction", {"type": "content", "content": "abc"}),
    ("web_search_options", {}),
    ("audio", {"voice": "ash", "format": "mp3"}),
    ("prompt_cache_retention", "24h"),
    ("min_tokens", 5),
    ("min_tokens", -1),
    ("metadata", {"a": 1}),
    ("user", 3),
    ("n", 0),
    ("n", 5),
    ("n", True),
    ("n", 1.0),
    ("n", "1"),
    ("best_of", 3),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 10**400),
    ("max_tokens", 95),
    ("max_completion_tokens", 5),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "hot"),
    ("top_p", 0),
    ("top_k", 0),
    ("seed", 1 << 63),
    ("seed", 1.5),
    ("stop", ""),
    ("stop", ["a"] * 17),
    ("stream", "yes"),
    ("stream_options", {"include_usage": True}),
    ("messages", []),
    ("messages", "abc"),
    ("messages", [{"role": "tool", "content": "abc"}]),
    ("messages", [{"role": "user", "content": None}]),
    ("messages", [{"role": "user", "content": "abc", "name": "me"}]),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
    ("messages", [{"role": "user", "content": "a" * 200}]),
    ("messages", [{"role": "user", "content": "a"}] * 1025),
]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_that_cannot_be_honoured_is_refused(server: Any, field: str, value: Any) -> None:
    answer = post(server, CHAT | {field: value})
    assert answer.status_code == 400, answer.text
    assert field in problem(answer)["message"] or problem(answer)["param"] == field
    assert problem(answer)["type"] == "invalid_request_error"
    assert server.wait_until_empty()


@pytest.mark.parametrize("field", ["echo", "suffix", "top_logprobs", "messages"])
def test_completions_refuse_what_they_do_not_do(server: Any, field: str) -> None:
    answer = post(server, {"model": "octavo", "prompt": "abc", field: 1}, "/v1/completions")
    assert (answer.status_code, problem(answer)["param"]) == (400, field)


@pytest.mark.parametrize("prompt", ["", [], [[]], ["a", "b"], [[1], [2]], [1.5], [-1], [1, "a"], [1 << 40], [64], {}])
def test_a_prompt_is_one_text_or_its_tokens(server: Any, prompt: Any) -> None:
    answer = post(server, {"model": "octavo", "prompt": prompt}, "/v1/completions")
    assert answer.status_code == 400, answer.text
    assert problem(answer)["message"].startswith("prompt: ")
    assert problem(answer)["param"] in ("prompt", None)


PAIRS = [
    {"min_tokens": 2, "stop": "a"},
    {"ignore_eos": True, "response_format": {"type": "json_object"}},
    {"min_tokens": 2, "response_format": {"type": "json_object"}},
    {"max_tokens": 4, "max_completion_tokens": 5},
    {"top_logprobs": 2, "logprobs": False},
]


@pytest.mark.parametrize("fields", PAIRS, ids=lambda fields: " with ".join(fields))
def test_fields_that_contradict_each_other_are_refused(server: Any, fields: dict[str, Any]) -> None:
    answer = post(server, CHAT | fields)
    assert answer.status_code == 400, answer.text
    assert any(field in problem(answer)["message"] for field in fields)


def test_every_field_of_openai_is_known(server: Any) -> None:
    """As openai-python 2.x types them; null is the same as absent, so every name must be known."""
    chat = """audio best_of frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
        max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
        prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
        stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options"""
    texts = """best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream
        stream_options suffix temperature top_p user"""
    assert post(server, CHAT | dict.fromkeys(chat.split())).status_code == 200
    body = {"model": "octavo", "prompt": "abc"} | dict.fromkeys(texts.split())
    assert post(server, body, "/v1/completions").status_code == 200


HARMLESS = {
    "user": "me",
    "metadata": {"team": "a"},
    "store": False,
    "safety_identifier": "me",
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "modalities": ["text"],
    "tools": [],
    "functions": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "verbosity": "medium",
    "logprobs": False,
    "top_logprobs": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
}


def test_a_clients_own_labels_change_no_answer(server: Any) -> None:
    plain = post(server, CHAT | {"seed": 1}).json()["choices"]
    assert post(server, CHAT | {"seed": 1} | HARMLESS).json()["choices"] == plain


def test_null_is_the_same_as_absent(server: Any) -> None:
    nothing = dict.fromkeys(["n", "best_of", "stop", "temperature", "top_p", "logprobs", "stream_options", "seed"])
    assert post(server, CHAT | nothing).status_code == 200


BODIES = [
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe{}",
    b'{"model":"octavo","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"model":"octavo","messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
    b'{"model":"octavo","messages":[{"role":"user","content":"a"}],"temperature":NaN}',
    b'{"model":"octavo","messages":[{"role":"user","content":"a"}],"temperature":1e400}',
    b'{"model":"octavo","messages":[{"role":"user","content":"a"}],"top_p":-Infinity}',
    b'{"model":"octavo","messages":[{"role":"user","content":"a"}],"n":1e400}',
    b'{"model":"octavo","messages":' + b"[" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_not_proper_json_is_refused_and_not_repeated(server: Any, body: bytes) -> None:
    answer = post(server, body)
    assert answer.status_code == 400
    assert len(answer.content) < 400


def test_names_that_are_not_served_are_not_found(server: Any) -> None:
    for name in ("gpt-4", "octavo/filtered", "octavo/expert-9", "octavo/"):
        assert problem(post(server, CHAT | {"model": name}))["code"] == "model_not_found"
    assert httpx.get(f"{server.url}/v1/models/gpt-4").status_code == 404
    assert httpx.get(f"{server.url}/v1/nothing").status_code == 404
    assert httpx.get(f"{server.url}/v1/completions").status_code == 405


def test_a_web_page_cannot_ask_in_a_users_name(server: Any) -> None:
    plain = httpx.post(f"{server.url}/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    assert post(server, CHAT, host="evil.example").status_code == 403
    assert post(server, CHAT, host=f"localhost:{server.port}").status_code == 200
    assert post(server, CHAT, host=f"[::1]:{server.port}").status_code == 200


def talk(server: Any, *sent: bytes, pause: float = 0.0) -> bytes:
    """What the server says on a raw connection before it closes it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as line:
        heard = b""
        try:
            for part in sent:
                line.sendall(part)
                time.sleep(pause)
            while part := line.recv(65536):
                heard += part
        except (TimeoutError, ConnectionError):
            pass
        return heard


HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
RAW = [
    (b"\x00\x01\x02\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 403),  # no host, so not known to be this machine
    (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no host
    (HEAD + b"content-length: -1\r\n\r\n", 400),
    (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
    (HEAD + b"content-length: " + b"9" * 30 + b"\r\n\r\n", 400),
    (HEAD + b"content-length: 99999999\r\n\r\n", 413),
    (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    (HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"400\r\n" + b"a" * 1024 + b"\r\n" + b"0" * 30 + b"1\r\n", 400),
    (HEAD + b"x: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    (HEAD + b"x: a\r\n" * 20_000 + b"\r\n", 431),
    (HEAD + b"x\r\n y: folded\r\n\r\n", 400),
    (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
]


@pytest.mark.parametrize(("sent", "status"), RAW, ids=range(len(RAW)))
def test_bytes_that_are_no_proper_request_are_refused(server: Any, sent: bytes, status: int) -> None:
    heard = talk(server, sent)
    got = int(heard.split(b" ", 2)[1])
    assert got == status or (got, status) == (400, 431)  # a long head that comes in parts is not read to its end
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_whoever_sends_too_slowly_is_not_waited_for(serve: Any) -> None:
    with serve(read_timeout=0.3) as up:
        start = time.monotonic()
        assert talk(up, b"POST /v1/comp") == b""
        assert b" 408 " in talk(up, HEAD + b"content-length: 100\r\n\r\n{")
        assert talk(up) == b""
        assert time.monotonic() - start < 4


def test_a_long_body_is_refused_while_it_is_sent(serve: Any) -> None:
    with serve(max_body=2048) as up:
        assert post(up, CHAT | {"stop": "a" * 3000}).status_code == 413
        chunk = b"800\r\n" + b"a" * 2048 + b"\r\n"
        assert b" 413 " in talk(up, HEAD + b"transfer-encoding: chunked\r\n\r\n", chunk, chunk, pause=0.05)


ODD = [
    ({"content-encoding": "gzip"}, 415, "content_encoding"),
    ({"content-encoding": "identity"}, 200, None),
    ({"content-type": "application/json; charset=iso-8859-1"}, 415, "content_type"),
    ({"content-type": 'application/json; charset="UTF-8"'}, 200, None),
]


@pytest.mark.parametrize(("headers", "status", "code"), ODD)
def test_a_body_in_a_form_that_is_not_read_is_refused_by_name(
    server: Any, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = post(server, CHAT, **headers)
    assert answer.status_code == status, answer.text
    assert code is None or problem(answer)["code"] == code


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/models/", "/health/", "/v1", "/", "//v1/models"])
def test_a_path_that_is_not_there_is_no_redirect(server: Any, path: str) -> None:
    answer = httpx.get(server.url + path)
    assert answer.status_code == 404
    assert problem(answer)["code"] in ("path", "model_not_found")


def test_another_method_is_told_which_one(server: Any) -> None:
    answer = httpx.options(server.url + "/v1/chat/completions", headers={"origin": "http://elsewhere"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "POST" in problem(answer)["message"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("elsewhere.example", 403)])
def test_a_whole_url_in_the_request_line_is_understood_and_its_host_counts(server: Any, host: str, status: int) -> None:
    line = f"GET http://{host}/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(line)
        assert raw.recv(100).split()[1] == str(status).encode()


def test_what_is_no_http_gets_an_error_as_others_are(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        said = b"".join(iter(lambda: raw.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b'"code": "no_http"' in said
