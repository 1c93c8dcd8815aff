"""A bundle has one tokenizer: files that say the same are made the same, and others are told of."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel

from octavo.exporters.export import export_bundle
from octavo.runtime.place import same_tokenizer
from tests.exporters.conftest import Maker

BYTES = BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])


def save(folder: Path, *, truncated: int | None = None, merges: bool = True) -> Path:
    tokenizer = Tokenizer(BYTES)
    if truncated:
        tokenizer.enable_truncation(truncated)
        tokenizer.enable_padding(length=truncated)
    tokenizer.save(str(folder / "tokenizer.json"))
    if not merges:  # as earlier versions wrote them
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        content["model"]["merges"] = ["a b"]
        path.write_text(json.dumps(content))
    return folder


def test_tokenizers_that_say_the_same_become_one(make_model: Maker, tmp_path: Path) -> None:
    folders = [
        save(make_model(seed=0)),
        save(make_model(seed=1), truncated=16),
        save(make_model(seed=2), merges=False),
        make_model(seed=3),
    ]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders[:3]}) == 3
    manifest = export_bundle(folders, tmp_path / "bundle", verify=False)
    same_tokenizer(tmp_path / "bundle", manifest)
    written = [file.sha256 for file in manifest.files if file.path.endswith("tokenizer.json")]
    assert len(written) == 3
    assert len(set(written)) == 1


def test_tokenizers_that_differ_are_told_of(make_model: Maker, tmp_path: Path) -> None:
    first, other = save(make_model(seed=0)), make_model(seed=1)
    Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(other / "tokenizer.json"))
    notes: list[str] = []
    export_bundle([first, other], tmp_path / "bundle", verify=False, progress=lambda p: notes.append(p.note))
    assert f"{other.name}: another tokenizer than {first.name}'s; a bundle whose models differ in it cannot" in notes[1]
