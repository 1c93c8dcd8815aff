"""The `openai` Python client against a server: `python tests/fire/clients.py BUNDLE` (pip install openai)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import openai
import pytest
from serving import serving

KEY = "a-key-for-this-check"
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
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        client.chat.completions.create(model="octavo", messages=CHAT, logprobs=True)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="gpt-4", messages=CHAT)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=client.base_url, api_key="wrong").models.list()


async def check_overload(url: str) -> None:
    """The client retries by itself what is refused with 429; everything is answered in the end."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=20) as client:
        asks = (client.chat.completions.create(model="octavo", messages=CHAT, max_tokens=9) for _ in range(40))
        answers = await asyncio.gather(*asks)
    assert all(answer.choices for answer in answers)


def main(bundle: Path) -> None:
    with serving(bundle, api_keys=[KEY], max_num_queued_reqs=160) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY)
        check_whole_answers(client)
        check_streams(client)
        check_models_and_errors(client)
        asyncio.run(check_overload(f"{url}/v1"))
    print(f"openai {openai.__version__}: answers, streams, models, errors, overload with retries: all as expected")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
