"""JSON Schemas of the files that people write, for editors."""

from __future__ import annotations

from typing import Any

from octavo.profiles.scenario import Scenario

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TABLES = ("hardware", "models", "links", "prices")


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file: profiles may be named, or start `from` a named one."""
    schema = Scenario.model_json_schema(mode="validation")
    properties, definitions = schema["properties"], schema["$defs"]
    properties["workload"] = _or_named(definitions, "Workload")
    for table, kind in zip(_TABLES, ("Hardware", "Model", "Link", "Price"), strict=True):
        properties[table]["additionalProperties"] = _or_named(definitions, kind)
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return {"$schema": _DIALECT, "title": "octavo scenario", **{k: v for k, v in schema.items() if k != "title"}}


def _or_named(definitions: dict[str, Any], kind: str) -> dict[str, Any]:
    """A name, a profile written out (its own name may be left out), or one that starts from another."""
    whole = definitions[kind]
    whole["required"] = [key for key in whole["required"] if key != "name"]
    start = {"from": {"type": "string", "description": "the profile to start from"}}
    definitions[f"{kind}From"] = {**whole, "properties": {**start, **whole["properties"]}, "required": ["from"]}
    return {"anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{kind}"}, {"$ref": f"#/$defs/{kind}From"}]}
