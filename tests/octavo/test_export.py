"""`octavo export` says before it begins what it could not do at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.cli import main

pytest.importorskip("onnxruntime", reason="needs octavo[runtime]")


def works() -> bool:
    from octavo.runtime.ort.providers import TENSORRT, probe

    return probe(TENSORRT).works


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--out", "b", "--build-engines"], 2, "of the targets cpu none is tensorrt"),
        (["--out", "b", "--check-build"], 2, "of the targets cpu none is tensorrt"),
        (["--out", "b", "--strip-engines"], 2, "goes with --build-engines"),
        ([], 2, "--out: name the bundle folder to write"),
        (["--build-engines"], 5, "not a bundle"),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    options: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), *options]) == code
    assert said in capsys.readouterr().err


def test_engines_are_not_promised_where_there_is_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if works():
        pytest.skip("TensorRT works here")
    asked = ["--out", str(tmp_path / "b"), "--target", "tensorrt", "--precision", "fp16", "--build-engines"]
    assert main(["export", str(tmp_path), *asked]) == 4
    said = capsys.readouterr().err
    assert any(word in said for word in ("NVIDIA driver", "CUDA 13", "TensorRT 10", "built without it"))
    assert not (tmp_path / "b").exists()
