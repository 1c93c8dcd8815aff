"""The fleets that no other one beats on accuracy, cost and latency together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octavo.simulator.estimate import tidy

COLUMNS, ROWS = 64, 9


@dataclass(frozen=True, slots=True)
class Choice:
    """A fleet of one line of the plan, as the three numbers that matter."""

    line: str
    fleet: str
    accuracy: float
    usd_per_query: float
    latency_p95: float
    meets_targets: bool = True

    def beats(self, other: Choice) -> bool:
        """No worse in all three, and better in one."""
        mine = (-self.accuracy, self.usd_per_query, self.latency_p95)
        its = (-other.accuracy, other.usd_per_query, other.latency_p95)
        return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))

    def to_json(self) -> dict[str, Any]:
        numbers = {name: tidy(getattr(self, name)) for name in ("accuracy", "usd_per_query", "latency_p95")}
        return {"line": self.line, "fleet": self.fleet, **numbers, "meets_targets": self.meets_targets}


def front(choices: Sequence[Choice]) -> list[Choice]:
    """The choices that no other beats, the cheapest first."""
    found = [each for each in choices if not any(other.beats(each) for other in choices)]
    return sorted(found, key=lambda each: (each.usd_per_query, each.latency_p95, each.fleet))


def picture(choices: Sequence[Choice]) -> list[str]:
    """Accuracy upwards and USD per query to the right; a letter per line of the plan, at most 80 columns."""
    if not choices:
        return []
    letters = {name: chr(ord("A") + number % 26) for number, name in enumerate(dict.fromkeys(c.line for c in choices))}
    left, right = min(c.usd_per_query for c in choices), max(c.usd_per_query for c in choices)
    low, high = min(c.accuracy for c in choices), max(c.accuracy for c in choices)
    rows = ROWS if high > low else 1
    canvas = [[" "] * COLUMNS for _ in range(rows)]
    for each in choices:
        x = round((each.usd_per_query - left) / ((right - left) or 1) * (COLUMNS - 1))
        y = round((each.accuracy - low) / ((high - low) or 1) * (rows - 1))
        canvas[rows - 1 - y][x] = letters[each.line]
    labels = [f"{high:.1%}", *[""] * (rows - 2), *([f"{low:.1%}"] if rows > 1 else [])]
    lines = [f"{label:>7} |{''.join(row).rstrip()}" for label, row in zip(labels, canvas, strict=True)]
    ends = f"{left:.3g}".ljust(COLUMNS - 12) + f"{right:.3g} $/query"
    return [*lines, f"        +{'-' * COLUMNS}", f"         {ends}", *_legend(letters)]


def _legend(letters: dict[str, str]) -> list[str]:
    return ["         " + ", ".join(f"{letter} {name}" for name, letter in letters.items())[:88]]
