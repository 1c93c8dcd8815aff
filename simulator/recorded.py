"""Recorded outcomes: what `octavo eval` saw of each candidate, dealt to the experts of a scenario."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Records as File
from octavo.profiles.scenario import Scenario
from octavo.simulator.outcomes import Outcomes
from octavo.simulator.panel import slots
from octavo.simulator.streams import Streams

Slot = tuple[str, int]
Table = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Recorded:
    """The candidates of each recorded query, by expert; a query that some expert has no candidate of is left out."""

    file: str
    queries: list[Table]

    @cached_property
    def samples(self) -> dict[str, int]:
        """How often each expert was sampled, in the file's order."""
        most: dict[str, int] = {}
        for table in self.queries:
            for expert, rows in table.items():
                most[expert] = max(most.get(expert, 0), len(rows))
        return most

    @cached_property
    def whole(self) -> list[Table]:
        return [table for table in self.queries if len(table) == len(self.samples)]

    @cached_property
    def best(self) -> str:
        """The expert that was sampled most: `octavo eval` gives the best one more samples than the others."""
        return max(self.samples, key=lambda expert: self.samples[expert])

    def dealt(self, experts: Sequence[str]) -> dict[str, str]:
        """Whose outcomes each expert of a scenario has: those of its name, or of its place; one alone has the best's.

        Raises ConfigError when there are more experts than were recorded.
        """
        if len(experts) == 1:
            return {experts[0]: self.best}
        if all(expert in self.samples for expert in experts):
            return {expert: expert for expert in experts}
        if len(experts) > len(self.samples):
            raise ConfigError(
                f"{self.file}: outcomes.file: {len(experts)} experts answer, {len(self.samples)} were recorded "
                f"({', '.join(self.samples)}); no two experts can have the outcomes of one"
            )
        return dict(zip(experts, self.samples, strict=False))

    def remarks(self, experts: Sequence[str], columns: Sequence[Slot]) -> list[str]:
        """What to know of these outcomes where they are dealt to these experts, for these candidates."""
        dealt, said = self.dealt(experts), []
        if len(experts) == 1:
            said.append(f"recorded outcomes are those of {self.best}, which was sampled most")
        elif any(mine != theirs for mine, theirs in dealt.items()):
            (first, one), (last, other) = (list(dealt.items())[end] for end in (0, -1))
            said.append(f"recorded outcomes go by the experts' order: {first} has those of {one}, {last} of {other}")
        expert, sample = max(columns, key=lambda column: column[1] - self.samples[dealt[column[0]]])
        if sample >= (had := self.samples[dealt[expert]]):
            of = f"{had} samples of {dealt[expert]} were recorded, {sample + 1} are asked for"
            said.append(f"{of}: they repeat, and more samples find more than this shows")
        if missing := len(self.queries) - len(self.whole):
            said.append(f"{missing} of {len(self.queries)} recorded queries are left out: an expert has no candidate")
        return said


def recorded(scenario: Scenario, file: str, queries: int, streams: Streams) -> Outcomes:
    """Each query takes the outcomes of a recorded one, drawn with replacement."""
    records, columns = read(file), slots(scenario)
    dealt = records.dealt(_experts(scenario))
    picks = streams.of("difficulty").integers(len(records.whole), size=queries)
    rows = [[_sample(table[dealt[expert]], sample) for expert, sample in columns] for table in records.whole]
    labels = list(dict.fromkeys(row.get("answer") for line in rows for row in line))
    number = {label: i for i, label in enumerate(labels)}
    return Outcomes(
        np.array([[bool(row["correct"]) for row in line] for line in rows])[picks],
        np.array([[_number(row.get("value"), 0.5) for row in line] for line in rows])[picks],
        np.array([[_number(row.get("mean_logprob"), -1.0) for row in line] for line in rows])[picks],
        np.array([[number[row.get("answer")] for row in line] for line in rows], np.int32)[picks],
        labels,
    )


def remarks(scenario: Scenario) -> Iterable[str]:
    """What to know of a scenario's recorded outcomes, if it has any."""
    outcomes = scenario.outcomes
    return read(outcomes.file).remarks(_experts(scenario), slots(scenario)) if isinstance(outcomes, File) else ()


def _experts(scenario: Scenario) -> list[str]:
    """Those among whom outcomes are dealt: all, or the one that a policy asks without naming it."""
    asked, policy = {expert for expert, _ in slots(scenario)}, scenario.ensemble.policy
    alone = len(asked) == 1 and getattr(policy, "expert", None) is None
    return list(asked) if alone else [expert.name for expert in scenario.ensemble.experts]


def read(file: str) -> Recorded:
    """One record a candidate, with `query`, `expert`, `correct` and perhaps `value`, `mean_logprob`, `answer`.

    Raises ConfigError naming the line that is not such a record.
    """
    tables: dict[str, Table] = defaultdict(lambda: defaultdict(list))
    number = 0
    try:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            number += 1
            if line.strip():
                row = json.loads(line)
                tables[str(row["query"])][str(row["expert"])].append({"correct": row["correct"], **row})
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; outcomes.file names what `octavo eval` recorded") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}:{number}: not an outcome record ({error!r}); it has query, expert, correct"
        ) from None
    found = Recorded(file, list(tables.values()))
    if not found.whole:
        raise ConfigError(f"{file}: no outcome records" + (" of a query that all experts answered" * bool(tables)))
    return found


def _sample(rows: list[dict[str, Any]], sample: int) -> dict[str, Any]:
    """More samples than were recorded are taken from the start again."""
    return rows[sample % len(rows)]


def _number(value: Any, absent: float) -> float:
    return absent if value is None else float(value)
