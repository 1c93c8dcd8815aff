"""Prepacked weights: the same answers from what is kept, and nothing used that is not as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from octavo.cli import main
from octavo.profiles.errors import MachineError
from octavo.profiles.manifest import read_manifest
from octavo.runtime.local import Octavo
from octavo.runtime.ort.pages import beyond, huge_pages
from octavo.runtime.ort.prepacked import DATA, LIST, MODEL, home, name, whole


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def said(bundle: Path, *, prepack: bool) -> list[tuple[str, float]]:
    with Octavo.load(bundle, threads=1, prepack=prepack) as octavo:
        result = octavo.ask("mids 52917340:", max_new_tokens=8, temperature=0, ends=False)
    return [(reply.text, reply.mean_logprob) for reply in result.candidates]


@pytest.mark.parametrize("options", [{}, {"adapters": True}])
def test_answers_do_not_change(make_bundle: Callable[..., Path], options: dict[str, object]) -> None:
    bundle = make_bundle(2, **options)
    plain = said(bundle, prepack=False)
    for _ in range(2):
        kept = said(bundle, prepack=True)
        assert [text for text, _ in kept] == [text for text, _ in plain]
        assert [value for _, value in kept] == pytest.approx([value for _, value in plain], abs=1e-6)


def test_what_would_compute_something_else_is_not_kept(make_bundle: Callable[..., Path]) -> None:
    """Scales of a tiny matrix lie inside the graph, where ONNX Runtime forgets that they were packed."""
    with pytest.raises(MachineError, match="without prepack"):
        said(make_bundle(1, precision="int4"), prepack=True)
    assert not list(home().iterdir())


def test_what_is_kept_is_used_as_it_was_written_or_made_again(bundle: Path) -> None:
    plain = said(bundle, prepack=True)
    manifest = read_manifest(bundle)
    folder = home() / name(manifest, manifest.experts[0].weights[0])
    assert {path.name for path in folder.iterdir()} == {MODEL, DATA, LIST}
    written = (folder / DATA).stat().st_mtime_ns
    assert said(bundle, prepack=True) == plain
    assert (folder / DATA).stat().st_mtime_ns == written
    (folder / DATA).write_bytes(bytes((folder / DATA).stat().st_size))
    assert whole(folder, verify=False)
    assert not whole(folder)
    assert said(bundle, prepack=True) == plain
    (folder / "more").write_text("")
    assert not whole(folder)
    (folder / "more").unlink()
    folder.chmod(0o777)
    assert not whole(folder)
    folder.chmod(0o700)
    copy = folder.with_name("copy")
    (folder / DATA).rename(copy)
    (folder / DATA).symlink_to(copy)
    assert not whole(folder)
    assert said(bundle, prepack=True) == plain
    assert len(list(home().iterdir())) == 4  # three models, and the copy


def test_other_weights_have_another_name(make_bundle: Callable[..., Path]) -> None:
    manifest = read_manifest(make_bundle(2))
    assert len({name(manifest, expert.weights[0]) for expert in manifest.experts}) == 2


def test_huge_pages_change_no_byte() -> None:
    with huge_pages():
        numbers = np.random.default_rng(0).integers(0, 256, 9 << 20, dtype=np.uint8)
        copy = numbers.copy()
    assert (numbers == copy).all()


def test_only_new_memory_is_moved() -> None:
    known = [(10, 20), (30, 40)]
    assert list(beyond([(5, 12), (15, 35), (50, 60)], known)) == [(5, 10), (20, 30), (50, 60)]
    assert list(beyond([(12, 18)], known)) == []
    assert list(beyond([(0, 100)], known)) == [(0, 10), (20, 30), (40, 100)]


def test_the_command_line_deals_models_out_to_devices(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same answers on one device, on two, and from kept weights; a wrong device is named."""
    told = []
    for more in ([], ["--devices", "cpu:0"], ["--devices", "cpu:0, cpu:1", "--threads", "1"], ["--prepack"]):
        asked = ["ask", str(bundle), "mids 52917340:", "--temperature", "0", "--max-new-tokens", "6", "--json"]
        assert main([*asked, *more]) == 0
        found = json.loads(capsys.readouterr().out)
        told.append([(each["expert"], each["text"]) for each in found["candidates"]])
    assert told[1:] == told[:1] * 3
    assert main(["ask", str(bundle), "a", "--devices", "cuda:0,cpu:0", "--provider", "cpu"]) == 2
    assert "cuda:0 does not run CPUExecutionProvider" in " ".join(capsys.readouterr().err.split())
