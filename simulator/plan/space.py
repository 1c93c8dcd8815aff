"""What a plan may choose from: devices, how many, how models are split and put together, precisions, policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, get_args

from octavo.profiles.catalog import list_profiles
from octavo.profiles.ensemble import Lora
from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Mode, Placement
from octavo.profiles.load import load_hardware, vary
from octavo.profiles.quantity import Precision
from octavo.profiles.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Space:
    """The choices. `None` means: what the scenario itself suggests.

    Devices are, by default, of the kinds that a tier has now and sold as the tier buys. A precision stands for weights
    whose expert states none; that answers stay as right in it is an assumption. Policies are searched only where
    `targets.accuracy` says how right answers must be; without it they are planned for comparison; one may state its
    `samples_per_expert`. `batches` are `engine.max_num_seqs`, `budgets` `engine.max_num_batched_tokens`.
    """

    hardware: tuple[str, ...] | None = None
    tensor_parallel: tuple[int, ...] = (1, 2, 4, 8)
    precisions: tuple[Precision, ...] = ()
    modes: tuple[Mode, ...] = ("dedicated", "co-located", "lora")
    batches: tuple[int, ...] = ()
    budgets: tuple[int, ...] = ()
    together: bool = True
    mixed: bool = False
    policies: tuple[Mapping[str, Any], ...] = ()
    most_devices: int = 512

    def __post_init__(self) -> None:
        if not self.tensor_parallel or min(self.tensor_parallel) < 1 or self.most_devices < 1:
            raise ConfigError("space: tensor_parallel and most_devices are positive")
        for name, kind in (("modes", Mode), ("precisions", Precision)):
            if wrong := [each for each in getattr(self, name) if each not in get_args(kind)]:
                raise ConfigError(f"space.{name}: {wrong[0]!r} -> {', '.join(get_args(kind))}")
        if min((*self.batches, *self.budgets, 1)) < 1:
            raise ConfigError("space: batches and budgets are positive")


@dataclass(frozen=True)
class Shape:
    """Everything of a fleet but its numbers of replicas."""

    placements: tuple[Placement, ...]
    precision: Precision | None = None
    batch: int | None = None
    budget: int | None = None

    @property
    def key(self) -> str:
        """Names the shape; the order of keys settles ties."""
        places = [f"{p.tier}/{p.hardware}x{p.devices}/{p.mode}/{'+'.join(p.of)}" for p in self.placements]
        return " ".join([*places, *(f"{name}={value}" for name, value in self.engine.items())])

    @property
    def engine(self) -> dict[str, Any]:
        """The settings of the engine that it chooses."""
        chosen = {
            "precision": self.precision,
            "max_num_seqs": self.batch,
            "max_num_batched_tokens": self.budget,
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def alone(self, place: Placement) -> Shape:
        """One of its placements on its own."""
        return replace(self, placements=(place,))


@dataclass(frozen=True)
class Point:
    """A fleet: a shape, and how many replicas each placement of it has."""

    shape: Shape
    replicas: tuple[int, ...]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.shape.key} {self.replicas}")

    def __hash__(self) -> int:
        return hash(self.key)

    def applied(self, scenario: Scenario) -> Scenario:
        """The scenario on this fleet; its tiers have as many devices as that takes."""
        placed = tuple(
            place.model_copy(update={"replicas": count})
            for place, count in zip(self.shape.placements, self.replicas, strict=True)
        )
        tiers = {name: tier.model_copy(update={"devices": {}}) for name, tier in scenario.fleet.tiers.items()}
        change: dict[str, Any] = {"fleet": scenario.fleet.model_copy(update={"placement": placed, "tiers": tiers})}
        if self.shape.engine:
            change["engine"] = scenario.engine.model_copy(update=self.shape.engine)
        return scenario.model_copy(update=change)


def furnished(scenario: Scenario, space: Space) -> Scenario:
    """The scenario with every device of the space in its table. Raises ConfigError where one is unknown."""
    wanted = {name for tier in scenario.fleet.tiers for name in devices_for(scenario, tier, space)}
    missing = sorted(wanted - set(scenario.hardware))
    return vary(scenario, {"hardware": {name: name for name in missing}}) if missing else scenario


def devices_for(scenario: Scenario, tier: str, space: Space) -> tuple[str, ...]:
    """Names of the hardware that a tier may have."""
    own = tuple(dict.fromkeys(p.hardware for p in scenario.fleet.placement if p.tier == tier))
    if scenario.latency not in ("auto", "roofline"):
        return own  # a measured machine says nothing about another
    if space.hardware is None:
        kinds: set[str] = {scenario.hardware[name].kind for name in own}
        names = {row["name"] for row in list_profiles("hardware")} | set(scenario.hardware)
        return tuple(sorted(name for name in names if _sold(scenario, tier, name, kinds)))
    sold = tuple(name for name in space.hardware if _sold(scenario, tier, name, None))
    if not sold:
        basis = scenario.fleet.tiers[tier].basis
        raise ConfigError(f"space.hardware: none of {', '.join(space.hardware)} has a price {basis} (tier {tier})")
    return sold


def _sold(scenario: Scenario, tier: str, name: str, kinds: set[str] | None) -> bool:
    hardware = scenario.hardware.get(name) or load_hardware(name)
    basis = scenario.fleet.tiers[tier].basis
    return hardware.usd_per_hour(basis) is not None and (kinds is None or hardware.kind in kinds)


def shapes(scenario: Scenario, space: Space) -> Iterator[Shape]:
    """Every shape of the space, whether or not it fits. `scenario` is furnished."""
    engines = product(space.precisions or (None,), space.batches or (None,), space.budgets or (None,))
    for precision, batch, budget in engines:
        for layout in _layouts(scenario, space):
            options = [tuple(_placements(scenario, place, space)) for place in layout]
            for chosen in product(*options):
                if space.mixed or _alike(chosen):
                    yield Shape(chosen, precision, batch, budget)


def _alike(chosen: Sequence[Placement]) -> bool:
    """A tier has one kind of device."""
    return len({(place.tier, place.hardware) for place in chosen}) == len({place.tier for place in chosen})


def _layouts(scenario: Scenario, space: Space) -> Iterator[tuple[Placement, ...]]:
    """The scenario's own placements; and those of a tier put together on the same devices."""
    own = tuple(place for place in scenario.fleet.placement if scenario.names_of(place))
    yield own
    tiers = dict.fromkeys(place.tier for place in own)
    if space.together and {"co-located", "swapped"} & set(space.modes) and len(tiers) < len(own):
        groups = [[place for place in own if place.tier == tier] for tier in tiers]
        yield tuple(_merged(group) if len(group) > 1 else group[0] for group in groups)


