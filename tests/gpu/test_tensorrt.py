"""On a GPU with TensorRT 10: engines are built ahead, found again, and compute what the CPU does."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import Manifest, read_manifest
from octavo.runtime.local import Octavo
from octavo.runtime.ort.build import build_engines
from octavo.runtime.ort.engines import find_engines
from octavo.runtime.ort.gpu import device_name, tensorrt_version
from octavo.runtime.ort.providers import TENSORRT, probe
from octavo.runtime.ort.survey import survey
from tests.gpu.test_exported_graphs import make_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (found := probe(TENSORRT)).works, reason=f"TensorRT does not work here: {found.detail}"),
]
PROMPTS = [np.array([5, 6, 7]), np.arange(20, 60), np.array([400, 300, 200, 100])]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models

    from octavo.exporters.export import export_bundle

    home = tmp_path_factory.mktemp("tensorrt")
    folders = [make_checkpoint(home / f"expert-{number}", number) for number in range(2)]
    for folder in folders:
        vocabulary = {chr(256 + number): number for number in range(512)}
        Tokenizer(models.BPE(vocab=vocabulary, merges=[])).save(str(folder / "tokenizer.json"))
    export_bundle(folders, home / "bundle", targets=["cpu", "cuda", "tensorrt"], precision="fp16")
    return home / "bundle"


@pytest.fixture
def manifest(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """With an empty cache of engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return read_manifest(bundle)


def answers(bundle: Path, provider: str, **options: bool) -> list[str]:
    with Octavo.load(bundle, provider=provider, **options) as octavo:
        results = octavo.ask_many(PROMPTS, temperature=0.0, max_new_tokens=24, ends=False)
    return [candidate.text for result in results for candidate in result.candidates]


def test_the_machine_says_what_it_is() -> None:
    assert device_name(0)
    assert (tensorrt_version() or "").startswith("10.")


@pytest.mark.parametrize("stripped", [False, True])
def test_engines_built_ahead_are_opened_at_once_and_answer_alike(
    stripped: bool, manifest: Manifest, bundle: Path
) -> None:
    expected = answers(bundle, "cuda")
    built = list(build_engines(bundle, manifest, stripped=stripped))
    assert len(built) == len(manifest.experts)
    graph = next(graph for graph in manifest.graphs if graph.lowering == "tensorrt")
    weights = next(weights for weights in manifest.experts[0].weights if weights.graph == graph.name)
    assert (find_engines(manifest, graph, weights, 0).model is None) is stripped
    start = time.perf_counter()
    found = answers(bundle, "tensorrt")
    assert time.perf_counter() - start < sum(engine.seconds for engine in built) + 5
    same = sum(ours == theirs for ours, theirs in zip(found, expected, strict=True))
    print(f"{same} of {len(found)} greedy texts are those of CUDA in fp16")
    assert same >= 0.75 * len(found)


def test_all_of_a_graph_is_one_engine(manifest: Manifest, bundle: Path) -> None:
    for found in survey(bundle, manifest, "tensorrt"):
        assert set(found.nodes) == {TENSORRT}
        assert found.fallback is None


def test_recorded_calls_are_refused(manifest: Manifest, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="records a single shape of call"):
        answers(bundle, "tensorrt", cuda_graphs=True)
