"""Text that grows token by token, stop strings, chat templates, and what a bad tokenizer folder gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.profiles.errors import BundleError, ConfigError
from octavo.runtime.text import Growing, Vocabulary, end_tokens


@pytest.fixture(scope="module")
def vocabulary(bundle: Path) -> Vocabulary:
    return Vocabulary(bundle / "expert-0")


@pytest.fixture(scope="module")
def bytes_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """One token per byte, so that a character may take several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("bytes")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return Vocabulary(folder)


def test_encoding_adds_what_the_post_processor_says(vocabulary: Vocabulary) -> None:
    tokens = vocabulary.encode("abc 123:")
    assert tokens[0] == 1
    assert vocabulary.decode(tokens) == "abc 123:"
    assert vocabulary.ends == (2,)


@given(text=st.text(max_size=30))
def test_text_that_grows_is_the_text_at_once(bytes_vocabulary: Vocabulary, text: str) -> None:
    growing = Growing(bytes_vocabulary)
    pieces = [growing.push(int(token)) for token in bytes_vocabulary.encode(text)]
    assert "".join(pieces) + growing.rest() == text
    assert not any("�" in piece for piece in pieces if "�" not in text)


@given(written=st.binary(max_size=20))
def test_what_is_heard_is_the_text_even_where_bytes_make_no_characters(
    bytes_vocabulary: Vocabulary, written: bytes
) -> None:
    """A text may be cut off within a character, or hold bytes that begin none."""
    growing, of_byte = Growing(bytes_vocabulary), {each: i for i, each in enumerate(bytes_vocabulary.bytes)}
    tokens = [of_byte[bytes([byte])] for byte in written]
    pieces = [growing.push(token) for token in tokens]
    assert "".join(pieces) + growing.rest() == bytes_vocabulary.decode(tokens)


@given(text=st.text("abc", max_size=30), stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_cuts_wherever_tokens_end(vocabulary: Vocabulary, text: str, stops: list[str]) -> None:
    growing, pieces = Growing(vocabulary, stops), []
    for token in vocabulary.encode(text, special=False):
        pieces.append(growing.push(int(token)))
        if growing.stopped:
            break
    found = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert growing.stopped == bool(found)
    if found:
        heard = text[: min(found)]
        expected = heard[: min(heard.find(stop) for stop in stops if stop in heard)]
        assert growing.text == expected == "".join(pieces)
    else:
        assert "".join(pieces) + growing.rest() == text


def test_a_conversation_goes_through_the_bundles_template(vocabulary: Vocabulary) -> None:
    tokens = vocabulary.chat([{"role": "user", "content": "abc"}])
    assert tokens[0] == 1
    assert vocabulary.decode(tokens) == "user: abc "


def test_a_template_cannot_reach_the_machine(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((bundle / "expert-0" / "tokenizer.json").read_bytes())
    attack = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": attack}))
    with pytest.raises(ConfigError, match="chat template failed"):
        Vocabulary(tmp_path).chat([{"role": "user", "content": "abc"}])


def test_without_a_template_a_conversation_is_refused(bytes_vocabulary: Vocabulary) -> None:
    assert not bytes_vocabulary.has_chat
    with pytest.raises(ConfigError, match="no chat template"):
        bytes_vocabulary.chat([{"role": "user", "content": "abc"}])


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no tokenizer\.json"):
        Vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BundleError, match="not a tokenizer"):
        Vocabulary(tmp_path)


@pytest.mark.parametrize(("written", "expected"), [(5, (5,)), ([5, 6], (5, 6)), (None, ())])
def test_end_tokens_are_one_several_or_none(
    tmp_path: Path, written: object, expected: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": written}))
    assert end_tokens(tmp_path) == expected
