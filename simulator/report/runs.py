"""The documents of one report, by kind, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from octavo.simulator.report.document import Document, Evaluation, Simulation
from octavo.simulator.report.picture import Picture, pictures

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Runs:
    """The documents of a report by kind, and what they say together."""

    documents: tuple[Document, ...]

    def of(self, kind: type[D]) -> tuple[D, ...]:
        return tuple(document for document in self.documents if isinstance(document, kind))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return pictures(self.of(Evaluation), self.of(Simulation))
