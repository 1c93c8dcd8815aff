"""`plan`: searches the space for a scenario, its baselines and policies, and asks of the answer what a buyer asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from octavo.profiles.errors import ConfigError
from octavo.profiles.load import baselines, override, vary
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan import questions as asked
from octavo.simulator.plan.line import Line, Unfinished, planned_line, words
from octavo.simulator.plan.result import Plan, WhatIf
from octavo.simulator.plan.space import Space, furnished
from octavo.simulator.plan.trials import Pool, Progress
from octavo.simulator.plan.unplanned import Infeasible, Interrupted
from octavo.simulator.supported import check

WHAT_IF = "what if "


def plan(
    scenario: Scenario,
    *,
    space: Space | None = None,
    seeds: Sequence[int] | None = None,
    queries: int | None = None,
    what_if: Sequence[str] = (),
    check_longer: bool = False,
    sensitive: bool = False,
    jobs: int | None = None,
    pool: Pool | None = None,
    progress: Progress = lambda stage, share: None,
) -> Plan:
    """The cheapest fleet for the scenario's traffic and targets.

    Runs that decide have so many `queries` per seed; by default the scenario's own, or as many as a steady state takes.
    Each of `what_if` (`a.b*=0.7`, several joined by `;`) is planned on its own. `check_longer` simulates the answer
    again, ten times as long on fresh seeds; `sensitive` finds what moves its cost. `pool` runs the simulations: by
    default processes of this machine, `jobs` of them; it is closed. The plan is the same, whatever runs it.

    Raises Infeasible where nothing meets the targets, ConfigError where something is asked for that is not there,
    Interrupted with what was found until then where a KeyboardInterrupt comes.
    """
    check(scenario)
    space, chosen_seeds = space or Space(), tuple(scenario.seeds if seeds is None else seeds)
    wanted, supposing = (
        [(scenario.name, scenario), *_variants(scenario, space)],
        list(_supposing(furnished(scenario, space), what_if)),
    )
    done: list[Line] = []
    with pool or Pool(jobs) as pool, _kept(done):

        def search(named: Iterable[tuple[str, Scenario]]) -> Iterator[Line]:
            tasks = [(name, (name, furnished(each, space), each is scenario)) for name, each in named]
            for line in pool.each(partial(_line, space, chosen_seeds, queries), tasks, progress):
                line.lab.pool = pool  # what is asked later of a line that was found elsewhere is run from here
                yield line

        done.extend(search(wanted))  # one by one
        own, beside = done[0], tuple(done[1:])
        allowed = _allowed(own, beside, space)
        chosen = min((line for line in allowed if line.best), key=_usd, default=None)
        if chosen is None:
            nearest = min(allowed, key=Line.far)
            beside_it = "" if nearest is own else f" {nearest.name}:"
            why = f"{scenario.name}: no fleet meets the targets;{beside_it} {nearest.why()}"
            raise Infeasible(why, nearest.closest, tuple(done))
        supposed = tuple(map(_supposed, what_if, search(supposing)))
        progress("questions", 0.0)
        chosen.look_at_next_cheaper()
        found = Plan(
            chosen,
            own,
            beside,
            {line.name: asked.headroom(line) for line in (own, *beside) if line.best},
            asked.band(chosen),
            tuple(sorted(asked.relaxations(chosen), key=lambda each: (-each.saved, each.target))),
            tuple(asked.one_down(chosen)),
            supposed,
            asked.sensitivity(chosen) if sensitive else (),
            chosen.lab.recheck(chosen.found.point) if check_longer else None,
            pool.runs,
        )
        progress("questions", 1.0)
        return found


@contextmanager
def _kept(done: list[Line]) -> Iterator[None]:
    """What interrupts the search is told of all lines until then."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        under_way = stopped.line if isinstance(stopped, Unfinished) else None
        # What is asked of the answer, what-ifs too, comes when all lines are there.
        own = [under_way] if under_way and not under_way.name.startswith(WHAT_IF) else []
        raise Interrupted((*done, *own)) from None


def _variants(scenario: Scenario, space: Space) -> Iterator[tuple[str, Scenario]]:
    yield from baselines(scenario).items()
    for policy in space.policies:
        name = f"policy {' '.join(str(value) for value in policy.values())}"
        facts = {key: value for key, value in policy.items() if key != "samples_per_expert"}
        samples = policy.get("samples_per_expert", scenario.ensemble.samples_per_expert)
        yield name, vary(scenario, {"ensemble": {"policy": facts, "samples_per_expert": samples}, "baselines": []})


def _allowed(own: Line, beside: Sequence[Line], space: Space) -> list[Line]:
    """The scenario's own policy; all that are tried where a target says how right answers must be."""
    policies = beside[len(beside) - len(space.policies) :] if space.policies else ()
    return [own, *policies] if own.scenario.targets.accuracy is not None else [own]


def _usd(line: Line) -> float:
    return line.found.usd_per_hour


def _line(
    space: Space,
    seeds: tuple[int, ...],
    queries: int | None,
    pool: Pool,
    wanted: tuple[str, Scenario, bool],
    progress: Callable[[float], None],
) -> Line:
    """Where it runs is the pool's business, so all that it needs is given."""
    name, scenario, thorough = wanted
    return planned_line(name, scenario, space, pool, seeds, queries, progress, thorough)


def _supposing(scenario: Scenario, what_if: Sequence[str]) -> Iterator[tuple[str, Scenario]]:
    for text in what_if:
        changes = [change.strip() for change in text.split(";") if change.strip()]
        if not changes:
            raise ConfigError("what-if: give a change, such as workload.arrivals.rate*=3")
        try:
            supposed = override(scenario, changes)
        except ConfigError as error:
            raise ConfigError(str(error).replace("--set", "--what-if")) from None
        yield f"{WHAT_IF}{text}", supposed.model_copy(update={"baselines": ()})


def _supposed(text: str, line: Line) -> WhatIf:
    if line.best is None:
        return WhatIf(text, None, line.why())
    return WhatIf(text, line.best.usd_per_hour, words(line.best, line.scenario))
