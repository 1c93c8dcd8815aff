"""The report as one HTML file that needs nothing else: styles, data, plotly.js and script are all inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files

from plotly.offline import get_plotlyjs

from octavo.simulator.report.assumptions import RUMOUR
from octavo.simulator.report.blocks import Block, Bullets, Code, Figure, Page, Section, Stats, Table, Text
from octavo.simulator.report.numbers import Cell, Number, span, write

# Nothing may be fetched from anywhere: the browser itself refuses it.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def to_html(page: Page) -> str:
    """The whole file. The same page gives the same bytes."""
    return "\n".join(_file(page)) + "\n"


def _file(page: Page) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{escape(page.title)}</title>\n<style>\n{_part('report.css')}</style>\n</head>\n<body>"
    yield f'<a class="skip" href="#{page.sections[0].name}">Skip to the summary</a>\n<div class="page">'
    yield from _header(page)
    yield "<main>"
    for section in page.sections:
        yield from _section(section)
    yield "</main>"
    yield from _footer(page)
    yield f"</div>\n<script>{get_plotlyjs()}</script>\n<script>\n{_part('report.js')}</script>\n</body>\n</html>"


def _part(name: str) -> str:
    return files("octavo.simulator.report").joinpath(name).read_text(encoding="utf-8")


def _header(page: Page) -> Iterator[str]:
    yield f'<header>\n<p class="eyebrow">octavo report</p>\n<h1>{escape(page.title)}</h1>'
    yield f'<p class="lead">{escape(page.lead)}</p>\n</header>\n<nav aria-label="Sections"><ol>'
    for section in page.sections:
        yield f'<li><a href="#{section.name}">{escape(section.title)}</a></li>'
    yield "</ol></nav>"


def _footer(page: Page) -> Iterator[str]:
    made = ", ".join(page.sources)
    yield f"<footer>\n<p>Made from {escape(made)}.</p>"
    yield "<p>This file loads nothing from the network. The same facts stand beside it as JSON and Markdown.</p>"
    yield "<noscript><p>The figures need JavaScript; the tables hold the same numbers.</p></noscript>\n</footer>"


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.name}" aria-labelledby="{section.name}-title">'
    yield f'<h2 id="{section.name}-title">{escape(section.title)}</h2>'
    for block in section.blocks:
        yield from _block(block)
    yield "</section>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(text):
            yield f"<p>{escape(text)}</p>"
        case Bullets(title, items, strong):
            kind = ' class="strong"' if strong else ""
            said = "".join(f"<li>{escape(item)}</li>" for item in items)
            yield f"<div{kind}><h3>{escape(title)}</h3><ul>{said}</ul></div>"
        case Stats(items):
            yield f'<dl class="stats">{"".join(_stat(*item) for item in items)}</dl>'
        case Code(caption, text, _, shown):
            yield from _code(caption, text, shown)
        case Table():
            yield f'<div class="table"><p class="table-title">{escape(block.caption)}</p>{_table(block)}</div>'
        case Figure():
            yield from _figure(block)


def _stat(what: str, number: str, beside: str) -> str:
    shown = f'<dd class="number">{escape(number)}</dd><dd class="beside">{escape(beside)}</dd>'
    return f"<div><dt>{escape(what)}</dt>{shown}</div>"


def _code(caption: str, text: str, shown: bool) -> Iterator[str]:
    """The text as it is; keyboards reach it to scroll it."""
    kind = ' class="wrap"' if shown else ""
    body = f'<pre{kind} tabindex="0" aria-label="{escape(caption)}"><code>{escape(text)}</code></pre>'
    yield (
        f'<p class="table-title">{escape(caption)}</p>{body}'
        if shown
        else f"<details><summary>{escape(caption)}</summary>{body}</details>"
    )


def _table(table: Table) -> str:
    numeric = [any(isinstance(row[i], Number) for row in table.rows) for i in range(len(table.columns))]
    classes = [' class="n"' if number else ' class="w"' if _wordy(table, i) else "" for i, number in enumerate(numeric)]
    head = "".join(f'<th scope="col"{c}>{escape(name)}</th>' for name, c in zip(table.columns, classes, strict=True))
    body = "".join(f"<tr>{''.join(_cells(row, classes))}</tr>" for row in table.rows)
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.caption)}">{inner}</div>'


def _wordy(table: Table, column: int) -> bool:
    return any(len(str(row[column] or "")) > 40 for row in table.rows)


def _cells(row: tuple[Cell, ...], classes: list[str]) -> Iterator[str]:
    """The first cell names the row."""
    yield f'<th scope="row"{classes[0]}>{_cell(row[0])}</th>'
    yield from (f"<td{c}>{_cell(cell)}</td>" for cell, c in zip(row[1:], classes[1:], strict=True))


def _cell(cell: Cell) -> str:
    if cell is None:
        return '<span aria-label="not known">–</span>'
    if not isinstance(cell, Number):
        return f"<strong>{escape(cell)}</strong>" if cell == RUMOUR else escape(cell)
    value = escape(write(cell.value, cell.unit))
    if cell.low is None or cell.high is None:
        return value
    return f'{value}<span class="interval">{escape(span(cell.low, cell.high, cell.unit))}</span>'


def _figure(figure: Figure) -> Iterator[str]:
    name = f"figure-{figure.name}"
    drawn = json.dumps({"data": figure.data, "layout": figure.layout}, separators=(",", ":"), allow_nan=False)
    spec = drawn.replace("<", "\\u003c")
    yield f'<figure id="{name}"><figcaption id="{name}-caption"><strong>{escape(figure.title)}</strong>'
    yield f"<span>{escape(figure.caption)}</span></figcaption>"
    yield f'<div class="plot" role="img" aria-labelledby="{name}-caption" data-spec="{name}-spec"'
    yield f' style="height:{figure.height}px"></div>'
    yield f'<script type="application/json" id="{name}-spec">{spec}</script>'
    if figure.table:
        summary = f"<summary>The numbers of this figure ({len(figure.table.rows)} rows)</summary>"
        yield f'<details class="data">{summary}{_table(figure.table)}</details>'
    yield "</figure>"
