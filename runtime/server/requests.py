"""What a client may send. Every field here is honoured; any other, and any other value, is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from octavo.runtime.contents import Tokens

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(max_length=1024)]
Count = Annotated[int, Field(ge=1, le=1 << 20)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1)]


def _kind(kind: type) -> BeforeValidator:
    """Demands a value of the kind: to Python, false and 0 are equal."""

    def check(value: object) -> object:
        if value is not None and isinstance(value, bool) is not (kind is bool):
            raise ValueError(f"must be a {'boolean' if kind is bool else 'number'}")
        return value

    return BeforeValidator(check)


No = Annotated[Literal[False], _kind(bool)]
Zero = Annotated[Literal[0], _kind(int)]
Nothing = Annotated[list[Any], Field(max_length=0)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn of a conversation, as text; an answer may be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=256)]
    name: None = None
    refusal: None = None
    annotations: Nothing | None = None
    audio: None = None
    tool_calls: Nothing | None = None
    function_call: None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Strict):
    """`continuous_usage_stats`: in every chunk; while a text grows its pieces count, at the end its tokens."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: No | None = None


class TextFormat(Strict):
    type: Literal["text"]

    @property
    def form(self) -> None:
        return None


class JsonFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]

    @property
    def form(self) -> dict[str, Any]:
        return {"type": "object"}


class Schema(Strict):
    """A JSON Schema. It is kept to, `strict` or not; `name` and `description` are the client's own."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class SchemaFormat(Strict):
    """JSON that a schema allows."""

    type: Literal["json_schema"]
    json_schema: Schema

    @property
    def form(self) -> dict[str, Any]:
        return self.json_schema.schema_


Format = Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")]


class Generation(Strict):
    """The fields that both endpoints share. null is the same as absent."""

    model: Text
    max_tokens: Count | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    ignore_eos: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Count | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: Format | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=1024)] | None = None
    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Name | None = None  # a client's own label, like those of ChatRequest: it changes no answer, and is not kept

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("best_of must be at least n")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if self.form is not None and (self.ignore_eos or self.min_tokens):
            raise ValueError("response_format goes with neither ignore_eos nor min_tokens")
        if self.min_tokens and self.stops:
            raise ValueError("min_tokens does not go with stop")
        if self.min_tokens and self.new_tokens and self.min_tokens > self.new_tokens:
            raise ValueError("min_tokens must be at most max_tokens")
        return self

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def noted(self) -> int | None:
        """How many likely tokens are wanted beside each of the answer; None: no log-probabilities at all."""
        return None

    @property
    def form(self) -> dict[str, Any] | None:
        """The schema of the answer."""
        return self.response_format.form if self.response_format else None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def sampling(self) -> dict[str, float | int]:
        """What of the sampling was given; the bundle's own holds otherwise."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def shape(self) -> dict[str, Any]:
        """Options of `Octavo.ask` for the texts' form and length."""
        return {
            "stop": self.stops,
            "max_new_tokens": self.new_tokens,
            "min_tokens": self.min_tokens or 0,
            "ends": not self.ignore_eos,
            "grammar": self.form,
            "top_logprobs": self.noted,
        }


class ChatRequest(Generation):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    tools: Nothing | None = None
    functions: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: No | None = None
    metadata: Annotated[dict[Name, Name], Field(max_length=64)] | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory"] | None = None
    audio: None = None
    moderation: None = None
    prediction: None = None
    prompt_cache_options: None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens or self.max_completion_tokens

    @property
    def noted(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def characters(self) -> int:
        return sum(len(message.text) for message in self.messages)

    @property
    def prompt_text(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.text} for message in self.messages]


class CompletionRequest(Generation):
    """`POST /v1/completions`: one prompt, as text or as token ids."""

    prompt: Text | Ids | Annotated[list[Text | Ids], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: No | None = None
    suffix: None = None

    @property
    def noted(self) -> int | None:
        return self.logprobs

    @property
    def characters(self) -> int:
        """Or token ids."""
        return len(self.prompt_text)

    @property
    def prompt_text(self) -> str | Tokens:
        first = self.prompt[0]
        prompt = self.prompt if isinstance(self.prompt, str) or isinstance(first, int) else first
        return prompt if isinstance(prompt, str) else np.array(prompt, np.int64)
