"""The desk: takes a query in, counts it, asks the ensemble, and lets go of it however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from secrets import randbits
from time import monotonic
from typing import Any

from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime.core.query import Inference
from octavo.runtime.local import Octavo, Prepared, Result
from octavo.runtime.server.admission import Admission
from octavo.runtime.server.names import Target, choose, served
from octavo.runtime.server.refusals import Refusal
from octavo.runtime.server.requests import ChatRequest, CompletionRequest
from octavo.runtime.server.settings import ServerSettings

Asked = ChatRequest | CompletionRequest
CHAT_FIELDS = {"grammar": "response_format", "prompt": "messages", "chat": "messages"}
TEXT_FIELDS = {"grammar": "response_format", "top_logprobs": "logprobs"}
QUICK = 2000  # characters (or token ids) of a prompt that is read sooner than a thread is woken for it


@dataclass(frozen=True, slots=True)
class Answered:
    """A result, with the seed that gives it again."""

    result: Result
    seed: int


class Taken:
    """A query that is being answered. Leaving its `with` block withdraws it, unless it is over."""

    def __init__(self, asked: Asked, target: Target, deadline: float) -> None:
        self.asked = asked
        self.target = target
        self.seed = randbits(53) if asked.seed is None else asked.seed
        self.start = monotonic()
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | None] = asyncio.Queue()
        self._over = self._loop.create_future()
        self.future: Future[Result] = Future()
        self.prompt_tokens = 0

    def __enter__(self) -> Taken:
        return self

    def __exit__(self, *_: object) -> None:
        self.future.cancel()

    @property
    def live(self) -> bool:
        """Whether its text is shown as it grows; log-probabilities are told when it is whole."""
        return self.target.live and bool(self.asked.stream) and self.asked.noted is None

    def follow(self, future: Future[Result], prompt_tokens: int, leave: Callable[[bool], None]) -> None:
        """This is the query under way; `leave` hears in the event loop that it is over, and whether with an answer."""
        self.future, self.prompt_tokens = future, prompt_tokens
        future.add_done_callback(lambda done: self._tell(self._end, done, leave))

    def hear(self, _: Inference, text: str) -> None:
        self._tell(self._events.put_nowait, text)

    async def result(self) -> Answered:
        """Raises Refusal where there is no answer."""
        await self._over
        try:
            return Answered(self.future.result(0), self.seed)
        except MachineError as error:
            if monotonic() - self.start >= self._deadline:
                raise Refusal(504, f"no candidate within {self._deadline:g} s", code="deadline") from None
            raise Refusal(500, str(error), code="no_candidate") from None

    async def texts(self, patience: float) -> AsyncGenerator[str | None, None]:
        """The text as it grows, till it is over; None whenever nothing has come for `patience` seconds."""
        while True:
            try:
                text = await asyncio.wait_for(self._events.get(), patience)
            except TimeoutError:
                yield None
                continue
            if text is None:
                return
            yield text

    def _end(self, done: Future[Result], leave: Callable[[bool], None]) -> None:
        leave(not done.cancelled() and done.exception() is None)
        self._events.put_nowait(None)
        if not self._over.done():
            self._over.set_result(None)

    def _tell(self, call: Callable[..., None], *about: object) -> None:
        """Let the event loop call something: each time it has to be woken, so once for all there is to say."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *about)


class Desk:
    """Where queries are taken in."""

    def __init__(self, octavo: Octavo, settings: ServerSettings) -> None:
        self.octavo = octavo
        self.settings = settings
        self.targets = served(octavo.ensemble, octavo.manifest.defaults.policy)
        self.admission = Admission(settings)

    @property
    def ready(self) -> bool:
        """Whether queries are taken, and enough experts live to answer them."""
        ensemble, dead = self.octavo.ensemble, self.octavo.loop.dead
        alive = sum(expert not in dead for expert in ensemble.experts) * ensemble.samples_per_expert
        return alive >= ensemble.min_candidates and not self.admission.draining

    async def take(self, asked: Asked, begun: Callable[[int], None] | None = None) -> Taken:
        """Admit a query and start it; `begun` hears its id just before. Raises Refusal, with nothing held."""
        self._check_sizes(asked)
        target = choose(self.targets, asked.model, asked.n or 1, asked.best_of, self.settings.max_candidates)
        place = self.admission.enter(target.candidates)
        taken = Taken(asked, target, self.settings.deadline)
        try:
            quick = asked.form is None and asked.characters <= QUICK
            prepared = self._prepare(taken) if quick else await asyncio.to_thread(self._prepare, taken)
            query = prepared.request.query
            self.admission.widen(place, target.candidates * (query.prompt_tokens + query.max_new_tokens))
            if begun is not None:
                begun(query.id)
            future = self.octavo.start(prepared)
        except BaseException:
            self.admission.leave(place)
            raise
        taken.follow(future, query.prompt_tokens, lambda answered: self.admission.leave(place, answered=answered))
        return taken

    def _prepare(self, taken: Taken) -> Prepared:
        asked, target = taken.asked, taken.target
        options: dict[str, Any] = {"listener": taken.hear} if taken.live else {}
        try:
            prepared = self.octavo.prepare(
                asked.prompt_text,
                policy=target.policy,
                settings=target.settings,
                seed=taken.seed,
                deadline=self.settings.deadline,
                **asked.shape,
                **asked.sampling,
                **options,
            )
        except ConfigError as error:
            raise _refused(str(error), asked) from None
        room = prepared.request.query.max_new_tokens
        if asked.new_tokens is not None and asked.new_tokens > room:
            message = f"max_tokens: {asked.new_tokens} and the prompt do not fit the context; at most {room} do"
            raise Refusal(400, message, param="max_tokens", code="context_length_exceeded")
        return prepared

    def _check_sizes(self, asked: Asked) -> None:
        if len(asked.stops) > self.settings.max_stops:
            raise Refusal(400, f"stop: at most {self.settings.max_stops} strings", param="stop")
        if isinstance(asked, ChatRequest) and len(asked.messages) > self.settings.max_messages:
            raise Refusal(400, f"messages: at most {self.settings.max_messages}", param="messages")


def _refused(error: str, asked: Asked) -> Refusal:
    """An error of the runtime begins with its own word for what it is about; the client hears the field's name."""
    word, colon, rest = error.partition(":")
    fields = CHAT_FIELDS if isinstance(asked, ChatRequest) else TEXT_FIELDS
    field = fields.get(word, word if word in type(asked).model_fields else None) if colon else None
    code = "context_length_exceeded" if word == "prompt" and "too long" in rest else "invalid_value"
    return Refusal(400, f"{field}:{rest}" if field else error, param=field, code=code)
