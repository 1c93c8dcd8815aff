"""A bundle is whole or absent, holds each byte once, and is refused when anything in it is not as it was written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.opening import open_session
from octavo.exporters.player import Player, greedy
from octavo.exporters.progress import ExportProgress
from octavo.profiles.errors import BundleError, ConfigError, GateError, MachineError
from octavo.profiles.manifest import Manifest, sha256_of, verify_bundle
from tests.exporters.conftest import Maker, value_model

LARGE = {"vocab_size": 700}  # an embedding that is worth sharing


@pytest.fixture
def bundle(make_model: Maker, tmp_path: Path) -> Path:
    export_bundle([make_model(seed=seed) for seed in range(2)], tmp_path / "bundle", verify=False)
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def tiny(make_model: Maker, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two bundles to copy: one whose weights lie beside its graph, and one whose experts share them."""
    folder, bundles = make_model(**LARGE), tmp_path_factory.mktemp("tiny")
    export_bundle([folder], bundles / "own", verify=False)
    export_bundle([folder, folder], bundles / "shared", verify=False)
    return {False: bundles / "own", True: bundles / "shared"}


def share_embedding(source: Path, target: Path) -> None:
    """Give a checkpoint another one's embedding, as a fine-tune that froze it would have."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(target / "model.safetensors")
    tensors["model.embed_tokens.weight"] = load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def test_experts_of_one_architecture_share_one_graph(bundle: Path) -> None:
    manifest = verify_bundle(bundle)
    hashes = {sha256_of(bundle / expert.weights[0].model) for expert in manifest.experts}
    assert hashes == {manifest.graphs[0].sha256}
    assert len(manifest.graphs) == 1


def test_experts_of_different_architectures_get_graphs_of_their_own(make_model: Maker, tmp_path: Path) -> None:
    manifest = export_bundle([make_model(), make_model("qwen3")], tmp_path / "bundle", verify=False)
    assert [expert.weights[0].graph for expert in manifest.experts] == ["decoder-ort-fp32", "decoder-2-ort-fp32"]


def test_weights_that_experts_share_are_stored_once(make_model: Maker, tmp_path: Path) -> None:
    folders = [make_model(seed=seed, **LARGE) for seed in range(3)]
    apart = export_bundle(folders, tmp_path / "apart")
    for folder in folders[1:]:
        share_embedding(folders[0], folder)
    together = export_bundle(folders, tmp_path / "together")
    sizes = [sum(file.size for file in bundle.files if file.path.endswith(".bin")) for bundle in (apart, together)]
    assert sizes[0] - sizes[1] == pytest.approx(2 * 700 * 48 * 4, abs=3 * 4096)
    assert all(expert.weights[0].parity and expert.weights[0].parity.passed for expert in together.experts)
    verify_bundle(tmp_path / "together")


def test_sharded_and_half_precision_checkpoints_are_read(make_model: Maker, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    for dtype in ("bfloat16", "float16"):
        whole, shards = make_model(dtype=dtype), tmp_path / f"shards-{dtype}"
        AutoModelForCausalLM.from_pretrained(whole, torch_dtype=getattr(torch, dtype)).save_pretrained(
            shards, max_shard_size="40KB"
        )
        assert len(list(shards.glob("*.safetensors"))) > 2
        one = export_bundle([whole], tmp_path / f"one-{dtype}", verify=False)
        many = export_bundle([shards], tmp_path / f"many-{dtype}")
        weights = [next(f.sha256 for f in bundle.files if f.path.endswith("weights.bin")) for bundle in (one, many)]
        assert weights[0] == weights[1]


def test_a_failed_gate_leaves_no_bundle(make_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.exporters import decoder

    monkeypatch.setattr(decoder.Drawing, "activation", lambda drawing, x: x)
    with pytest.raises(GateError, match=r"parity failed at fp32: max \|dlogit\|") as failure:
        export_bundle([make_model()], tmp_path / "bundle")
    assert failure.value.exit_code == 6
    assert not list(tmp_path.iterdir())
    assert not export_bundle([make_model()], tmp_path / "bundle", verify=False).verified


def test_an_interrupted_export_leaves_no_bundle_and_is_taken_up_again(make_model: Maker, tmp_path: Path) -> None:
    folders = [make_model(seed=seed) for seed in range(3)]
    written: list[str | None] = []

    def stop(progress: ExportProgress) -> None:
        if progress.stage == "weights":
            written.append(progress.model)
            if len(written) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(folders, tmp_path / "bundle", progress=stop, verify=False)
    assert not (tmp_path / "bundle").exists()
    partial = tmp_path / ".bundle.partial"
    weights = partial / folders[0].name / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    written.clear()
    resumed = export_bundle(
        folders, tmp_path / "bundle", progress=lambda p: p.stage == "weights" and written.append(p.model), verify=False
    )
    assert len(written) == 2, "the damaged and the unfinished one; the intact one is kept"
    verify_bundle(tmp_path / "bundle")
    fresh = export_bundle(folders, tmp_path / "fresh", verify=False)
    assert resumed.files == fresh.files
    assert not partial.exists()


def test_a_full_disk_is_seen_before_anything_is_written(
    make_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from octavo.exporters import package

    usage = package.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(package.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(MachineError, match="GB free, the bundle needs"):
        export_bundle([make_model()], tmp_path / "bundle", verify=False)
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_replaced_only_when_told(bundle: Path, make_model: Maker) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        export_bundle([make_model()], bundle, verify=False)
    assert len(export_bundle([make_model()], bundle, verify=False, overwrite=True).experts) == 1
    assert len(verify_bundle(bundle).experts) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\xff" * 64, b"\x08\0\0\0\0\0\0\0not json", b'\x10\0\0\0\0\0\0\0{"a":{"dtype":1}}']
)
def test_damaged_safetensors_are_refused(content: bytes, make_model: Maker, tmp_path: Path) -> None:
    folder = make_model()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="safetensors"):
        export_bundle([folder], tmp_path / "bundle", verify=False)


def test_pickles_are_never_loaded(make_model: Maker, tmp_path: Path) -> None:
    folder = make_model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match="is a pickle, which is never loaded"):
        export_bundle([folder], tmp_path / "bundle", verify=False)


def weights_of(bundle: Path) -> Path:
    return sorted(bundle.glob("*/weights.bin"))[0]


def linked_out(bundle: Path) -> None:
    weights = weights_of(bundle)
    outside = bundle.parent / "outside.bin"
    weights.rename(outside)
    weights.symlink_to(outside)


def linked_inside(bundle: Path) -> None:
    weights = weights_of(bundle)
    weights.rename(weights.with_name("other.bin"))
    weights.symlink_to("other.bin")


def hard_linked(bundle: Path) -> None:
    os.link(weights_of(bundle), bundle.parent / "outside.bin")


def folder_linked(bundle: Path) -> None:
    folder = weights_of(bundle).parent
    folder.rename(bundle.parent / "outside")
    folder.symlink_to(bundle.parent / "outside")


def truncated(bundle: Path) -> None:
    weights_of(bundle).write_bytes(weights_of(bundle).read_bytes()[:-1])


def flipped(bundle: Path) -> None:
    content = bytearray(weights_of(bundle).read_bytes())
    content[1000] ^= 1
    weights_of(bundle).write_bytes(content)


def missing(bundle: Path) -> None:
    weights_of(bundle).unlink()


def unlisted(bundle: Path) -> None:
    (weights_of(bundle).parent / "custom_ops.so").write_bytes(b"\x7fELF")


def pointed_elsewhere(location: str) -> Callable[[Path], None]:
    return lambda bundle: point(weights_of(bundle).with_name("model.onnx"), "location", location)


def point(model: Path, key: str, value: str) -> None:
    """Change what a model says of the place of its first weight."""
    proto = onnx.load(model, load_external_data=False)
    for entry in next(t for t in proto.graph.initializer if t.external_data).external_data:
        entry.value = value if entry.key == key else entry.value
    model.write_bytes(proto.SerializeToString())


def manifest_path(path: str) -> Callable[[Path], None]:
    def attack(bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["files"][0]["path"] = path
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return attack


ATTACKS = {
    "link to a file outside": linked_out,
    "link to a file inside": linked_inside,
    "hard link": hard_linked,
    "folder that is a link": folder_linked,
    "truncated": truncated,
    "one bit flipped": flipped,
    "missing": missing,
    "file that is not listed": unlisted,
    "external data above": pointed_elsewhere("../secret"),
    "external data absolute": pointed_elsewhere("/etc/passwd"),
    "external data in /proc": pointed_elsewhere("/proc/self/environ"),
    "external data by a detour": pointed_elsewhere("sub/../../secret"),
    "manifest path above": manifest_path("../secret"),
    "manifest path absolute": manifest_path("/etc/passwd"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_bundle_that_was_tampered_with_is_refused(attack: str, bundle: Path) -> None:
    verify_bundle(bundle)
    ATTACKS[attack](bundle)
    with pytest.raises(BundleError):
        verify_bundle(bundle)


def forged(bundle: Path, key: str, value: str) -> None:
    """Point a weight elsewhere, and make every hash in the manifest right again."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for model in bundle.glob("*/model.onnx"):
        point(model, key, value)
        entry = next(file for file in manifest["files"] if file["path"] == model.relative_to(bundle).as_posix())
        entry |= {"sha256": sha256_of(model), "size": model.stat().st_size}
        manifest["graphs"][0]["sha256"] = sha256_of(model)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


