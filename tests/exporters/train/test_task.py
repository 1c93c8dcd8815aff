"""The puzzles and their verifier."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from random import Random

import pytest

from octavo.exporters.train.problems import draw, fixed, leaning, take
from octavo.exporters.train.recipe import DEFAULT
from octavo.exporters.train.task import PUZZLES, answer_of, prompt_for, solve, split_of, verify

# Each puzzle once more, place by place: the digit at `place` of the answer for the row `d`.
BRUTE_FORCE = {
    "mids": lambda d, place: sorted((d[place - 1], d[place], d[(place + 1) % len(d)]))[1],
    "lows": lambda d, place: min(d[len(d) - 1 - back] for back in range(place + 1)),
    "even": lambda d, place: ([x for x in d if x in (0, 2, 4, 6, 8)] + [x for x in d if x in (1, 3, 5, 7, 9)])[place],
    "high": lambda d, place: ([x for x in d if x >= 5] + [x for x in d if x < 5])[place],
    "fore": lambda d, place: next((d[k] for k in range(place + 1, len(d)) if d[k] > d[place]), 0),
    "back": lambda d, place: next((d[k] for k in range(place - 1, -1, -1) if d[k] > d[place]), 0),
    "zips": lambda d, place: d[place // 2 + (place % 2) * (len(d) // 2)],
    "turn": lambda d, place: d[((place ^ 1) + 1) % len(d)],
}


@pytest.mark.parametrize("name", PUZZLES)
def test_the_answer_is_what_brute_force_finds(name: str) -> None:
    random = Random(3)
    for _ in range(300):
        digits = [random.randrange(10) for _ in range(random.choice((2, 4, 8)))]
        expected = "".join(str(BRUTE_FORCE[name](digits, place)) for place in range(len(digits)))
        assert solve(prompt_for(name, "".join(map(str, digits)))) == expected


@pytest.mark.parametrize("name", PUZZLES)
def test_exactly_one_answer_is_right(name: str) -> None:
    prompt = prompt_for(name, "41")
    answers = ["".join(pair) for pair in product("0123456789", repeat=2)]
    assert [answer for answer in answers if verify(prompt, answer)] == [solve(prompt)]


@pytest.mark.parametrize("junk", ["", " ", "\n\0", "mids", "12345", "٣٤", "<eos>", "1" * 100_000, "\ud800", "None"])
def test_junk_is_wrong_and_never_an_error(junk: str) -> None:
    assert not verify("zips 52917340:", junk)
    assert not verify(junk, "52917340")
    assert not verify(junk, junk)


def test_space_around_an_answer_changes_neither_its_verdict_nor_its_vote() -> None:
    assert verify("zips 1234:", " 1324\n")
    assert answer_of(" 1324\n") == answer_of("1324")


def test_no_held_out_problem_occurs_in_training_or_validation() -> None:
    heldout = {problem.prompt for problem in fixed(DEFAULT, "heldout", 1000)}
    validation = {problem.prompt for problem in fixed(DEFAULT, "validation", 500)}
    assert len(heldout) == 1000
    assert not heldout & validation
    rows = {prompt.split()[1].rstrip(":") for prompt in heldout}
    trained = [problem.prompt.split()[1].rstrip(":") for problem in take(draw(Random(1), 8, "train"), 5000)]
    assert not rows & set(trained)
    assert {split_of(row) for row in trained} == {"train"}


@pytest.mark.parametrize("expert", range(8))
def test_an_expert_sees_every_puzzle_and_its_own_most(expert: int) -> None:
    weights = leaning(expert, DEFAULT.speciality)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) > 0
    assert weights.index(max(weights)) == expert


def test_the_verifier_needs_the_standard_library_only() -> None:
    program = (
        "import sys, octavo.exporters.train.task; print({'torch', 'transformers', 'numpy', 'rich'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
