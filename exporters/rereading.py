"""How a value model reads prompt and answer: the experts' tokens, or the words anew by a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.exporters.checkpoint import Checkpoint
from octavo.exporters.classifier import has_template, longest
from octavo.exporters.package import companion
from octavo.exporters.plan import Group
from octavo.exporters.vocabulary import TOKENIZER_NAME, compare, converted
from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import READS, Reads


@dataclass(frozen=True, slots=True)
class Rereading:
    """What the manifest says of it."""

    reads: Reads
    max_tokens: int | None = None
    pad_token_id: int | None = None

    def entry(self) -> dict[str, Any]:
        """The fields of the value model's entry."""
        return {"reads": self.reads, "max_tokens": self.max_tokens, "pad_token_id": self.pad_token_id}

    def told(self, name: str) -> Iterator[str]:
        """For the user, where it is not what all models read."""
        if self.max_tokens is not None:
            own = f"by its own tokenizer, at most {self.max_tokens} tokens"
            yield f"{name}: reads {READS[self.reads]}, {own}; of more, the prompt loses its start"


def rereading(group: Group, experts: Mapping[str, Path], wanted: Reads | None) -> Rereading:
    """How the value model of a group reads. `experts` are their tokenizers' files, by name.

    Unless one way is `wanted`: the experts' tokens where it has a cache and their tokenizer; else as its chat template
    has it; else as a pair where it reads sequences whole, as one text where not.
    """
    [member] = group.members
    checkpoint, kv = member.checkpoint, group.graphs[0].kv
    whole, path = kv is None, companion(TOKENIZER_NAME, checkpoint)
    if wanted == "tokens" and whole:
        raise ConfigError(f"value_reads tokens: {checkpoint.folder} keeps no cache of them; text, pair or chat")
    if wanted is None and not whole and _shared(path, experts):
        return Rereading("tokens")
    reads = wanted or _usual(checkpoint, whole=whole)
    if reads == "tokens":
        return Rereading("tokens")
    if reads == "chat" and not has_template(checkpoint):
        raise ConfigError(
            f"value_reads chat: {checkpoint.folder} has no chat template; put one into chat_template.jinja"
        )
    if path is None and converted(checkpoint.folder) is None:
        raise BundleError(f"{checkpoint.folder}: no {TOKENIZER_NAME}, and none can be made of what is there")
    most = longest(checkpoint) if kv is None else kv.max_length
    return Rereading(reads, most, checkpoint.config.get("pad_token_id"))


def _usual(checkpoint: Checkpoint, *, whole: bool) -> Reads:
    if has_template(checkpoint):
        return "chat"
    return "pair" if whole else "text"


def _shared(path: Path | None, experts: Mapping[str, Path]) -> bool:
    """Whether the value model's tokenizer is the experts', or it has none."""
    first = next(iter(experts.items()), None)
    return path is None or first is None or not compare(dict([first]) | {"": path}).different
