from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from octavo.profiles import ConfigError, load_scenario

SMALL: dict[str, Any] = {
    "ensemble": {"experts": {"model": "llama-3.1-8b", "count": 2}},
    "fleet": {"tiers": {"here": {}}, "placement": [{"of": "experts", "tier": "here", "hardware": "rtx-4090"}]},
    "workload": "chat",
}


@pytest.fixture(autouse=True)
def own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the profiles of whoever runs it."""
    monkeypatch.setenv("OCTAVO_PROFILES", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[str]]:
    """What is said of the small scenario with some of it replaced."""

    def ask(*overrides: str, **parts: Any) -> list[str]:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(SMALL | parts))
        try:
            load_scenario(path, overrides)
        except ConfigError as error:
            return [line.removeprefix(f"{path}: ") for line in str(error).splitlines()]
        return []

    return ask
