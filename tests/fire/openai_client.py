"""What the `openai` client must see: `python tests/fire/openai_client.py URL KEY`, by a Python that has openai.

The server has the demo's bundle and 160 places for candidates; `clients.py` starts it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp

import openai

CHAT = [{"role": "user", "content": "turn 99282277:"}]


def check_whole_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="octavo", messages=CHAT, seed=1, max_tokens=9)
    assert answer.choices[0].message.content, answer
    assert answer.usage
    assert answer.usage.completion_tokens <= 9
    assert answer.octavo["candidates"] == 16, answer
    several = client.chat.completions.create(model="octavo/majority", messages=CHAT, n=3, seed=1, max_tokens=9)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    text = client.completions.create(model="octavo/expert-3", prompt="turn 99282277:", seed=1, max_tokens=9, stop="9")
    assert "9" not in text.choices[0].text


def check_streams(client: openai.OpenAI) -> None:
    for model in ("octavo", "octavo/expert-3", "octavo/early_exit"):
        asked = {"model": model, "messages": CHAT, "seed": 1, "max_tokens": 9}
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        if model != "octavo/early_exit":  # there the first that is sure wins, whichever that is
            assert said == whole.choices[0].message.content, (model, said)
            assert chunks[-1].usage == whole.usage
        assert said
    words = client.completions.create(model="octavo", prompt="turn 1:", stream=True, max_tokens=4)
    assert any(chunk.choices[0].finish_reason for chunk in words)


def check_models_and_errors(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"octavo", "octavo/majority", "octavo/expert-3"} <= set(names), names
    assert client.models.retrieve("octavo/expert-3").id == "octavo/expert-3"
    with refused(openai.BadRequestError, "tools"):
        client.chat.completions.create(model="octavo", messages=CHAT, tools=[{"type": "function"}])
    with refused(openai.NotFoundError, "no such model"):
        client.chat.completions.create(model="gpt-4", messages=CHAT)
    with refused(openai.AuthenticationError, "key"):
        openai.OpenAI(base_url=client.base_url, api_key="wrong").models.list()


@contextmanager
def refused(kind: type[openai.APIStatusError], word: str) -> Iterator[None]:
    try:
        yield
    except kind as error:
        said = str(error)
    else:
        said = "it was not refused"
    assert word in said, said


def check_logprobs(client: openai.OpenAI) -> None:
    asked = {"model": "octavo", "messages": CHAT, "seed": 1, "max_tokens": 9, "logprobs": True, "top_logprobs": 4}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs
    content = choice.logprobs.content or []
    assert "".join(token.token for token in content) == choice.message.content
    assert all(len(token.top_logprobs) == 4 for token in content)
    assert all(sum(exp(each.logprob) for each in token.top_logprobs) <= 1.001 for token in content)
    streamed = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
    again = [token for each in streamed if each.logprobs for token in each.logprobs.content or []]
    assert [token.token for token in again] == [token.token for token in content]
    assert all(abs(one.logprob - two.logprob) < 1e-3 for one, two in zip(again, content, strict=True))
    text = client.completions.create(model="octavo", prompt="turn 99282277:", seed=1, max_tokens=9, logprobs=2)
    assert text.choices[0].logprobs
    assert "".join(text.choices[0].logprobs.tokens or []) == text.choices[0].text


def check_forms(client: openai.OpenAI) -> None:
    schema = {"type": "integer", "minimum": 1, "maximum": 999}
    form = {"type": "json_schema", "json_schema": {"name": "number", "strict": True, "schema": schema}}
    for model in ("octavo", "octavo/expert-3"):
        said = client.chat.completions.create(model=model, messages=CHAT, response_format=form, max_tokens=9)
        assert 1 <= int(said.choices[0].message.content or "") <= 999, said


def check_conversations(client: openai.OpenAI) -> None:
    """An answer goes back as the client holds it, with the client's own labels around."""
    first = client.chat.completions.create(model="octavo", messages=CHAT, max_tokens=9)
    messages = [*CHAT, first.choices[0].message, {"role": "user", "content": "turn 1:"}]
    own = {"user": "me", "metadata": {"a": "b"}, "store": False}
    assert client.chat.completions.create(model="octavo", messages=messages, max_tokens=9, **own).choices
    by_tokens = client.completions.create(model="octavo", prompt=[1, 5, 6, 7], max_tokens=4)
    assert by_tokens.usage
    assert by_tokens.usage.prompt_tokens == 4


async def check_overload(url: str, key: str) -> None:
    """The client retries by itself what is refused with 429; everything is answered in the end."""
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=20) as client:
        asks = (client.chat.completions.create(model="octavo", messages=CHAT, max_tokens=9) for _ in range(40))
        answers = await asyncio.gather(*asks)
    assert all(answer.choices for answer in answers)


def main(url: str, key: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
    checks = (check_whole_answers, check_streams, check_models_and_errors)
    for check in (*checks, check_logprobs, check_forms, check_conversations):
        check(client)
    asyncio.run(check_overload(f"{url}/v1", key))
    print(f"openai {openai.__version__}: answers, streams, errors, log-probabilities, forms, conversations, overload")


if __name__ == "__main__":
    main(*sys.argv[1:3])
