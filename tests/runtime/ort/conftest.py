"""An engine that a test drives step by step; octavo's own kernels, compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from octavo.profiles.errors import MachineError
from octavo.profiles.manifest import read_manifest
from octavo.runtime.contents import Contents, Request, prefix_names
from octavo.runtime.core.query import Candidate, Inference, Lost, Query, Score
from octavo.runtime.core.scheduler import Limits, Scheduler, Step
from octavo.runtime.ort import kernels as module
from octavo.runtime.ort.engine import ExpertEngine
from octavo.runtime.ort.kernels import COMPILERS, Kernels, compile_kernels, kernels
from octavo.runtime.ort.providers import CPU
from octavo.runtime.ort.session import Device, open_model
from octavo.runtime.sampling import Sampling
from octavo.runtime.text import Vocabulary


@dataclass
class Bench:
    """One expert's engine and scheduler, driven by hand."""

    folder: Path
    limits: Limits
    vocabulary: Vocabulary = field(init=False)
    lost: list[Lost] = field(default_factory=list)
    done: dict[Inference, Candidate] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        manifest = read_manifest(self.folder)
        expert = manifest.experts[0]
        self.vocabulary = Vocabulary(self.folder / expert.folder)
        self.contents = Contents(self.vocabulary)
        model = open_model(self.folder, manifest, expert.name, expert.weights, CPU, Device("cpu"), 1)
        length = model.kv.max_length
        self.engine = ExpertEngine(model, self.vocabulary, self.contents, self.limits, length)
        self.scheduler = Scheduler(self.limits)
        self.queries = 0

    def ask(
        self,
        prompt: str,
        samples: int = 1,
        tokens: int = 12,
        number: int = 0,
        expert: str = "expert-0",
        **sampling: Any,
    ) -> list[Inference]:
        """Queue the samples of a prompt, sharing its prefill; another `expert` is one of the engine's adapters."""
        ids = self.vocabulary.encode(prompt)
        chunk = self.limits.hash_tokens if self.limits.prefix_caching else None
        query = Query(self.queries, len(ids), tokens, prefix_names(ids, chunk))
        self.queries += 1
        stop = sampling.pop("stop", ())
        self.contents.open(Request(query, ids, Sampling(**sampling), seed=7, number=number, stop=stop))
        group = [Inference(query, expert, sample) for sample in range(samples)]
        self.scheduler.submit(group)
        return group

    def step(self) -> bool:
        step = self.scheduler.next_step()
        if step is None:
            return False
        self.steps.append(step)
        self.engine.remember(self.scheduler.kv.resident)
        results = self.engine.run(step)
        stopped = []
        for result in results:
            assert not isinstance(result, Score)
            job = self.scheduler.job(result.inference)
            assert job is not None
            stopped.append(job)
            if isinstance(result, Lost):
                self.lost.append(result)
            else:
                self.done[result.inference] = result
        self.scheduler.commit(step, 1, stopped)
        return True

    def withdraw(self, inference: Inference) -> None:
        job = self.scheduler.job(inference)
        if job is not None:
            self.scheduler.withdraw(inference)
            self.engine.withdraw(job)

    def run(self) -> None:
        while self.step():
            pass

    def tokens(self, inference: Inference) -> list[int]:
        return [int(token) for token in self.contents.written(self.done[inference]).tokens]

    @property
    def empty(self) -> bool:
        """Nothing is held anywhere."""
        return self.engine.held == 0 and self.scheduler.kv.used == 0 and len(self.scheduler) == 0


MakeBench = Callable[..., Bench]


@pytest.fixture(scope="session")
def bench(bundle: Path) -> MakeBench:
    """bench(**limits): a new bench on the bundle's first expert."""

    def make(folder: Path = bundle, **limits: Any) -> Bench:
        settings: dict[str, Any] = {"kv_blocks": 200, "max_rows": 16, "max_step_tokens": 256}
        return Bench(folder, Limits(**settings | {"paged": False, "prefix_caching": False} | limits))

    return make


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources in a folder of their own, compiled there: other tests go on without."""
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("kernels") / "native"
    shutil.copytree(module.SOURCES, folder, ignore=shutil.ignore_patterns("*.so"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SOURCES", folder)
        try:
            compile_kernels()
        except MachineError as error:
            if "there are none for" in str(error):
                pytest.skip(str(error))
            raise
    return folder


@pytest.fixture(params=["", "avx2"])
def own(
    request: pytest.FixtureRequest, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kernels]:
    """The kernels as octavo finds them; a copy of the library decides anew which instructions it uses."""
    shutil.copytree(built, tmp_path / "native")
    monkeypatch.setattr(module, "SOURCES", tmp_path / "native")
    monkeypatch.setenv("OCTAVO_INSTRUCTIONS", request.param)
    kernels.cache_clear()
    found = kernels()
    if not isinstance(found, Kernels):
        pytest.skip(found)
    assert request.param in found.instructions
    yield found
    kernels.cache_clear()
