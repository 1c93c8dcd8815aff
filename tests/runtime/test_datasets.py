"""Rows in the published form of HumanEval, MBPP (full and sanitized) and GSM8K check themselves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from octavo.profiles.errors import ConfigError
from octavo.runtime.tasks import Checker, read_tasks


def human_eval(number: int, name: str, doc: str, body: str, tests: Sequence[str]) -> dict[str, Any]:
    """A row with the five keys of HumanEval.jsonl."""
    lines = "".join(f"    assert candidate({test}\n" for test in tests)
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'from typing import List\n\n\ndef {name}:\n    """ {doc}\n    """\n',
        "entry_point": name.partition("(")[0],
        "canonical_solution": body,
        "test": f"\n\nMETADATA = {{\n    'author': 'x'\n}}\n\n\ndef check(candidate):\n{lines}\n",
    }


def mbpp(number: int, text: str, code: str, tests: list[str], setup: str = "") -> dict[str, Any]:
    """A row with the keys of mbpp.jsonl."""
    keys: dict[str, Any] = {"text": text, "code": code, "task_id": number, "test_setup_code": setup}
    return keys | {"test_list": tests, "challenge_test_list": []}


def sanitized(number: int, prompt: str, code: str, tests: list[str], imports: list[str]) -> dict[str, Any]:
    """A row with the keys of sanitized-mbpp.json."""
    keys: dict[str, Any] = {"source_file": "Benchmark Questions Verification V2.ipynb", "task_id": number}
    return keys | {"prompt": prompt, "code": code, "test_imports": imports, "test_list": tests}


HUMAN_EVAL = [
    human_eval(0, "twice(x: int) -> int", "Double it.", "    return 2 * x\n", ["2) == 4", "0) == 0"]),
    human_eval(1, "largest(xs: List[int]) -> int", "The most.", "    return max(xs)\n", ["[1, 3, 2]) == 3"]),
    human_eval(
        2,
        "vowels(s: str) -> int",
        "Count.",
        "    n = 0\n    for c in s:\n        n += c in 'aeiou'\n    return n\n",
        ["'area') == 3", "'') == 0"],
    ),
    human_eval(
        3, "flat(xs: List[List[int]])", "Join.", "    return [x for y in xs for x in y]\n", ["[[1], []]) == [1]"]
    ),
]
MBPP = [
    mbpp(2, "Write a function to double.", "def twice(x):\r\n  return 2 * x", ["assert twice(2) == 4"]),
    mbpp(
        927,
        "Write a function to find the height of the given binary tree.",
        "def height(node):\r\n  return 0 if node is None else 1 + max(height(node.left), height(node.right))",
        ["assert height(root) == 2"],
        "class Node:\r\n  def __init__(self):\r\n    self.left = self.right = None\r\n"
        "root = Node()\r\nroot.left = Node()",
    ),
    mbpp(
        12,
        "Sort a matrix by sums.",
        "def sort(m):\r\n  return sorted(m, key=sum)",
        ["assert sort([[2], [1]]) == [[1], [2]]"],
    ),
]
SANITIZED = [
    sanitized(
        82,
        "Volume of a sphere.",
        "import math\ndef v(r):\n  return 4 / 3 * math.pi * r**3",
        ["assert math.isclose(v(10), 4188.79, rel_tol=0.001)"],
        ["import math"],
    ),
    sanitized(3, "Non-primes.", "def odd(n):\n  return n % 2 == 1", ["assert odd(3)", "assert not odd(4)"], []),
    sanitized(7, "Words of a text.", "def words(s):\n  return s.split()", ["assert words('a b') == ['a', 'b']"], []),
]
GSM8K = [
    {"question": "Two eggs and two more?", "answer": "2+2=<<2+2=4>>4 eggs.\n#### 4"},
    {"question": "A house for 80,000 and 50,000 of repairs?", "answer": "80000+50000=130000\n#### 130,000"},
    {"question": "Ten less twelve?", "answer": "10-12=<<10-12=-2>>-2\n#### -2"},
    {"question": "Half of nine?", "answer": "9/2=<<9/2=4.5>>4.5\n#### 4.50"},
]


def written(tmp_path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("rows", "solution", "wrong"),
    [
        (HUMAN_EVAL, "canonical_solution", "    return None\n"),
        (MBPP, "code", "def twice(x): return x"),
        (SANITIZED, "code", "def v(r): return r"),
        (GSM8K, "answer", "I get 17."),
    ],
    ids=["HumanEval", "MBPP", "sanitized MBPP", "GSM8K"],
)
def test_the_published_solution_is_right_and_another_is_not(
    tmp_path: Path, rows: Sequence[dict[str, Any]], solution: str, wrong: str
) -> None:
    tasks, checker = read_tasks(written(tmp_path, rows)), Checker()
    assert len(tasks) == len(rows)
    for task, row in zip(tasks, rows, strict=True):
        assert row[solution] not in task.prompt
        assert checker.right(task, row[solution])
    assert not any(checker.right(task, wrong) for task in tasks)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", "\ufeff".encode()])
@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.jsonl.gz"])
def test_a_file_may_be_compressed_have_a_byte_order_mark_and_any_line_ends(
    tmp_path: Path, name: str, mark: bytes, end: str
) -> None:
    """Within a text, what Unicode calls a line separator separates no lines."""
    rows = [{"prompt": "a\u2028b\x85c", "reference": "1"}, *HUMAN_EVAL]
    data = mark + end.join([*(json.dumps(row, ensure_ascii=False) for row in rows), "", ""]).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    tasks = read_tasks(tmp_path / name)
    assert [task.prompt for task in tasks] == [row["prompt"] for row in rows]
    assert Checker().right(tasks[1], HUMAN_EVAL[0]["canonical_solution"])


def test_a_broken_line_or_archive_or_a_second_id_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, HUMAN_EVAL)
    path.write_text(path.read_text() + '{"prompt": "cut o')
    with pytest.raises(ConfigError, match=r"tasks\.jsonl:5: not JSON"):
        read_tasks(path)
    with pytest.raises(ConfigError, match="tasks 1 and 3 have the same id 'HumanEval/0'"):
        read_tasks(written(tmp_path, [*HUMAN_EVAL[:2], HUMAN_EVAL[0]]))
    path.write_bytes(gzip.compress(b'{"prompt": "a"}' * 100)[:-20])
    with pytest.raises(ConfigError, match="compressed data are cut off or broken"):
        read_tasks(path)


def test_the_sanitized_file_is_one_list(tmp_path: Path) -> None:
    path = tmp_path / "sanitized-mbpp.json"
    path.write_text(json.dumps(SANITIZED, indent=2))
    assert [task.id for task in read_tasks(path)] == ["82", "3", "7"]
    path.write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="must be a list of tasks"):
        read_tasks(path)


def test_a_function_may_be_followed_by_more_or_stand_in_a_block_of_its_own(tmp_path: Path) -> None:
    (task,) = read_tasks(written(tmp_path, HUMAN_EVAL[:1]))
    body = HUMAN_EVAL[0]["canonical_solution"]
    for text in (
        f"{body}\n\ndef other(:\n",
        f"{body}\nprint(nothing)",
        f"Here:\n```python\ndef twice(x):\n{body}```\nDone.",
    ):
        assert Checker().right(task, text)


def test_an_answer_in_words_is_right_by_its_last_number(tmp_path: Path) -> None:
    tasks = read_tasks(written(tmp_path, GSM8K))
    said = ("So it is 4.", "They cost $130000 in all.", "That leaves -2", "4.5 each")
    assert [Checker().right(task, text) for task, text in zip(tasks, said, strict=True)] == [True] * 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": "4"}, "answer has no number after ####"),
        ({"question": "?", "answer": 4}, "answer must be a text, got 4"),
        (MBPP[0] | {"test_list": "assert f(1)"}, "test_list must be a list of texts"),
        (MBPP[0] | {"test_list": []}, "test_list is empty"),
        (MBPP[0] | {"text": None}, "text must be a text, got None"),
        (HUMAN_EVAL[0] | {"test": ""}, "test must be a text, got ''"),
    ],
)
def test_a_row_that_lacks_something_is_refused_by_line_and_key(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"tasks\.jsonl:1: {message}"):
        read_tasks(written(tmp_path, [row]))


@pytest.mark.parametrize("rows", [HUMAN_EVAL, MBPP, SANITIZED, GSM8K], ids=["HumanEval", "MBPP", "sanitized", "GSM8K"])
def test_parquet_holds_the_same_tasks(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert read_tasks(tmp_path / "test.parquet") == read_tasks(written(tmp_path, rows))


def test_a_parquet_file_that_is_none_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ConfigError, match=r"test\.parquet: (not a Parquet file|reading Parquet takes pyarrow)"):
        read_tasks(path)
