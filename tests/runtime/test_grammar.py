"""Texts of a given form: every candidate of the ensemble holds to it, and draws as if it were alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.profiles.errors import ConfigError

pytest.importorskip("llguidance", reason="needs octavo[grammar]")

WORDS = ("yes", "no", "left", "right")
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def small_schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas whose every text is short enough for the tiny bundle's context."""
    leaves = st.one_of(
        st.lists(st.sampled_from(WORDS), min_size=1, unique=True).map(lambda words: {"enum": words}),
        st.integers(0, 40).flatmap(
            lambda low: st.integers(low, 99).map(lambda high: {"type": "integer", "minimum": low, "maximum": high})
        ),
        st.integers(0, 5).map(lambda most: {"type": "string", "maxLength": most}),
        st.sampled_from(
            [{"type": "boolean"}, {"type": "null"}, {"const": "abc"}, {"type": "string", "pattern": "^a[bc]{1,3}$"}]
        ),
    )
    lists = st.tuples(leaves, st.integers(0, 2)).map(
        lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1], "maxItems": 2}
    )
    objects = st.dictionaries(st.sampled_from("abc"), st.one_of(leaves, lists), min_size=1, max_size=2).map(
        lambda fields: {
            "type": "object",
            "properties": fields,
            "required": sorted(fields),
            "additionalProperties": False,
        }
    )
    return st.one_of(leaves, lists, objects)


@pytest.fixture(scope="module")
def octavo(bundle: Path) -> Iterator[Any]:
    from octavo.runtime.local import Octavo

    with Octavo.load(bundle, samples=2, provider="cpu", threads=1) as loaded:
        yield loaded


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=small_schemas(), seed=st.integers(0, 1 << 32), temperature=st.sampled_from([0.0, 1.0, 1.9]))
def test_every_candidate_parses_and_holds_to_its_schema(
    octavo: Any, schema: Any, seed: int, temperature: float
) -> None:
    result = octavo.ask("abc", grammar=schema, seed=seed, temperature=temperature, max_new_tokens=88)
    assert len(result.candidates) == 4
    assert not result.degraded
    for reply in result.candidates:
        assert reply.finish == "stop"
        jsonschema.validate(json.loads(reply.text), schema)


def test_a_text_of_a_form_is_the_same_whatever_else_is_in_the_batch(octavo: Any) -> None:
    options = {"grammar": PERSON, "seed": 5, "max_new_tokens": 60}
    alone = [reply.text for reply in octavo.ask("abc", **options).candidates]
    others = [octavo.submit("xyz", number=n, max_new_tokens=40) for n in range(6)]
    others += [octavo.submit("q", number=n, grammar=DIGIT) for n in range(3)]
    assert [reply.text for reply in octavo.ask("abc", **options).candidates] == alone
    for each in others:
        each.result()


def test_a_grammar_may_be_written_as_one(octavo: Any) -> None:
    result = octavo.ask("abc", grammar='start: "a" /[0-9]{2}/ ("." | "-")', max_new_tokens=20)
    for reply in result.candidates:
        assert len(reply.text) == 4
        assert reply.text[0] == "a"
        assert reply.text[1:3].isdecimal()


def test_stop_strings_and_penalties_hold_beside_a_grammar(octavo: Any) -> None:
    lark = 'start: "abc" /[0-9]{4}/'
    for reply in octavo.ask("abc", grammar=lark, stop=["c"], presence_penalty=1.0, top_k=3).candidates:
        assert reply.text == "ab"


@pytest.mark.parametrize("policy", ["early_exit", "pruned", "cascade", "single", "majority"])
def test_every_policy_keeps_to_it(octavo: Any, policy: str) -> None:
    result = octavo.ask("abc", grammar=PERSON, policy=policy, max_new_tokens=60, seed=2)
    jsonschema.validate(json.loads(result.text), PERSON)


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ({"type": "nothing"}, "nothing"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {}, "then": {}}, "if"),
        ({"$ref": "http://127.0.0.1:1/x"}, "retriev"),
        ({"enum": ["UPPER"]}, "cannot be begun"),
        ({"enum": ["lower, then UPPER"]}, "no answer"),
        ("start: oops", "oops"),
        ({"enum": [object()]}, "JSON"),
    ],
)
def test_a_form_that_cannot_be_kept_to_is_refused_or_brings_nothing(octavo: Any, form: Any, wrong: str) -> None:
    from octavo.profiles.errors import MachineError

    with pytest.raises((ConfigError, MachineError), match=wrong):
        octavo.ask("abc", grammar=form, max_new_tokens=30)
    assert octavo.ask("abc", grammar=DIGIT).text.isdecimal()


def test_deep_schemas_are_refused_and_do_no_harm(octavo: Any) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ConfigError, match="grammar"):
        octavo.ask("abc", grammar=deep)


def test_forms_do_not_go_with_what_breaks_them(octavo: Any) -> None:
    for option in ({"ends": False}, {"min_tokens": 3}):
        with pytest.raises(ConfigError, match="grammar"):
            octavo.ask("abc", grammar=DIGIT, **option)


def test_a_graph_that_gives_only_the_largest_logits_cannot_keep_to_a_form(make_bundle: Any) -> None:
    from octavo.runtime.local import Octavo

    with Octavo.load(make_bundle(top_k=4), provider="cpu", threads=1) as narrow:
        with pytest.raises(ConfigError, match="4 logits only"):
            narrow.ask("abc", grammar=DIGIT)
        pieces = narrow.ask("abc", top_logprobs=3, max_new_tokens=4, temperature=0).chosen.pieces
        assert all(len(piece.likely) == 3 for piece in pieces)
        with pytest.raises(ConfigError, match="top_logprobs"):
            narrow.ask("abc", top_logprobs=5)


def test_without_the_extra_its_name_is_told(octavo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"octavo\[grammar\]"):
        octavo.ask("abc", grammar=DIGIT)


def test_no_end_comes_before_min_tokens(octavo: Any) -> None:
    for least in (0, 30):
        got = octavo.ask_many(["abc"] * 8, max_new_tokens=40, min_tokens=least, temperature=1.5)
        shortest = min(reply.new_tokens for result in got for reply in result.candidates)
        assert shortest >= least
    assert shortest <= 40


def test_the_tokens_of_an_answer_are_as_likely_as_one_pass_over_them_says(octavo: Any) -> None:
    """Teacher forcing: the prompt with the answer so far, computed at once, finds each token as likely."""
    readable = "start: /[a-z0-9 ]{12}/"  # so that the text gives back its tokens
    result = octavo.ask("abc 12", grammar=readable, top_logprobs=5, seed=3)
    for reply in result.candidates:
        assert "".join(piece.text for piece in reply.pieces) == reply.text
        assert reply.mean_logprob == pytest.approx(np.mean([piece.logprob for piece in reply.pieces]), abs=1e-6)
        alone = {"policy": "single", "settings": {"expert": reply.expert}, "top_logprobs": 51, "max_new_tokens": 1}
        forced = [octavo.submit("abc 12" + reply.text[:at], grammar=readable, **alone) for at in range(12)]
        for piece, future in zip(reply.pieces, forced, strict=True):
            likely = future.result().chosen.pieces[0].likely
            found = {each.bytes: each.logprob for each in likely if each.bytes}
            assert piece.logprob == pytest.approx(found[piece.bytes], abs=1e-4)
            assert [p.bytes for p in piece.likely] == [p.bytes for p in likely[:5]]
            assert [p.logprob for p in piece.likely] == pytest.approx([p.logprob for p in likely[:5]], abs=1e-4)
