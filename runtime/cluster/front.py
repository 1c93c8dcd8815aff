"""The front: an `Octavo` whose models run on branches. Queries, policies and answers are here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.manifest import Manifest, verify_bundle
from octavo.runtime.cluster.branch import Description
from octavo.runtime.cluster.lane import BranchLane, Carrier, Postman
from octavo.runtime.cluster.layout import models_of
from octavo.runtime.contents import Contents
from octavo.runtime.core.council import Council
from octavo.runtime.core.policies import policy_named
from octavo.runtime.lane import Lane
from octavo.runtime.local import Octavo, ensemble_of
from octavo.runtime.loop import Loop
from octavo.runtime.ort.providers import Choice
from octavo.runtime.place import Placed
from octavo.runtime.recorder import Recorder
from octavo.runtime.text import Vocabulary
from octavo.runtime.verifier import VERIFIER, VerifierEngine

START = 600.0  # seconds that a branch may take to load its models


class Front(Octavo):
    """As `Octavo`, but the engines are elsewhere: what `load` makes of a bundle here, `connect` makes of branches."""

    _postman: Postman

    @classmethod
    def connect(
        cls,
        bundle: Path,
        carriers: Mapping[str, Carrier],
        *,
        samples: int | None = None,
        min_candidates: int = 1,
        keep_records: bool = False,
    ) -> Front:
        """Wait until every branch (by name) has loaded its models, and put the ensemble together.

        Raises BundleError, ConfigError where a model is on no branch or on two, MachineError where a branch doesn't
        start.
        """
        manifest = verify_bundle(bundle)
        postman = Postman()
        try:
            found = {name: _described(name, carrier, postman) for name, carrier in carriers.items()}
            _check(manifest, found)
        except BaseException:
            postman.close()
            raise
        contents = Contents(Vocabulary(bundle / manifest.experts[0].folder))
        away = [BranchLane(name, found[name], carriers[name], contents, postman) for name in carriers]
        council = Council(ensemble_of(manifest, samples, min_candidates), policy_named(manifest.defaults.policy))
        lanes: list[Lane] = [*away, Lane(VERIFIER, {VERIFIER: VerifierEngine(contents)})]
        loop = Loop(council, lanes, contents, Recorder(keep=keep_records))
        for lane in away:
            lane.report_to(loop)
        front = cls(bundle, manifest, _placed(found, list(away)), loop, Vocabulary(bundle / manifest.experts[0].folder))
        front._postman = postman
        return front

    def close(self) -> None:
        """Cancel what is open; the branches stay."""
        super().close()
        self._postman.close()


def _described(name: str, carrier: Carrier, postman: Postman) -> Description:
    try:
        description: Description = postman.send(carrier.describe()).result(START)
    except Exception as error:
        raise MachineError(f"branch {name} did not start: {type(error).__name__}: {error}") from None
    return description


def _check(manifest: Manifest, found: Mapping[str, Description]) -> None:
    where = {model: [name for name, each in found.items() if model in each.models] for model in models_of(manifest)}
    for model, names in where.items():
        if len(names) != 1:
            raise ConfigError(f"branches: {model} must be on one of them, is on {', '.join(names) or 'none'}")


def _placed(found: Mapping[str, Description], lanes: list[Lane]) -> Placed:
    descriptions = list(found.values())
    fallbacks = [each.fallback for each in descriptions if each.fallback]
    providers = sorted({each.provider for each in descriptions})
    return Placed(
        lanes,
        Choice("+".join(providers), fallbacks[0] if fallbacks else None),
        sum(each.threads for each in descriptions),
        min(each.context for each in descriptions),
        min((each.prefix_tokens for each in descriptions if each.prefix_tokens), default=None),
        kernels=", ".join(dict.fromkeys(each.kernels for each in descriptions)),
    )
