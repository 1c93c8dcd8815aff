"""The report as JSON: the same sections, with numbers in base units rather than words."""

from __future__ import annotations

import json
from typing import Any

from octavo.simulator.report.blocks import Block, Bullets, Code, Figure, Page, Stats, Table, Text
from octavo.simulator.report.numbers import Cell, Number

SCHEMA = 1


def to_json(page: Page) -> str:
    """The whole report. The same page gives the same bytes."""
    sections = [
        {"name": section.name, "title": section.title, "blocks": [_block(block) for block in section.blocks]}
        for section in page.sections
    ]
    data = {
        "kind": "report",
        "schema": SCHEMA,
        "title": page.title,
        "lead": page.lead,
        "sources": page.sources,
        "sections": sections,
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text(text):
            return {"kind": "text", "text": text}
        case Bullets(title, items):
            return {"kind": "list", "title": title, "items": items}
        case Stats(items):
            return {
                "kind": "headline",
                "items": [dict(zip(("what", "number", "beside"), i, strict=True)) for i in items],
            }
        case Code(caption, text, language):
            return {"kind": "code", "caption": caption, "language": language, "text": text}
        case Table():
            return {"kind": "table", **_table(block)}
        case Figure():
            numbers = _table(block.table) if block.table else None
            return {
                "kind": "figure",
                "name": block.name,
                "title": block.title,
                "caption": block.caption,
                "table": numbers,
            }


def _table(table: Table) -> dict[str, Any]:
    rows = [dict(zip(table.columns, map(_cell, row), strict=True)) for row in table.rows]
    return {"caption": table.caption, "columns": table.columns, "rows": rows}


def _cell(cell: Cell) -> Any:
    if not isinstance(cell, Number):
        return cell
    interval = {"low": cell.low, "high": cell.high} if cell.bounded else {}
    return {"value": cell.value, "unit": cell.unit, **interval}
