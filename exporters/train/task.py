"""The puzzles of the embedded default: eight ways to rearrange a row of digits, and the exact verifier.

A prompt is `mids 52917340:`, a puzzle's name and an even number of digits; the one right answer is a row of digits.
Standard library only, so that an evaluation can use it where nothing else is installed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Literal

Digits = list[int]
Split = Literal["train", "validation", "heldout"]


def mids(digits: Digits) -> Digits:
    """Each digit becomes the median of itself and its two neighbours; the row is a ring."""
    neighbourhoods = zip(_turned(digits, -1), digits, _turned(digits, 1), strict=True)
    return [sorted(three)[1] for three in neighbourhoods]


def lows(digits: Digits) -> Digits:
    """Read from right to left: the lowest digit so far."""
    return [min(digits[-count:]) for count in range(1, len(digits) + 1)]


def even(digits: Digits) -> Digits:
    """The even digits, then the odd ones; each in the order in which they stood."""
    return sorted(digits, key=lambda digit: digit % 2)


def high(digits: Digits) -> Digits:
    """The digits from 5 up, then the others; each in the order in which they stood."""
    return sorted(digits, key=lambda digit: digit < 5)


def fore(digits: Digits) -> Digits:
    """Each digit becomes the nearest greater one to its right, or 0 without one."""
    return [_first_above(digit, digits[place + 1 :]) for place, digit in enumerate(digits)]


def back(digits: Digits) -> Digits:
    """Each digit becomes the nearest greater one to its left, or 0 without one."""
    return [_first_above(digit, digits[:place][::-1]) for place, digit in enumerate(digits)]


def zips(digits: Digits) -> Digits:
    """The first half and the second half, dealt alternately."""
    half = len(digits) // 2
    return [digit for pair in zip(digits[:half], digits[half:], strict=True) for digit in pair]


def turn(digits: Digits) -> Digits:
    """The row turned left by one place, then each pair swapped."""
    turned = _turned(digits, 1)
    return [digit for place in range(0, len(turned), 2) for digit in (turned[place + 1], turned[place])]


def _turned(digits: Digits, places: int) -> Digits:
    return digits[places:] + digits[:places]


def _first_above(digit: int, others: Digits) -> int:
    return [*(other for other in others if other > digit), 0][0]


PUZZLES: dict[str, Callable[[Digits], Digits]] = {
    puzzle.__name__: puzzle for puzzle in (mids, lows, even, high, fore, back, zips, turn)
}
PROMPT = re.compile(rf"({'|'.join(PUZZLES)}) ((?:[0-9][0-9])+):")


def prompt_for(name: str, row: str) -> str:
    return f"{name} {row}:"


def solve(prompt: str) -> str | None:
    """The right answer, or None for a text that is no puzzle."""
    if not (parts := PROMPT.fullmatch(prompt.strip())):
        return None
    name, row = parts.groups()
    return "".join(map(str, PUZZLES[name]([int(digit) for digit in row])))


def answer_of(text: str) -> str:
    """The label under which a candidate votes."""
    return text.strip()


def verify(prompt: str, text: str) -> bool:
    """Whether `text` is the right answer to `prompt`; junk on either side is wrong, never an error."""
    return answer_of(text) == solve(prompt)


def split_of(row: str) -> Split:
    """Which problems a row of digits belongs to, for all puzzles alike: one row in twenty is held out."""
    splits: dict[int, Split] = {0: "heldout", 1: "validation"}
    return splits.get(zlib.crc32(row.encode()) % 20, "train")