def _merged(group: Sequence[Placement]) -> Placement:
    names = tuple(dict.fromkeys(name for place in group for name in place.of))
    return group[0].model_copy(update={"of": names, "mode": "co-located"})


def _placements(scenario: Scenario, place: Placement, space: Space) -> Iterator[Placement]:
    for name in devices_for(scenario, place.tier, space):
        for shards in _shards(scenario, place, space, name):
            for mode in _modes(scenario, place, space):
                change = {"hardware": name, "tensor_parallel": shards, "mode": mode, "replicas": 1}
                yield place.model_copy(update=change)


def _shards(scenario: Scenario, place: Placement, space: Space, name: str) -> tuple[int, ...]:
    if scenario.latency not in ("auto", "roofline"):
        return (place.tensor_parallel,)
    most = scenario.hardware[name].node_devices
    return tuple(count for count in sorted(set(space.tensor_parallel)) if count <= most) or (1,)


def _modes(scenario: Scenario, place: Placement, space: Space) -> tuple[Mode, ...]:
    names = scenario.names_of(place)
    if len(names) == 1:
        return ("dedicated",)
    merged = "value" in names
    lora = isinstance(scenario.ensemble.adapters, Lora) and not merged
    allowed: tuple[Mode, ...] = ("co-located", "swapped") if merged else get_args(Mode)
    found = tuple(mode for mode in allowed if mode in space.modes and (mode != "lora" or lora))
    return found or (place.mode,)


def who(place: Placement) -> str:
    """The models of a placement, in words."""
    return " and ".join(place.of) if len(place.of) < 3 else f"{place.of[0]} to {place.of[-1]}"
