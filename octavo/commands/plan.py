"""`octavo plan`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from octavo import show, terminal
from octavo.options import Json, Out
from octavo.profiles.errors import ConfigError

if TYPE_CHECKING:
    from octavo.simulator.plan.trials import Pool


def plan(
    scenario: Annotated[str, typer.Argument(help="A built-in scenario's name, or a YAML file.")],
    change: Annotated[list[str] | None, typer.Option("--set", help="a.b=c sets, a.b*=0.7 scales; repeatable.")] = None,
    what_if: Annotated[
        list[str] | None, typer.Option(help="Plan again with a.b*=0.7, joined by ;. Repeatable.")
    ] = None,
    hardware: Annotated[list[str] | None, typer.Option(help="Only these devices; repeatable.")] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="Only dedicated, co-located, lora or swapped models; repeatable.")
    ] = None,
    tensor_parallel: Annotated[
        list[int] | None, typer.Option(help="Only so many devices a replica; repeatable.", min=1)
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Weights in it; that answers stay as right is assumed. Repeatable.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Plan it too: a name, or {name: best_of_n, samples: 4}. Repeatable; `all` has a choice."),
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Try so many rows in a batch; repeatable.", min=1)] = None,
    budget: Annotated[list[int] | None, typer.Option(help="Try so many tokens in a step; repeatable.", min=1)] = None,
    most_devices: Annotated[int, typer.Option(help="No fleet has more devices.", min=1)] = 512,
    seeds: Annotated[int | None, typer.Option(help="How many runs decide; the scenario says otherwise.", min=1)] = None,
    queries: Annotated[
        int | None, typer.Option(help="Queries per run that decides; what a steady state takes by default.", min=1)
    ] = None,
    n_minus_1: Annotated[
        bool, typer.Option("--n-minus-1", help="The targets must hold with any one device away, too.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Simulate the plan again, 10 times as long.")] = False,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Show what moves the cost most.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Processes; all cores by default.", min=1)] = None,
    on: Annotated[str, typer.Option(help="local, or ray: over a cluster's nodes, with the same result.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="On Ray: the cluster; one of this machine's own.")] = None,
    emit: Annotated[Path | None, typer.Option(help="Write what deploys and checks the plan to this folder.")] = None,
    image: Annotated[str | None, typer.Option(help="The container image that --emit names.")] = None,
    co2: Annotated[bool, typer.Option("--co2", help="Show the carbon too.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Find the cheapest fleet that carries a scenario's traffic within its targets, and say why not a cheaper one.

    Exits with 3 when no fleet meets the targets; the closest one and what it misses are named. Stopped, it says what
    it has found so far, and exits with 130 (Ctrl-C) or 143 (SIGTERM).
    """
    from octavo.profiles import load_scenario
    from octavo.simulator.plan import Space, lines, policies
    from octavo.simulator.plan import emit as deploy
    from octavo.simulator.plan import plan as find
    from octavo.simulator.plan.fixed import enduring

    if (emit is None) != (image is None):
        raise ConfigError("plan: --emit and --image go together: manifests name the image that runs the bundle")
    loaded = load_scenario(scenario, overrides=change or [])
    loaded = enduring(loaded) if n_minus_1 else loaded
    wanted: dict[str, Any] = {
        "hardware": hardware,
        "modes": mode,
        "tensor_parallel": tensor_parallel,
        "precisions": precision,
        "batches": batch,
        "budgets": budget,
        "policies": policies(policy or (), loaded),
    }
    pool = _pool(show.choice("on", on, Literal["local", "ray"]), jobs, ray_address)
    choices: dict[str, Any] = {name: tuple(values) for name, values in wanted.items() if values}
    with terminal.stoppable() as stop, _kept(out, json, co2, stop), terminal.watching() as watch:
        found = find(
            loaded,
            space=Space(**choices, most_devices=most_devices),
            seeds=list(range(seeds)) if seeds else None,
            queries=queries,
            what_if=what_if or [],
            check_longer=check,
            sensitive=sensitivity,
            pool=pool,
            progress=lambda stage, share: watch(stage, share, ""),
        )
    if out:
        show.write(out, found.to_json())
    written = deploy(found, emit, image=str(image)) if emit else []
    if json:
        print(found.to_json(), end="")
    else:
        terminal.say("\n".join([*lines(found, co2=co2), *(f"wrote {path}" for path in written)]))


@contextmanager
def _kept(out: Path | None, json: bool, co2: bool, stop: terminal.Stop) -> Iterator[None]:
    """What was judged is written where there is no plan, and where whoever asked does not wait for it."""
    from octavo.simulator.plan import Infeasible, Interrupted, lines_so_far

    try:
        yield
    except (Infeasible, Interrupted) as none:
        if out:
            show.write(out, none.to_json())
        if json:
            print(none.to_json(), end="")
        if isinstance(none, Infeasible):
            raise
        if not json:
            terminal.say("\n".join(lines_so_far(none, co2=co2)))
        raise typer.Exit(stop.code) from None


def _pool(on: str, jobs: int | None, ray_address: str | None) -> Pool:
    """What runs the simulations."""
    from octavo.simulator.plan.trials import Pool

    if on == "local":
        if ray_address:
            raise ConfigError("plan: --ray-address goes with --on ray")
        return Pool(jobs)
    if jobs:
        raise ConfigError("plan: --jobs is for --on local; on Ray, the cluster's processors are used")
    from octavo.simulator.plan.on_ray import RayPool

    return RayPool(ray_address)
