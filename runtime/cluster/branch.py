"""A branch: some of a bundle's models on one machine. It runs errands; policies and answers are the front's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import Manifest, verify_bundle
from octavo.runtime.cluster.errand import Errand, Grew, News, Times, inferences_of, news_of
from octavo.runtime.cluster.layout import models_of
from octavo.runtime.contents import Contents, Request
from octavo.runtime.core.council import Council
from octavo.runtime.core.policies import Deliberation, single
from octavo.runtime.core.query import Ensemble, Expired, Inference, NoAnswer, Query, Score, Variant
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.engine import Ended
from octavo.runtime.loop import Closed, Loop
from octavo.runtime.place import Placement, place
from octavo.runtime.recorder import Recorder
from octavo.runtime.text import Vocabulary

HEARTBEAT = 1.0  # seconds between two signs of life
Tell = Callable[[News | None], object]


@dataclass(frozen=True, slots=True)
class Description:
    """What a front must know of a branch: its models, how long a sequence may be, and what runs it."""

    models: tuple[str, ...]
    context: int
    prefix_tokens: int | None
    provider: str
    fallback: str | None
    threads: int
    kernels: str
    limits: Mapping[str, Limits]


class Branch:
    """Opens the models and runs errands until it is closed. All methods may be called from any thread."""

    def __init__(self, bundle: Path, models: Sequence[str], **placement: Any) -> None:
        """`placement` are the fields of `octavo.runtime.place.Placement`.

        Raises BundleError, ConfigError for a model that the bundle hasn't, MachineError.
        """
        manifest = verify_bundle(bundle)
        vocabulary = Vocabulary(bundle / manifest.experts[0].folder)
        contents = Contents(vocabulary)
        self._placed = place(bundle, narrowed(manifest, models), Placement(**placement), vocabulary, contents)
        self._models = tuple(models)
        council = Council(Ensemble(self._models, 1), single)
        self._loop = Loop(council, self._placed.lanes, contents, Recorder(keep=False))
        self._ids = count()

    @property
    def dead(self) -> tuple[str, ...]:
        """Models that have died; a branch with one is to be replaced."""
        return tuple(self._loop.dead)

    @property
    def open(self) -> int:
        """Errands under way."""
        return self._loop.council.open

    def describe(self) -> Description:
        placed = self._placed
        limits = {name: each for lane in placed.lanes for name, each in lane.limits.items()}
        return Description(
            self._models,
            placed.context,
            placed.prefix_tokens,
            placed.choice.provider,
            placed.choice.fallback,
            placed.threads,
            placed.kernels,
            limits,
        )

    def carry(self, errand: Errand, tell: Tell) -> Callable[[], None]:
        """Begin an errand; calling what is returned withdraws what is left of it.

        `tell` hears each piece of news, and None at the end, in a thread of the branch; it must be quick.
        """
        own = {name: Variant(len(tokens), errand.own_prefixes[name]) for name, tokens in errand.own_prompts.items()}
        query = Query(next(self._ids), len(errand.prompt), errand.max_new_tokens, errand.prefix, own)
        relay = _Relay(errand, tell, self._loop)
        request = Request(
            query,
            errand.prompt,
            errand.sampling,
            errand.own_sampling,
            errand.seed,
            errand.number,
            errand.stop,
            listener=relay.grew if errand.watched else None,
            ends=errand.ends,
            grammar=errand.grammar,
            min_tokens=errand.min_tokens,
            noted=errand.noted,
            own_prompts=errand.own_prompts,
            asked=errand.words,
        )
        relay.request = request
        self._loop.submit(request, relay.over, relay.deliberate)
        return lambda: self._loop.cancel(query)

    def close(self) -> None:
        self._loop.close()


async def news_from(branch: Branch, errand: Errand) -> AsyncIterator[list[News]]:
    """Runs an errand: its news in batches as they come, an empty one when none has come for a while."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[News | None]()
    withdraw = branch.carry(errand, lambda news: loop.call_soon_threadsafe(queue.put_nowait, news))
    try:
        while True:
            try:
                batch = [await asyncio.wait_for(queue.get(), HEARTBEAT)]
            except TimeoutError:
                yield []
                continue
            batch += [queue.get_nowait() for _ in range(queue.qsize())]
            yield [news for news in batch if news is not None]
            if batch[-1] is None:
                return
    finally:
        withdraw()


class _Relay:
    """Follows one errand: a policy that asks for what it is told to, and passes on what comes back."""

    request: Request

    def __init__(self, errand: Errand, tell: Tell, loop: Loop) -> None:
        self._errand = errand
        self._tell = tell
        self._loop = loop
        self._place: dict[Inference, int] = {}

    def deliberate(self, _: Ensemble, query: Query) -> Deliberation:
        inferences = inferences_of(self._errand, self.request, self._loop.contents)
        self._place = {inference: place for place, inference in enumerate(inferences)}
        result = yield inferences
        for _left in range(len(inferences) - 1):
            assert not isinstance(result, Expired)
            self._pass_on(result)
            result = yield []
        assert not isinstance(result, Expired)
        self._pass_on(result)
        raise NoAnswer("the answer is chosen elsewhere")

    def grew(self, inference: Inference, text: str) -> None:
        self._tell(Grew(self._place[inference], text))

    def over(self, _: Closed) -> None:
        self._tell(None)

    def _pass_on(self, result: Ended) -> None:
        inference = result.judge if isinstance(result, Score) else result.inference
        assert inference is not None
        record, arrival = (
            self._loop.recorder.inferences[inference],
            self._loop.recorder.queries[inference.query].arrival,
        )
        times = Times(*(None if at is None else at - arrival for at in (record.scheduled, record.first_token)))
        self._tell(news_of(result, self._place[inference], times, self._loop.contents))


def narrowed(manifest: Manifest, models: Sequence[str]) -> Manifest:
    """The manifest with only these models. A value head that sits on the experts stays. Raises ConfigError."""
    value, known = manifest.value, models_of(manifest)
    if not models:
        raise ConfigError(f"models: a branch needs at least one; {manifest.name} has {', '.join(known)}")
    if unknown := [model for model in models if model not in known]:
        raise ConfigError(f"models: {manifest.name} has no {unknown[0]!r}; there are {', '.join(known)}")
    experts = [expert for expert in manifest.experts if expert.name in models]
    stays = value is not None and (value.head_on_expert or value.name in models)
    return manifest.model_copy(update={"experts": experts, "value": value if stays else None})
