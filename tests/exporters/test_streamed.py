"""An original whose weights stay in their files says, bit for bit, what one says whose weights are in memory."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.exporters import reference
from tests.exporters.conftest import Maker

NAMES = ["llama-multi-query-biased-tied", "gemma3", "phi3-partly-turned", "mixtral"]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_the_same(name: str, make_model: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    folder, ids = make_model(name, dtype="bfloat16"), np.arange(4, 44)
    with reference.open_reference(folder, "logits", stream=True) as original:
        assert next(original._model.parameters()).dtype == torch.float32  # too small to be worth it
        expected = original.outputs(ids)
    monkeypatch.setattr(reference, "SMALL", 0)
    with reference.open_reference(folder, "logits", stream=True) as original:
        assert next(original._model.parameters()).dtype == torch.bfloat16
        for _ in range(2):
            assert np.array_equal(original.outputs(ids), expected)
        assert next(original._model.parameters()).dtype == torch.bfloat16
