"""A bundle in which anything was changed is refused in one line, whatever was changed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.profiles.errors import OctavoError
from octavo.profiles.manifest import verify_bundle

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(st.data())
def test_any_change_of_any_file_is_refused(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    changed = tmp_path / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(bundle, changed)
    names = sorted(path.relative_to(changed) for path in changed.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(names))
    content = (changed / name).read_bytes()
    at = data.draw(st.integers(0, max(len(content) - 1, 0)))
    how = data.draw(st.sampled_from(["flipped", "truncated", "grown", "swapped"]))
    if how == "flipped":
        new = content[:at] + bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))]) + content[at + 1 :]
    elif how == "truncated":
        new = content[:at]
    elif how == "grown":
        new = content + data.draw(st.binary(min_size=1, max_size=9))
    else:
        new = (changed / data.draw(st.sampled_from(names))).read_bytes()
    (changed / name).write_bytes(new)
    if new == content:
        verify_bundle(changed)
    elif name != Path("manifest.json"):
        with pytest.raises(OctavoError):
            verify_bundle(changed)
    else:  # it may say something else that is as true
        with suppress(OctavoError):
            verify_bundle(changed)
