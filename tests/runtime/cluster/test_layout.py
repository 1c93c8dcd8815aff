"""Branches from a plan, or dealt out evenly."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.profiles import load_scenario
from octavo.profiles.branch import BranchPlace, branches_of
from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import Manifest, verify_bundle
from octavo.profiles.scenario import Scenario
from octavo.runtime.cluster.layout import branches_for, even, named


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return verify_bundle(bundle)


def scenario(*changes: str, experts: int = 2) -> Scenario:
    return load_scenario(
        "single-box", overrides=[f"ensemble.experts=[{{model: llama-3.1-8b, count: {experts}}}]", *changes]
    )


def placed(manifest: Manifest, *changes: str, experts: int = 2) -> list[BranchPlace]:
    return named([branch for branch, _ in branches_of(scenario(*changes, experts=experts))], manifest)


def test_a_plan_places_the_bundles_models(manifest: Manifest) -> None:
    dedicated = placed(manifest, "fleet.placement.0.replicas=3", "fleet.placement.0.tensor_parallel=2")
    assert [(each.models, each.replicas, each.gpus) for each in dedicated] == [
        (("expert-0",), 3, 2),
        (("expert-1",), 3, 2),
        (("value",), 1, 1),
    ]
    together = placed(manifest, "fleet.placement.0.mode=co-located")
    assert [each.models for each in together] == [("expert-0", "expert-1"), ("value",)]
    growing = placed(manifest, "fleet.operations.autoscale={max: 4}")
    assert {each.max_replicas for each in growing} == {4}


def test_another_ensembles_plan_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"expert:2: .* has 2 experts"):
        placed(manifest, experts=3)
    with pytest.raises(ConfigError, match="expert-1 must be on one of them, is on 0"):
        placed(manifest, experts=1)


def test_models_are_dealt_out_once_each(manifest: Manifest) -> None:
    for count in (1, 2, 3):
        branches = even(manifest, count)
        assert [model for branch in branches for model in branch.models] == ["expert-0", "expert-1", "value"]
        assert len({branch.name for branch in branches}) == count
    with pytest.raises(ConfigError, match="has 3 models, for 1 to 3; got 4"):
        even(manifest, 4)


def test_a_branch_may_grow_but_not_shrink() -> None:
    with pytest.raises(ValueError, match=r"max_replicas \(1\) must be at least replicas \(2\)"):
        BranchPlace(name="a", models=("x",), replicas=2, max_replicas=1)


def test_a_plan_and_a_number_exclude_each_other(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="either --plan or --branches"):
        branches_for(bundle, bundle / "plan.yaml", 2)
