"""What a report is made of: sections of text, tables, figures and code, rendered as HTML, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from octavo.simulator.report.numbers import Cell


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """Sentences under a small title; `strong` is for those that must not be missed."""

    title: str
    items: tuple[str, ...]
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """A few headline numbers: (what, number, beside what)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be kept as it is, folded away under its caption unless `shown`."""

    caption: str
    text: str
    language: str = "text"
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns; numeric cells keep their value for every rendering to write."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure whose colours are CSS variables, what it says in words, and the same facts as a table."""

    name: str
    title: str
    caption: str
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    height: int
    table: Table | None = None


Block: TypeAlias = Text | Bullets | Stats | Code | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; a section without blocks is left out."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report: its title, one sentence under it, what it was made from, and its sections."""

    title: str
    lead: str
    sources: tuple[str, ...]
    sections: tuple[Section, ...]


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table without the columns in which no row says anything."""
    kept = [tuple(row) for row in rows]
    used = [i for i in range(len(columns)) if any(row[i] is not None and row[i] != "" for row in kept)]
    return Table(caption, tuple(columns[i] for i in used), tuple(tuple(row[i] for i in used) for row in kept))


def section(name: str, title: str, *blocks: Block | None) -> Section:
    return Section(name, title, tuple(block for block in blocks if block is not None))
