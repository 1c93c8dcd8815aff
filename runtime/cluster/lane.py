"""A lane whose models run on a branch: its mail becomes errands, and their news become results of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol

from octavo.runtime.cluster.branch import Description
from octavo.runtime.cluster.errand import Errand, Failed, Grew, News, errand_of, result_of
from octavo.runtime.contents import Contents
from octavo.runtime.core.query import Inference, Lost, Query
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.loop import Loop

PATIENCE = 5.0  # seconds without news, not even an empty one, after which a branch is taken for lost
PAUSE = 0.5  # seconds between two looks at whether a lost branch is back


class Carrier(Protocol):
    """Brings errands to one branch, wherever it is."""

    async def describe(self) -> Description:
        """Raises whatever it likes while the branch cannot be reached."""

    def carry(self, errand: Errand) -> AsyncIterator[Sequence[News]]:
        """News as they come, at least an empty one every second; leaving the iteration withdraws what is left."""


class Postman:
    """A thread with an event loop, for all branches of a front."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="octavo postman", daemon=True)
        self._thread.start()

    def send(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel what is under way and end the thread."""
        self.send(self._cancel_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Out:
    """An errand under way: its inferences that have not come back, by their place in it."""

    def __init__(self, inferences: Sequence[Inference], at: float) -> None:
        self.waiting = dict(enumerate(inferences))
        self.at = at  # when it was sent, on the recorder's clock
        self.task: Future[None] | None = None


class BranchLane(Lane):
    """Sends what its models are asked for, per query in one errand between two waits.

    While a branch cannot be reached its models are dead to the loop: their candidates are lost at once, and the policy
    makes do with the others. They are revived when it is back.
    """

    def __init__(self, name: str, branch: Description, carrier: Carrier, contents: Contents, postman: Postman) -> None:
        super().__init__(name, {})
        self._limits = branch.limits
        self._models = list(branch.models)
        self._carrier = carrier
        self._contents = contents
        self._postman = postman
        self._outbox: dict[Query, list[Inference]] = {}
        self._out: dict[Inference, _Out] = {}
        self._hearer: Loop
        self._looking = False

    def report_to(self, loop: Loop) -> None:
        """Results go to this loop."""
        self._hearer = loop

    @property
    def models(self) -> Sequence[str]:
        return self._models

    @property
    def limits(self) -> Mapping[str, Limits]:
        return self._limits

    @property
    def held(self) -> int:
        """Inferences that are out."""
        return len(self._out)

    def submit(self, group: Sequence[Inference]) -> None:
        self._outbox.setdefault(group[0].query, []).extend(group)

    def withdraw(self, inference: Inference) -> int | None:
        """What it has written is known to the branch alone; it counts as nothing."""
        waiting = self._outbox.get(inference.query, [])
        if inference in waiting:
            waiting.remove(inference)
            return 0
        out = self._out.pop(inference, None)
        if out is None:
            return None
        if out.task is not None and not any(each in self._out for each in out.waiting.values()):
            out.task.cancel()
        return 0

    def next_turn(self) -> Turn | None:
        """Sends the outbox; there is nothing to compute here."""
        outbox, self._outbox = self._outbox, {}
        for inferences in filter(None, outbox.values()):
            out = _Out(inferences, self._hearer.recorder.now())
            self._out.update(dict.fromkeys(inferences, out))
            out.task = self._postman.send(self._run(errand_of(tuple(inferences), self._contents), out))
        return None

    # On the postman's event loop.

    async def _run(self, errand: Errand, out: _Out) -> None:
        try:
            news = self._carrier.carry(errand)
            try:
                while out.waiting:
                    self._hear(await asyncio.wait_for(anext(news), PATIENCE), out)
            finally:
                await news.aclose()  # type: ignore[attr-defined]
        except Exception as error:  # whatever befalls a branch costs its candidates, not the query
            self._lose(out, _said(error))

    def _hear(self, batch: Sequence[News], out: _Out) -> None:
        results = []
        for news in batch:
            if isinstance(news, Grew):
                self._grow(out.waiting[news.place], news.text)
                continue
            inference = out.waiting.pop(news.place)
            if self._out.pop(inference, None) is None:
                continue  # withdrawn meanwhile
            if not isinstance(news, Failed):
                self._hearer.report(inference, *news.times.after(out.at))
            results.append(result_of(news, inference, self._contents))
        if results:
            self._hearer.deliver(results)

    def _grow(self, inference: Inference, text: str) -> None:
        with suppress(KeyError):  # the query may be closed in this moment
            self._contents.request(inference.query).hear(inference, text)

    def _lose(self, out: _Out, reason: str) -> None:
        self._hearer.bury(self._models, f"{self.device}: {reason}")
        lost = [inference for inference in out.waiting.values() if self._out.pop(inference, None) is not None]
        out.waiting.clear()
        self._hearer.deliver([Lost(inference, f"{self.device}: {reason}") for inference in lost])
        if not self._looking:
            self._looking = True
            self._postman.send(self._look())

    async def _look(self) -> None:
        """Wait for the branch to come back."""
        while True:
            try:
                await asyncio.wait_for(self._carrier.describe(), PATIENCE)
                break
            except Exception:  # still away
                await asyncio.sleep(PAUSE)
        self._looking = False
        self._hearer.revive(self._models)


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no sign of life for {PATIENCE:g} s"
    if isinstance(error, StopAsyncIteration):
        return "the errand ended early"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
