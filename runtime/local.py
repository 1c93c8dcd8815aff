"""`Octavo`: a bundle in this process. Load it, ask it, close it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.manifest import Manifest, verify_bundle
from octavo.runtime import asked
from octavo.runtime.asked import Prompt
from octavo.runtime.contents import Contents, Label, Message, Request, Tokens, Written, prefix_names, variants_of
from octavo.runtime.core.council import Council
from octavo.runtime.core.policies import Policy, policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Inference, NoAnswer, Query
from octavo.runtime.core.trace import Record, RunRecord
from octavo.runtime.grammar import Form, grammar_source, grammars_of
from octavo.runtime.lane import Lane
from octavo.runtime.loop import Closed, Loop
from octavo.runtime.pieces import Piece, spelled
from octavo.runtime.place import Placed, Placement, place
from octavo.runtime.recorder import Recorder
from octavo.runtime.sampling import Sampling
from octavo.runtime.text import Vocabulary
from octavo.runtime.verifier import VERIFIER, VerifierEngine

Finish = Literal["stop", "length"]  # an end token or a stop string; or the budget of new tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One candidate: which expert's, its text, and what is known of it. `seconds` is when it ended, from the ask.

    `pieces` are the tokens of the text, each with its log-probability, where `top_logprobs` asked for them.
    """

    expert: str
    sample: int
    text: str
    new_tokens: int
    mean_logprob: float
    value: float | None
    label: str | None
    seconds: float
    chosen: bool
    finish: Finish = "stop"
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a prompt, and every candidate that arrived, in the order of experts and samples.

    `new_tokens` are those of all candidates, `seconds` from the ask to the answer. `degraded` says that something was
    lost or late on the way; `fallback` why another provider than the one asked for was used; `layout` in how many lanes
    of how many threads, and whether that was measured; `kernels` whose products of matrices.
    """

    prompt: str
    text: str
    reason: str
    candidates: tuple[Reply, ...]
    prompt_tokens: int
    new_tokens: int
    seconds: float
    provider: str
    degraded: bool
    fallback: str | None = None
    layout: str = ""
    kernels: str = ""

    @property
    def chosen(self) -> Reply:
        return next(candidate for candidate in self.candidates if candidate.chosen)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt in tokens, with checked options: what `start` takes."""

    prompt: str
    request: Request
    policy: Policy
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that a candidate under way has grown by."""

    expert: str
    sample: int
    text: str


class Octavo:
    """A loaded bundle. All methods may be called from any thread; close it, or use it in a `with` block.

    >>> with Octavo.load("my-bundle") as octavo:            # doctest: +SKIP
    ...     print(octavo.ask("What is 6 x 7?", seed=1).text)
    """

    def __init__(self, bundle: Path, manifest: Manifest, placed: Placed, loop: Loop, vocabulary: Vocabulary) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.placed = placed
        self.loop = loop
        self.vocabulary = vocabulary
        self._ids = count()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        provider: str | None = None,
        allow_fallback: bool = False,
        devices: Sequence[str] | None = None,
        threads: int | None = None,
        context: int | None = None,
        max_rows: int = 64,
        max_step_tokens: int = 2048,
        kv_bytes: int | None = None,
        prefix_tokens: int | None = 64,
        prepack: bool = False,
        cuda_graphs: bool = False,
        kernels: bool | None = None,
        samples: int | None = None,
        min_candidates: int = 1,
        verify: bool = True,
        keep_records: bool = False,
    ) -> Octavo:
        """Verify a bundle and open its models.

        `provider` is tensorrt, cuda or cpu (None: the best that works); the arguments up to `kernels` are those
        of `octavo.runtime.place.Placement`. `samples` per expert and `min_candidates` make the ensemble. `verify=False`
        skips the hashes, not the list of files. `keep_records` keeps what `records` gives.

        Raises BundleError, ConfigError, or MachineError where a provider does not work here.
        """
        bundle = Path(path)
        manifest = verify_bundle(bundle, hashes=verify)
        vocabulary = Vocabulary(bundle / manifest.experts[0].folder)
        contents = Contents(vocabulary)
        wanted = Placement(
            *(provider, allow_fallback, devices, threads, context, max_rows, max_step_tokens, kv_bytes, prefix_tokens),
            prepack=prepack,
            verify=verify,
            cuda_graphs=cuda_graphs,
            kernels=kernels,
        )
        placed = place(bundle, manifest, wanted, vocabulary, contents)
        council = Council(ensemble_of(manifest, samples, min_candidates), policy_named(manifest.defaults.policy))
        lanes = [*placed.lanes, Lane(VERIFIER, {VERIFIER: VerifierEngine(contents)})]
        loop = Loop(council, lanes, contents, Recorder(keep=keep_records))
        return cls(bundle, manifest, placed, loop, vocabulary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is open and free the models."""
        self.loop.close()

    @property
    def ensemble(self) -> Ensemble:
        return self.loop.council.ensemble

    @property
    def provider(self) -> str:
        return self.placed.choice.provider

    @property
    def about(self) -> dict[str, str]:
        """Provider, lanes, threads and kernels that it runs on, and why on another provider than the one asked for."""
        choice = self.placed.choice
        found = {"provider": choice.provider, "layout": self.placed.layout, "kernels": self.placed.kernels}
        return found | ({"fallback": choice.fallback} if choice.fallback else {})

    def ask(self, prompt: Prompt, **options: Any) -> Result:
        """One prompt, one answer.

        A prompt is text, a list of `{"role": ..., "content": ...}` for the bundle's chat template, or token
        ids (a list, or an array of integers). Options:

        - `policy` (a name, or a generator of the core) and its `settings`, a mapping;
        - `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `presence_penalty`: see `Sampling`; `experts`
          maps an expert's name to a Sampling of its own, or to those of its fields that differ;
        - `variants` maps an expert's name to a template with `{prompt}` in it: what that expert reads in place of the
          text (of a conversation: of its last message). Judges read the prompt as it was asked;
        - `max_new_tokens`, cut down to what the context leaves; `stop`, strings that end a candidate;
        - `seed`: the same seed gives the same candidates, whatever else is asked meanwhile; `number` tells prompts of
          one seed apart, as `ask_many` does by their place;
        - `deadline` in seconds: the answer is then chosen among what has arrived;
        - `label`, finds in a text what a vote counts; `verify`, says of a text whether it is right;
        - `ends=False`: end tokens end nothing, every candidate writes its whole budget; before `min_tokens` none does;
        - `grammar`: what every candidate's text must be: a JSON Schema (a mapping), or a grammar in llguidance's Lark
          form (a text); needs octavo[grammar]. What `max_new_tokens` cuts off is not whole (`finish` is "length");
        - `top_logprobs`: 0 or more, gives each reply its `pieces`, with so many likely tokens each.

        Raises ConfigError for a wrong option or a prompt longer than the context, MachineError where no candidate
        arrived.
        """
        return waited([self.submit(prompt, **options)])[0]

    def ask_many(self, prompts: Iterable[Prompt], **options: Any) -> list[Result]:
        """Several prompts at once, batched together; the results are in their order. Options as for `ask`."""
        asked.not_one_text(prompts)
        if "number" in options:
            raise ConfigError("ask_many: number: it is each prompt's place in the list")
        prepared = [self.prepare(prompt, number=number, **options) for number, prompt in enumerate(prompts)]
        return waited([self.start(each) for each in prepared])

    def submit(self, prompt: Prompt, **options: Any) -> Future[Result]:
        """Ask without waiting; cancelling the future withdraws the query. `number` tells equal seeds apart."""
        return self.start(self.prepare(prompt, **options))

    def prepare(self, prompt: Prompt, **options: Any) -> Prepared:
        """Check the options and read the prompt as tokens, which takes long for a long one; nothing is opened yet."""
        listener = options.pop("listener", None)
        request, policy, deadline = self._request(prompt, listener, **options)
        text = self._shown(prompt)
        return Prepared(text, request, policy, deadline)

    def start(self, prepared: Prepared) -> Future[Result]:
        """Ask what was prepared, once; cancelling the future withdraws the query."""
        future: Future[Result] = Future()

        def close(closed: Closed) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(self._result(prepared.prompt, closed))
            except Exception as error:  # whoever waits must hear of it
                future.set_exception(error)

        query = prepared.request.query
        self.loop.submit(prepared.request, close, prepared.policy, prepared.deadline)
        future.add_done_callback(lambda done: self.loop.cancel(query) if done.cancelled() else None)
        return future

    async def stream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Delta | Result]:
        """The text of all candidates as it grows, and at last the result. Leaving the loop withdraws the query."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Delta | Future[Result]]()

        def hear(inference: Inference, text: str) -> None:
            delta = Delta(inference.model, inference.sample, text)
            loop.call_soon_threadsafe(events.put_nowait, delta)

        future = self.submit(prompt, listener=hear, **options)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(events.put_nowait, done))
        try:
            while isinstance(event := await events.get(), Delta):
                yield event
            yield event.result()
        finally:
            future.cancel()

    def records(self) -> list[Record]:
        """What was run so far, as trace records, with `keep_records`; first of all how to run it again."""
        return [self.run_record(), *self.loop.recorder.records()]

    def run_record(self) -> RunRecord:
        """The head of a trace: how this bundle is placed, and under what limits."""
        ensemble, lanes = self.ensemble, self.placed.lanes
        return RunRecord(
            policy=self.manifest.defaults.policy,
            settings={},
            experts=ensemble.experts,
            samples_per_expert=ensemble.samples_per_expert,
            value_model=ensemble.value_model,
            devices={lane.device: list(lane.models) for lane in lanes},
            limits={name: limits_record(limits) for lane in lanes for name, limits in lane.limits.items()},
            min_candidates=ensemble.min_candidates,
            machine=self.about,
        )

    # Inside.

    def _request(
        self,
        prompt: Prompt,
        listener: Callable[[Inference, str], None] | None,
        *,
        policy: str | Policy | None = None,
        settings: Mapping[str, Any] | None = None,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int = 0,
        number: int = 0,
        deadline: float | None = None,
        experts: Mapping[str, Sampling | Mapping[str, Any]] | None = None,
        variants: Mapping[str, str] | None = None,
        label: Label | None = None,
        verify: Callable[[str], bool] | None = None,
        ends: bool = True,
        grammar: Form | None = None,
        min_tokens: int = 0,
        top_logprobs: int | None = None,
        **sampling: Any,
    ) -> tuple[Request, Policy, float | None]:
        asked.functions(label=label, verify=verify, listener=listener)
        tokens = self._tokens(prompt)
        own_prompts = self._own_prompts(prompt, variants or {})
        budget = self._budget(max([tokens, *own_prompts.values()], key=len), max_new_tokens)
        chosen = self._policy(policy, settings or {}, verify is not None)
        self._check_names("experts", experts or {})
        common = asked.sampling(Sampling(temperature=self.manifest.defaults.temperature), sampling)
        request = Request(
            Query(
                next(self._ids),
                len(tokens),
                budget,
                prefix_names(tokens, self.placed.prefix_tokens),
                variants_of(own_prompts, self.placed.prefix_tokens),
            ),
            tokens,
            common,
            {name: asked.sampling(common, own, f"experts: {name}") for name, own in (experts or {}).items()},
            asked.whole("seed", seed),
            asked.whole("number", number),
            asked.stops(stop),
            label,
            verify,
            listener,
            bool(ends),
            self._grammar(grammar, ends=ends, min_tokens=min_tokens),
            asked.whole("min_tokens", min_tokens, 0),
            self._noted(top_logprobs),
            own_prompts,
            None if asked.token_ids(prompt) is not None else asked.words(prompt),
        )
        return request, chosen, asked.seconds("deadline", deadline)

    def _grammar(self, form: Form | None, *, ends: bool, min_tokens: int) -> str | None:
        """The grammar's source, after it was tried. Raises ConfigError."""
        if form is None:
            return None
        if self._columns is not None:
            raise ConfigError(f"grammar: the bundle's graphs give {self._columns} logits only; export it without top_k")
        if not ends or min_tokens:
            raise ConfigError("grammar: ends=False and min_tokens are for texts of no form")
        source = grammar_source(form)
        grammars_of(self.vocabulary).check(source)
        return source

    def _noted(self, most: int | None) -> int | None:
        limit = self.vocabulary.size if self._columns is None else self._columns
        return None if most is None else asked.whole("top_logprobs", most, 0, limit)

    @property
    def _columns(self) -> int | None:
        """How few logits an expert's graph gives; None: all of them."""
        graphs = (self.manifest.graph(entry.graph) for expert in self.manifest.experts for entry in expert.weights)
        widths = [int(out.shape[2]) for graph in graphs for out in graph.outputs if out.name == "top_values"]
        return min(widths, default=None)

    def _tokens(self, prompt: Prompt) -> Tokens:
        ids = asked.token_ids(prompt)
        if ids is None:
            text = asked.words(prompt)
            ids = self.vocabulary.encode(text) if isinstance(text, str) else self.vocabulary.chat(text)
        rows = min(expert.vocab_size for expert in self.manifest.experts)
        if len(ids) and not 0 <= ids.min() <= ids.max() < rows:
            raise ConfigError(f"prompt: token ids are in [0, {rows}), got {ids.min()} to {ids.max()}")
        return ids

    def _own_prompts(self, prompt: Prompt, variants: Mapping[str, str]) -> dict[str, Tokens]:
        self._check_names("variants", variants)
        for expert, template in variants.items():
            if not isinstance(template, str) or "{prompt}" not in template:
                raise ConfigError(f"variants: {expert}: a template must be a text with {{prompt}}, got {template!r}")
        if variants and asked.token_ids(prompt) is not None:
            raise ConfigError("variants: the prompt must be a text or a conversation, got token ids")
        return {expert: self._tokens(filled(template, asked.words(prompt))) for expert, template in variants.items()}

    def _shown(self, prompt: Prompt) -> str:
        """A prompt as a result shows it: of a conversation, the last message."""
        ids = asked.token_ids(prompt)
        if ids is not None:
            return self.vocabulary.decode(ids)
        text = asked.words(prompt)
        return text if isinstance(text, str) else str(text[-1].get("content", ""))

    def _result(self, prompt: str, closed: Closed) -> Result:
        answer = closed.answer
        if answer is None:
            raise MachineError(f"no answer: {closed.failure}{self._deaths(closed.failure or '')}")
        values = {score.candidate: score.value for score in answer.scores}
        order = {expert: place for place, expert in enumerate(self.ensemble.experts)}

        def reply(candidate: Candidate) -> Reply:
            inference, written = candidate.inference, closed.written[candidate]
            return Reply(
                inference.model,
                inference.sample,
                written.text,
                candidate.total_tokens,
                candidate.mean_logprob,
                values.get(candidate, candidate.value),
                candidate.answer,
                closed.ended[candidate] - closed.arrival,
                candidate is answer.candidate,
                self._finish(candidate, written),
                tuple(spelled(self.vocabulary.bytes, written.tokens.tolist(), written.notes, written.text))
                if written.notes
                else (),
            )

        replies = sorted(map(reply, answer.candidates), key=lambda each: (order[each.expert], each.sample))
        return Result(
            prompt,
            closed.written[answer.candidate].text,
            answer.reason,
            tuple(replies),
            closed.query.prompt_tokens,
            sum(each.new_tokens for each in replies),
            closed.seconds,
            self.provider,
            answer.degraded,
            self.placed.choice.fallback,
            self.placed.layout,
            self.placed.kernels,
        )

    def _finish(self, candidate: Candidate, written: Written) -> Finish:
        if candidate.total_tokens < candidate.inference.query.max_new_tokens:
            return "stop"
        ended = written.tokens[-1] in self.vocabulary.ends or written.text != self.vocabulary.decode(written.tokens)
        return "stop" if ended else "length"

    def _budget(self, tokens: Tokens, most: int | None) -> int:
        if not len(tokens):
            raise ConfigError("prompt: it has no tokens")
        room = self.placed.context - len(tokens)
        if room < 1:
            raise ConfigError(
                f"prompt: {len(tokens)} tokens are too long for the context of {self.placed.context}, "
                "which the answer shares"
            )
        wanted = self.manifest.defaults.max_new_tokens if most is None else asked.whole("max_new_tokens", most, 1)
        return min(wanted, room)

    def _policy(self, policy: str | Policy | None, settings: Mapping[str, Any], verified: bool) -> Policy:
        if policy is not None and not isinstance(policy, str):
            asked.functions(policy=policy)
            return policy
        name = policy or self.manifest.defaults.policy
        for key in ("expert", "first"):
            if settings.get(key) is not None:
                self._check_names(key, [settings[key]])
        if settings.get("verifier", VERIFIER) != VERIFIER:
            raise ConfigError(f"policy {name}: the verifier here is {VERIFIER!r}, got {settings['verifier']!r}")
        if name == "filtered" and not verified:
            raise ConfigError("policy filtered: needs a verifier (`verify`)")
        try:
            chosen = policy_named(name, **settings)
            next(chosen(self.ensemble, Query(0, 1, 1)))  # a setting that is wrong shows when the policy begins
        except (TypeError, ValueError, NoAnswer) as error:
            raise ConfigError(f"policy: {error}") from None
        return chosen

    def _check_names(self, key: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.ensemble.experts:
                raise ConfigError(f"{key}: no expert {name!r}; there are {', '.join(self.ensemble.experts)}")

    def _deaths(self, said: str) -> str:
        """Of what models have died, as far as it was not said."""
        return "".join(f"; {reason}" for reason in dict.fromkeys(self.loop.dead.values()) if reason not in said)


def waited(futures: Sequence[Future[Result]]) -> list[Result]:
    """The results of all; where one fails, or the waiting is interrupted, all are withdrawn."""
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def filled(template: str, prompt: str | Sequence[Message]) -> str | Sequence[Message]:
    """The prompt, or the last message of a conversation, in the template's place of `{prompt}`."""
    if isinstance(prompt, str):
        return template.replace("{prompt}", prompt)
    *before, last = prompt
    return [*before, {**last, "content": template.replace("{prompt}", str(last.get("content", "")))}]


def limits_record(limits: Any) -> dict[str, int | bool]:
    """The fields of a model's Limits."""
    return {name: getattr(limits, name) for name in limits.__dataclass_fields__}


def ensemble_of(manifest: Manifest, samples: int | None, min_candidates: int) -> Ensemble:
    """Who is asked, how often, and who judges; None: as the bundle says. Raises ConfigError."""
    value = manifest.value.name if manifest.value and manifest.value.weights else None
    try:
        return Ensemble(
            tuple(expert.name for expert in manifest.experts),
            manifest.defaults.samples_per_expert if samples is None else asked.whole("samples", samples, 1),
            value,
            min_candidates,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
