"""The report as Markdown: the same words and tables; a figure becomes its caption and its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from octavo.simulator.report.blocks import Block, Bullets, Code, Figure, Page, Stats, Table, Text

_ROWS_OF_A_FIGURE = 40


def to_markdown(page: Page) -> str:
    """The whole report. The same page gives the same text."""
    parts = [f"# {page.title}", page.lead]
    for section in page.sections:
        parts.append(f"## {section.title}")
        parts += [part for block in section.blocks for part in _block(block)]
    parts.append(f"Made from {', '.join(page.sources)}.")
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(text):
            yield text
        case Bullets(title, items):
            yield f"### {title}"
            yield "\n".join(f"- {item}" for item in items)
        case Stats(items):
            yield "\n".join(f"- {what}: **{number}** ({beside})" for what, number, beside in items)
        case Code(caption, text, language):
            yield f"{caption}:"
            yield f"```{language}\n{text.rstrip()}\n```"
        case Table():
            yield f"### {block.caption}"
            yield _table(block)
        case Figure():
            yield f"### {block.title}"
            yield block.caption
            if block.table and len(block.table.rows) <= _ROWS_OF_A_FIGURE:
                yield _table(block.table)


def _table(table: Table) -> str:
    rows = [table.columns, ("---",) * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)


def _cell(cell: object) -> str:
    return "–" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ")