FORGERIES = {
    "location": ["../secret", "{outside}/secret", "/proc/self/environ", "sub/../../secret", "secret"],
    "offset": ["-1", str(2**62), str(2**64 - 1)],
    "length": ["-5", "4", str(10**12)],
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("key", "value"), [(key, value) for key in FORGERIES for value in FORGERIES[key]])
def test_forged_external_data_is_not_opened(
    key: str, value: str, shared: bool, tiny: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where all hashes are right: not from the model's folder, and not from weights that are handed in by name."""
    import onnxruntime as ort

    bundle = tmp_path / "bundle"
    shutil.copytree(tiny[shared], bundle)
    (tmp_path / "secret").write_bytes(b"x" * 10**6)
    monkeypatch.chdir(tmp_path)
    weights = verify_bundle(bundle).experts[0].weights[0]
    open_session(bundle, weights, ort.SessionOptions(), ["CPUExecutionProvider"])
    forged(bundle, key, value.format(outside=tmp_path))
    assert verify_bundle(bundle).experts[0].weights[0] == weights
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises((ort.capi.onnxruntime_pybind11_state.Fail, BundleError)):
        open_session(bundle, weights, options, ["CPUExecutionProvider"])


def test_the_page_on_bundles_decodes_as_it_says(make_model: Maker, tmp_path: Path) -> None:
    """The Python of docs/design/bundle.md, run on shared weights, continues as the export's own player."""
    folders = [make_model(seed=seed, **LARGE) for seed in range(2)]
    share_embedding(*folders)
    manifest = export_bundle(folders, tmp_path / "bundle", verify=False)
    page = Path(__file__).parents[2] / "docs" / "design" / "bundle.md"
    blocks = [part.split("```")[0] for part in page.read_text().split("```python\n")[1:]]
    scope: dict[str, Any] = {}
    exec("\n".join(blocks), scope)
    written = run_page(scope, tmp_path / "bundle", manifest)
    graph, weights = manifest.graphs[0], manifest.experts[1].weights[0]
    expected = greedy(Player(tmp_path / "bundle", weights, graph, 1, 64), np.arange(3, 12), 12)
    assert written.shape == (2, 12)
    assert (written == expected).all()


def run_page(scope: dict[str, Any], bundle: Path, manifest: Manifest) -> np.ndarray:
    import onnxruntime as ort

    options, kv = ort.SessionOptions(), manifest.graphs[0].kv
    assert kv is not None
    session = scope["open_model"](bundle, manifest.experts[1].weights[0], options, ["CPUExecutionProvider"])
    cache = scope["Cache"](kv.layers, 2, kv.kv_heads, 64, kv.head_dim, kv.dtype)
    return np.asarray(scope["two_samples"](session, cache, list(range(3, 12)), 12))


def test_the_original_may_lie_in_a_cache_of_links(make_model: Maker, tmp_path: Path) -> None:
    """Hugging Face's cache is made of links; the bundle is made of copies."""
    folder, snapshot = make_model(), tmp_path / "snapshot"
    snapshot.mkdir()
    for path in folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    export_bundle([snapshot], tmp_path / "bundle", value=value_model(make_model), verify=False)
    verify_bundle(tmp_path / "bundle")


def test_importing_the_exporters_is_cheap() -> None:
    import subprocess
    import sys

    code = "import sys, octavo.exporters; print([m for m in ('torch', 'onnx', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
