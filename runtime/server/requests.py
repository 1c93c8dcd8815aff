"""What a client may send. Every field here is honoured; any other, and any other value, is refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1 << 20)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn of a conversation, as text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=256)]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Strict):
    """`continuous_usage_stats`: in every chunk; while a text grows its pieces count, at the end its tokens."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class TextFormat(Strict):
    type: Literal["text"]


class Generation(Strict):
    """The fields that both endpoints share. null is the same as absent."""

    model: Text
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Count | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    frequency_penalty: Literal[0] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=1024)] | None = None
    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("best_of must be at least n")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def sampling(self) -> dict[str, float | int]:
        """What of the sampling was given; the bundle's own holds otherwise."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class ChatRequest(Generation):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: Literal[False] | None = None
    response_format: TextFormat | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        return self

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens or self.max_completion_tokens

    @property
    def prompt_text(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.text} for message in self.messages]


class CompletionRequest(Generation):
    """`POST /v1/completions`: one prompt, as text."""

    prompt: Text
    echo: Literal[False] | None = None

    @property
    def prompt_text(self) -> str:
        return self.prompt
