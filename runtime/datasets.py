"""Tasks, and rows of well-known files as such: HumanEval and MBPP (answers are programs), GSM8K (numbers)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from octavo.runtime.sandbox import run_python

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
NEXT = re.compile(r"\n(?:(?:class|def|if|print)\b|#)")  # where Codex stops (Chen et al. 2021, section 2.1)
FENCE = re.compile(r"```(?:python)?\n(.*?)```", re.DOTALL)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt and, where it is known, the right answer; or tests, a program that is run after the text's.

    `continues` says that the text goes on where the prompt, itself a program, stops. `numeric` answers are equal as
    numbers, wherever in the text the last one stands.
    """

    id: str
    prompt: str
    reference: str | None = None
    tests: str | None = None
    continues: bool = False
    numeric: bool = False

    @property
    def checks_itself(self) -> bool:
        return self.reference is not None or self.tests is not None

    def passes(self, text: str) -> bool:
        """Whether the text's program passes the tests, run in a process of its own."""
        source = continued(self.prompt, text) if self.continues else code_of(text)
        return run_python(f"{source}\n\n{self.tests}\n").passed


def continued(prompt: str, text: str) -> str:
    """A program that a text goes on with, up to the end of its function; or the whole function, from a fenced block."""
    if found := FENCE.search(text):
        return f"{prompt}\n{found[1]}"
    return prompt + NEXT.split(text, maxsplit=1)[0]


def code_of(text: str) -> str:
    """The program in a text: its first fenced block, or all of it."""
    found = FENCE.search(text)
    return found[1] if found else text


def last_number(text: str) -> str | None:
    """The last number in a text, in one spelling: the label of an answer in words."""
    found = NUMBER.findall(text)
    if not found:
        return None
    value = float(found[-1].replace(",", ""))
    return str(int(value)) if value.is_integer() else str(value)


def human_eval(row: Row, number: int) -> Task:
    """`task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`: the text goes on with the prompt's function."""
    prompt, entry, test = _text(row, "prompt"), _text(row, "entry_point"), _text(row, "test")
    return Task(str(row.get("task_id", number)), prompt, None, f"{test}\ncheck({entry})", continues=True)


def mbpp(row: Row, number: int) -> Task:
    """The full form (`text`, `test_setup_code`) or the sanitized one (`prompt`, `test_imports`), with `test_list`.

    The assertions are shown, as the paper does (Austin et al. 2021, arXiv:2108.07732, section 3).
    """
    tests = "\n".join(_texts(row, "test_list"))
    before = [*_texts(row, "test_imports"), row.get("test_setup_code") or ""]
    prompt = f"{_text(row, 'text' if 'text' in row else 'prompt')}\nYour code should pass these tests:\n{tests}\n"
    return Task(str(row.get("task_id", number)), prompt, None, "\n".join([*filter(None, before), tests]))


def gsm8k(row: Row, number: int) -> Task:
    """`question`, and an `answer` whose number stands after ####."""
    _, found, answer = _text(row, "answer").rpartition("####")
    label = last_number(answer)
    if not found or label is None:
        raise ValueError(f"answer has no number after ####: {str(row['answer'])[-40:]!r}")
    return Task(str(row.get("id", number)), f"Question: {_text(row, 'question')}\nAnswer:", label, numeric=True)


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be a text, got {value!r}")
    return value


def _texts(row: Row, key: str) -> list[str]:
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{key} must be a list of texts, got {value!r}")
    if key == "test_list" and not value:
        raise ValueError("test_list is empty: nothing says what is right")
    return value


SHAPES: tuple[tuple[frozenset[str], Callable[[Row, int], Task]], ...] = (
    (frozenset({"prompt", "entry_point", "test"}), human_eval),
    (frozenset({"test_list"}), mbpp),
    (frozenset({"question", "answer"}), gsm8k),
)


def adapted(row: Row, number: int) -> Task | None:
    """The row as a task, if it has the shape of one of these files. Raises ValueError naming the key that is wrong."""
    return next((adapt(row, number) for keys, adapt in SHAPES if keys <= set(row)), None)
