"""`octavo doctor` looks at everything once, and what it says of providers is what a session finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.doctor import examine


def test_everything_is_looked_at_once_and_providers_are_tried(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs octavo[runtime]")
    findings = list(examine(tmp_path))
    found = {finding.what: finding for finding in findings}
    assert len(found) == len(findings)
    assert {"octavo[runtime]", "octavo[rtx]", "GPU 0", "TensorRT", "ONNX Runtime"} <= set(found)
    assert found["CPUExecutionProvider"].status == "ok"
    assert all(finding.detail for finding in findings)
    tensorrt = found.get("TensorrtExecutionProvider")
    if tensorrt and tensorrt.status == "ok":
        assert found["GPU 0"].status == found["TensorRT"].status == "ok"
