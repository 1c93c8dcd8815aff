"""Says what is wrong with a file to the person who wrote it: `file: key: value -> what is allowed`."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from octavo.profiles.errors import ConfigError

T = TypeVar("T", bound=BaseModel)
Schema = Mapping[str, Any]

_KEYED = re.compile(r"([A-Za-z_][\w.-]*): (.*)", re.DOTALL)


def validate(kind: type[T], data: object, origin: str) -> T:
    """The data as an object of `kind`. Raises ConfigError with every error, one a line."""
    found, problems = check(kind, data, origin)
    if found is None:
        raise ConfigError("\n".join(problems))
    return found


def check(kind: type[T], data: object, origin: str) -> tuple[T | None, list[str]]:
    """The object, or None and a line per error. Reads JSON so that lists and dates of YAML pass the strict types."""
    try:
        return kind.model_validate_json(json.dumps(data, default=str)), []
    except ValidationError as error:
        schema, wrongs = _schema(kind), error.errors(include_url=False)
        outer = {wrong["loc"][:depth] for wrong in wrongs for depth in range(len(wrong["loc"]))}
        lines = [line for wrong in wrongs if wrong["loc"] not in outer for line in _lines(wrong, schema)]
        return None, [f"{origin}: {line}" for line in lines]


@lru_cache
def _schema(kind: type[BaseModel]) -> Schema:
    return kind.model_json_schema()


def suggest(given: str, choices: Iterable[str]) -> str:
    """The choices, after the nearest one where there is one."""
    names = sorted(choices)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}allowed: {', '.join(names) or 'nothing'}"


def _lines(wrong: ErrorDetails, schema: Schema) -> list[str]:
    """One, or as many as a check of several fields found."""
    if wrong["type"] != "value_error":
        return [_line(wrong, schema)]
    return [_line({**wrong, "msg": line}, schema) for line in wrong["msg"].splitlines()]


def _line(wrong: ErrorDetails, schema: Schema) -> str:
    keys, parent = _walk(schema, wrong["loc"])
    path, rest = ".".join(keys), wrong["msg"].removeprefix("Value error, ")
    context = wrong.get("ctx", {})
    match wrong["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key -> {suggest(keys[-1], _choices(parent))}"
        case "missing":
            return f"{path}: missing -> a value is needed"
        case "literal_error" | "union_tag_invalid":
            return _wrong_choice(wrong, path, schema)
        case "union_tag_not_found":
            return f"{path}: missing {context['discriminator']} -> one that says which it is"
        case "value_error" if inner := _KEYED.fullmatch(rest):
            return f"{'.'.join([*keys, inner[1]])} -> {inner[2]}"
        case "value_error" if isinstance(wrong["input"], dict):
            return f"{path or 'file'} -> {rest}"
    return f"{path or 'file'}: {_shown(wrong['input'])} -> {rest[:1].lower()}{rest[1:]}"


def _wrong_choice(wrong: ErrorDetails, path: str, schema: Schema) -> str:
    """A word that is none of the words allowed there."""
    context = wrong.get("ctx", {})
    given = str(context.get("tag", wrong["input"]))
    choices = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected")))
    key = f"{path}.{str(context['discriminator']).strip(chr(39))}" if "discriminator" in context else path
    return f"{key}: {given!r} -> {suggest(given, choices)}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _walk(schema: Schema, loc: tuple[int | str, ...]) -> tuple[list[str], Schema]:
    """The dotted key of an error, without the tags that pydantic adds for alternatives, and the schema around it."""
    node, parent, keys = _opened(schema, schema), schema, []
    for part in loc:
        node, is_key = _step(schema, node, part)
        if is_key:
            keys.append(str(part))
        if "properties" in node and part != loc[-1]:
            parent = node
    return keys, parent


def _step(root: Schema, node: Schema, part: int | str) -> tuple[Schema, bool]:
    """The schema below one part of a location, and whether the part is a key (rather than an alternative's tag)."""
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return _opened(root, {"$ref": mapping[part]}), False
    for option in (node, *(_opened(root, option) for option in node.get("anyOf", ()))):
        if part in option.get("properties", {}):
            return _opened(root, option["properties"][part]), True
        if isinstance(part, int) and isinstance(option.get("items"), dict):
            return _opened(root, option["items"]), True
        if isinstance(part, str) and isinstance(option.get("additionalProperties"), dict):
            return _opened(root, option["additionalProperties"]), True
    return {}, True


def _opened(root: Schema, node: Schema) -> Schema:
    """The schema itself where a reference stands, and the one that is not null where None is allowed."""
    while True:
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rsplit("/", 1)[-1]]
            continue
        real = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
        if len(real) != 1:
            return node
        node = real[0]


def _choices(node: Schema) -> list[str]:
    return list(node.get("properties", ()))
