"""What every profile is made of: strict frozen data, and a source for every number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Entry(BaseModel):
    """Frozen data whose fields are checked strictly: no unknown key, no number out of a string, no infinity."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True, protected_namespaces=()
    )

    def dump(self) -> dict[str, Any]:
        """Plain data as a file holds it, in base units; reading it gives an equal object."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Source(Entry):
    """Where some fields of a profile come from."""

    of: tuple[str, ...] = Field(min_length=1, description="fields, dotted; a field stands for all below it")
    source: str = Field(min_length=3, description="document and publisher, or how the number was found")
    date: str = Field(pattern=r"^\d{4}(-\d{2}){0,2}$", description="of the document, or of looking it up")
    url: str | None = None
    estimate: bool = Field(default=False, description="nobody published the number; the source says how it was guessed")


class Fact(Entry):
    """A named profile. Every number in it has a source."""

    name: str = Field(min_length=1)
    description: str = ""
    sources: tuple[Source, ...] = ()

    def source_of(self, path: str) -> Source | None:
        """The source of a field such as `price.usd_per_hour`, or of the nearest field that encloses it."""
        found = [(len(field), source) for source in self.sources for field in source.of if _covers(field, path)]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def unsourced(self) -> tuple[str, ...]:
        """Dotted paths of the numbers that no source stands behind."""
        data = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"sources"})
        return tuple(path for path in numbers_in(data) if self.source_of(path) is None)

    def estimates(self) -> tuple[str, ...]:
        """Dotted paths of the numbers that are marked as estimates."""
        data = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"sources"})
        return tuple(path for path in numbers_in(data) if (source := self.source_of(path)) and source.estimate)


def _covers(field: str, path: str) -> bool:
    return path == field or path.startswith(field + ".")


def numbers_in(data: object, path: str = "") -> Iterator[str]:
    """Dotted paths of the numbers in plain data; a list of numbers counts once."""
    match data:
        case bool():
            return
        case int() | float():
            yield path
        case dict():
            for key, value in data.items():
                yield from numbers_in(value, f"{path}.{key}" if path else str(key))
        case list():
            yield from dict.fromkeys(found for value in data for found in numbers_in(value, path))
