"""Clients that leave, more work than fits, models that die, deadlines: no place leaks, and the next query is right."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

BODY = {"model": "octavo", "messages": [{"role": "user", "content": "abc 123:"}], "seed": 3, "max_tokens": 60}
ASK = "/v1/chat/completions"
Slow = Callable[[float], None]


@pytest.fixture
def slow(octavo: Any, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """slow(seconds): every step of every model takes at least so long."""

    def make(seconds: float) -> None:
        for lane in octavo.loop.lanes:
            for engine in lane.engines.values():
                run = type(engine).run.__get__(engine)
                monkeypatch.setattr(
                    engine, "run", lambda step, run=run: (time.sleep(seconds), run(step))[1], raising=False
                )

    return make


@pytest.fixture(scope="module")
def right(server: Any) -> Any:
    """What a query gets that nothing disturbs."""
    return httpx.post(server.url + ASK, json=BODY, timeout=30).json()["choices"]


def request(body: dict[str, Any], length: int | None = None) -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {ASK} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}"
    return (head.encode() + b"\r\n\r\n" + raw)[:length]


LEAVING = {
    "in the head": (BODY, 30, b"", 0.0),
    "in the body": (BODY, -20, b"", 0.05),
    "at once": (BODY, None, b"", 0.0),
    "while the candidates are written": (BODY, None, b"", 0.2),
    "in a stream, before the answer": (BODY | {"stream": True}, None, b": ", 0.1),
    "in a stream, between tokens": (BODY | {"stream": True, "model": "octavo/expert-0"}, None, b'"content":"', 0.1),
}


@pytest.mark.parametrize("point", LEAVING)
def test_a_client_that_leaves_takes_all_its_candidates_along(server: Any, right: Any, slow: Slow, point: str) -> None:
    body, length, heard, wait = LEAVING[point]
    slow(0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as line:
        line.sendall(request(body, length))
        seen = b""
        while heard not in seen:
            seen += line.recv(65536)
        time.sleep(wait)
    assert server.wait_until_empty(1.5)
    slow(0)
    assert httpx.post(server.url + ASK, json=BODY, timeout=30).json()["choices"] == right


def test_work_that_nobody_waits_for_is_not_finished(server: Any, octavo: Any, slow: Slow) -> None:
    over: list[Any] = []
    octavo.loop.recorder.listeners.append(lambda query, inferences: over.append((query, inferences)))
    slow(0.05)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + ASK, json=BODY, timeout=0.3)
    assert server.wait_until_empty(1.5)
    octavo.loop.recorder.listeners.pop()
    [(query, inferences)] = over
    assert query.outcome == "failed"
    assert {each.end for each in inferences} == {"withdrawn"}


async def many(url: str, count: int, **body: Any) -> list[tuple[httpx.Response, float]]:
    """Answers to that many queries at once, and the seconds that each took."""
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as client:

        async def one(number: int) -> tuple[httpx.Response, float]:
            start = time.perf_counter()
            answer = await client.post(url + ASK, json=BODY | {"seed": number} | body)
            return answer, time.perf_counter() - start

        return await asyncio.gather(*map(one, range(count)))


def test_what_does_not_fit_the_queue_is_told_when_to_come_back(serve: Any, slow: Slow) -> None:
    with serve(max_num_queued_reqs=9) as up:  # two queries of four candidates
        slow(0.01)
        answers = asyncio.run(many(up.url, 30))
        got = [answer.status_code for answer, _ in answers]
        assert set(got) == {200, 429}
        assert 2 <= got.count(200) < 30
        for answer, _ in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["code"] == "queue_full"
        assert up.wait_until_empty()
        assert httpx.post(up.url + ASK, json=BODY).status_code == 200


def test_tokens_are_counted_too(serve: Any, slow: Slow) -> None:
    with serve(max_num_queued_tokens=4 * 80) as up:
        assert httpx.post(up.url + ASK, json=BODY | {"max_tokens": 70}).status_code == 400  # never fits
        slow(0.01)
        got = [answer.status_code for answer, _ in asyncio.run(many(up.url, 4))]
        assert sorted(got) == [200, 429, 429, 429]
        assert up.wait_until_empty()


def test_a_query_counts_as_many_as_it_may_ask(serve: Any) -> None:
    with serve(max_num_queued_reqs=3) as up:
        assert httpx.post(up.url + ASK, json=BODY).status_code == 400
        assert httpx.post(up.url + ASK, json=BODY | {"model": "octavo/expert-0"}).status_code == 200


def test_at_the_deadline_the_answer_is_chosen_among_what_is_there(serve: Any, octavo: Any, slow: Slow) -> None:
    with serve(deadline=0.5) as up:
        engine = next(lane.engines["expert-1"] for lane in octavo.loop.lanes if "expert-1" in lane.engines)
        run = engine.run
        engine.run = lambda step: (time.sleep(0.3), run(step))[1]
        try:
            got = httpx.post(up.url + ASK, json=BODY, timeout=30).json()["octavo"]
        finally:
            del engine.run
        assert (got["degraded"], got["chosen_expert"], got["candidates"]) == (True, "expert-0", 2)
        slow(0.3)
        late = httpx.post(up.url + ASK, json=BODY, timeout=30)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
        stream = httpx.post(up.url + ASK, json=BODY | {"stream": True}, timeout=30)
        assert (stream.status_code, '"code":"deadline"' in stream.text) == (200, True)
        assert stream.text.endswith("data: [DONE]\n\n")
        assert up.wait_until_empty()


@pytest.fixture
def broken(make_bundle: Any) -> Iterator[Any]:
    """Two experts, of which the second gives NaN."""
    from octavo.runtime.local import Octavo

    with Octavo.load(make_bundle(broken=(1,)), provider="cpu", threads=1) as loaded:
        yield loaded


def test_candidates_of_nan_are_dropped_and_said_to_be(serve: Any, broken: Any) -> None:
    with serve(octavo=broken) as up:
        got = httpx.post(up.url + ASK, json=BODY, timeout=30).json()["octavo"]
        assert (got["degraded"], got["candidates"], got["chosen_expert"]) == (True, 2, "expert-0")
        alone = httpx.post(up.url + ASK, json=BODY | {"model": "octavo/expert-1"}, timeout=30)
        assert (alone.status_code, alone.json()["error"]["code"]) == (500, "no_candidate")
        lost = re.compile(r'octavo_candidates_total{.*expert="expert-1",.*outcome="lost"} 3.0')
        assert lost.search(httpx.get(up.url + "/metrics").text)
        assert up.wait_until_empty()


def test_a_dead_expert_costs_its_candidates_and_a_dead_ensemble_is_not_ready(serve: Any, broken: Any) -> None:
    with serve(octavo=broken) as up:
        state = {"status": "ready", "dead": [], "provider": "CPUExecutionProvider", "fallback": None}
        assert httpx.get(up.url + "/ready").json() == state
        engines = {name: engine for lane in broken.loop.lanes for name, engine in lane.engines.items()}
        for name, status in {"expert-1": 200, "value": 200, "expert-0": 503}.items():
            engines[name].run = None
            httpx.post(up.url + ASK, json=BODY, timeout=30)
            ready = httpx.get(up.url + "/ready")
            assert (ready.status_code, name in ready.json()["dead"]) == (status, True)
        assert httpx.post(up.url + ASK, json=BODY, timeout=30).status_code == 500
        assert httpx.get(up.url + "/health").status_code == 200
        assert up.wait_until_empty()


def killed(run: Any, _: threading.Event) -> Any:
    def step(_: Any) -> Any:
        raise RuntimeError("out of luck")

    return step


def hung(run: Any, over: threading.Event) -> Any:
    return lambda step: (over.wait(30), run(step))[1]


def slow_by_ten(run: Any, _: threading.Event) -> Any:
    def step(step: Any) -> Any:
        start = time.perf_counter()
        ended = run(step)
        time.sleep(9 * (time.perf_counter() - start))
        return ended

    return step


@pytest.mark.parametrize("model", ["expert-1", "value"])
@pytest.mark.parametrize("fault", [killed, hung, slow_by_ten])
def test_one_model_that_fails_costs_its_own_work_and_leaves_nothing(
    serve: Any, bundle: Any, fault: Any, model: str
) -> None:
    from octavo.runtime.local import Octavo

    devices = ["cpu:0", "cpu:1", "cpu:2"]  # one each
    over = threading.Event()
    with (
        Octavo.load(bundle, samples=2, provider="cpu", threads=1, devices=devices) as loaded,
        serve(octavo=loaded, deadline=3) as up,
    ):
        ask = BODY | {"max_tokens": 8}
        before = httpx.post(up.url + ASK, json=ask, timeout=30).json()["choices"]
        engine = next(lane.engines[model] for lane in loaded.loop.lanes if model in lane.engines)
        engine.run = fault(engine.run, over)
        answer = httpx.post(up.url + ASK, json=ask, timeout=30)
        got = answer.json()["octavo"]
        expected = 2 if model == "expert-1" and fault is not slow_by_ten else 4
        assert (answer.status_code, got["degraded"], got["candidates"]) == (200, fault is not slow_by_ten, expected)
        del engine.run
        over.set()
        assert up.wait_until_empty()
        after = httpx.post(up.url + ASK, json=ask, timeout=30).json()
        assert after["octavo"]["degraded"] is (fault is killed)
        assert after["choices"] == before or fault is killed
        assert up.wait_until_empty()


def test_prompts_of_a_million_tokens_are_refused(server: Any, right: Any) -> None:
    for text in ("a" * 1_000_000, "a " * 500_000, "\u0301" * 150_000, "<eos>" * 200_000):
        body = json.dumps(BODY | {"messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()
        answer = httpx.post(server.url + ASK, content=body, headers={"content-type": "application/json"}, timeout=60)
        assert answer.status_code == 400
    ids = httpx.post(server.url + "/v1/completions", json={"model": "octavo", "prompt": [9] * 1_000_000}, timeout=60)
    assert ids.status_code == 413
    assert httpx.post(server.url + ASK, json=BODY, timeout=30).json()["choices"] == right


def test_many_idle_connections_are_in_nobodys_way(server: Any, right: Any) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    try:
        assert httpx.post(server.url + ASK, json=BODY, timeout=30).json()["choices"] == right
    finally:
        for line in lines:
            line.close()


def test_a_defect_of_ours_costs_one_request_and_tells_nothing(
    server: Any, right: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("prepare", "start"):
        with monkeypatch.context() as patch:
            patch.setattr(server.octavo, place, lambda *_, **__: 1 / 0)
            answer = httpx.post(server.url + ASK, json=BODY, timeout=30)
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, "internal error")
        assert server.wait_until_empty()
    assert httpx.post(server.url + ASK, json=BODY, timeout=30).json()["choices"] == right


def test_a_prompt_that_is_prepared_is_not_yet_asked(server: Any, octavo: Any) -> None:
    prepared = octavo.prepare("abc", max_new_tokens=5, seed=2)
    assert server.empty
    assert octavo.start(prepared).result().text == octavo.ask("abc", max_new_tokens=5, seed=2).text
    assert server.wait_until_empty()


def test_a_query_withdrawn_before_its_candidates_began_never_begins(server: Any, octavo: Any, slow: Slow) -> None:
    slow(0.1)
    busy = octavo.submit("abc", max_new_tokens=5)
    time.sleep(0.05)  # every device is in the middle of a step
    over: list[Any] = []
    octavo.loop.recorder.listeners.append(lambda query, inferences: over.append(inferences))
    octavo.submit("abc", max_new_tokens=60).cancel()
    busy.result()
    assert server.wait_until_empty()
    octavo.loop.recorder.listeners.pop()
    assert [(each.end, each.new_tokens, each.scheduled) for each in over[0]] == [("withdrawn", 0, None)] * 4
