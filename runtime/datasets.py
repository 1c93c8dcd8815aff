"""Tasks, and rows of well-known files as such: HumanEval and MBPP (answers are programs), GSM8K (numbers)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from octavo.runtime.sandbox import run_python

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
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
        source = self.prompt + text if self.continues else code_of(text)
        return run_python(f"{source}\n\n{self.tests}\n").passed


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
    """`prompt`, `entry_point`, `test`: the text goes on with the function that the prompt begins."""
    tests = f"{row['test']}\ncheck({row['entry_point']})"
    return Task(str(row.get("task_id", number)), row["prompt"], None, tests, continues=True)


def mbpp(row: Row, number: int) -> Task:
    """`text` (or `prompt`) and `test_list`: the assertions are shown, as the paper does."""
    tests = "\n".join(row["test_list"])
    prompt = f"{row.get('text') or row.get('prompt')}\nYour code should pass these tests:\n{tests}\n"
    return Task(str(row.get("task_id", number)), prompt, None, f"{row.get('test_setup_code', '')}\n{tests}")


def gsm8k(row: Row, number: int) -> Task:
    """`question`, and an `answer` whose number stands after ####."""
    answer = str(row["answer"]).rpartition("####")[2]
    return Task(str(row.get("id", number)), f"Question: {row['question']}\nAnswer:", last_number(answer), numeric=True)


SHAPES: tuple[tuple[frozenset[str], Callable[[Row, int], Task]], ...] = (
    (frozenset({"prompt", "entry_point", "test"}), human_eval),
    (frozenset({"test_list"}), mbpp),
    (frozenset({"question", "answer"}), gsm8k),
)


def adapted(row: Row, number: int) -> Task | None:
    """The row as a task, if it has the shape of one of these files."""
    return next((adapt(row, number) for keys, adapt in SHAPES if keys <= set(row)), None)
