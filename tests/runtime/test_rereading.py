"""A value model with a tokenizer of its own says of each candidate what its original says of the same words."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("optimum.exporters.onnx")

from octavo.exporters.export import export_bundle
from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import EnsembleDefaults
from octavo.runtime.cluster.branch import Branch
from octavo.runtime.cluster.front import Front
from octavo.runtime.local import Octavo, Result
from octavo.runtime.text import Vocabulary
from tests.runtime.cluster.test_branches import Here
from tests.runtime.conftest import CHARACTERS, save_model

TEMPLATE = "{% for m in messages %}[{{ m['role'][:1] }}]{{ m['content'] }}{% endfor %}"
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
JUDGES: dict[str, dict[str, Any]] = {
    "roberta": {"type_vocab_size": 1},
    "bert": {"type_vocab_size": 2},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_hidden_size": 32,
    },
    "gpt2": {},
    "llama": {},
}


def save_judge(folder: Path, kind: str, *, template: str | None = None, labels: int = 1, **changes: Any) -> Path:
    """A classifier of random weights whose tokenizer has the experts' characters in another order."""
    import torch
    from tokenizers import Tokenizer, models, processors
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(7)
    config = AutoConfig.for_model(kind, **SIZES | JUDGES[kind] | {"num_labels": labels, "pad_token_id": 1} | changes)
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    names = ["<cls>", "<pad>", "<sep>", "<unk>", *reversed(CHARACTERS)]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", 0), ("<sep>", 2)]
    )
    special = {"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **special).save_pretrained(folder)
    return folder


def original_scores(folder: Path, texts: Sequence[tuple[str, ...]], **options: Any) -> list[float]:
    """What transformers makes of each text or pair, one at a time; of two labels, the chance of label 1."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    scores = []
    for text in texts:
        read = tokenizer(*text, return_tensors="pt", return_token_type_ids=typed, **options)
        with torch.no_grad():
            logits = model(**read).logits[0].tolist()
        scores.append(1 / (1 + exp(-(logits[-1] - logits[0] if len(logits) > 1 else logits[0]))))
    return scores


def asked(folder: Path, judge: Path, prompt: Any, **export: Any) -> Result:
    expert = save_model(folder / "expert", 3)
    defaults = EnsembleDefaults(samples_per_expert=5, max_new_tokens=9)
    export_bundle([expert], folder / "bundle", value=judge, defaults=defaults, **export)
    with Octavo.load(folder / "bundle", provider="cpu") as octavo:
        return octavo.ask(prompt, seed=4)


@pytest.mark.parametrize("kind", JUDGES)
def test_it_scores_as_the_original_does(kind: str, tmp_path: Path) -> None:
    """Encoders read a pair, decoders one text, ragged and together; one after another gives the same."""
    judge = save_judge(tmp_path / "judge", kind, labels=2 if kind == "bert" else 1)
    result = asked(tmp_path, judge, "12 + 7:")
    whole = kind not in ("gpt2", "llama")
    texts = [("12 + 7:", each.text) if whole else (f"12 + 7:{each.text}",) for each in result.candidates]
    assert len({len(each.text) for each in result.candidates}) > 1
    assert [each.value for each in result.candidates] == pytest.approx(original_scores(judge, texts), abs=1e-5)
    assert result.chosen.value == max(each.value or 0 for each in result.candidates)
    assert not result.degraded


def test_too_much_costs_the_prompt_its_start_and_too_long_an_answer_its_score(tmp_path: Path) -> None:
    judge, prompt = save_judge(tmp_path / "judge", "roberta"), "".join(CHARACTERS[n % 40] for n in range(70))
    result = asked(tmp_path, judge, prompt)
    texts = [(prompt, each.text) for each in result.candidates]
    cut = {"truncation": "only_first", "max_length": 38}  # 40 positions, counted from behind the padding's own
    assert [each.value for each in result.candidates] == pytest.approx(original_scores(judge, texts, **cut), abs=1e-5)
    with Octavo.load(tmp_path / "bundle", provider="cpu") as octavo:
        unjudged = octavo.ask("abc", seed=1, ends=False, max_new_tokens=60)
    assert unjudged.degraded
    assert all(each.value is None for each in unjudged.candidates)


def test_a_chat_template_of_its_own_is_used(tmp_path: Path) -> None:
    judge = save_judge(tmp_path / "judge", "llama", template=TEMPLATE)
    talk = [{"role": "user", "content": "1 + 2"}, {"role": "assistant", "content": "3"}]
    result = asked(tmp_path, judge, [*talk, {"role": "user", "content": "and 4"}])
    texts = [(f"[u]1 + 2[a]3[u]and 4[a]{each.text}",) for each in result.candidates]
    expected = original_scores(judge, texts, add_special_tokens=False)
    assert [each.value for each in result.candidates] == pytest.approx(expected, abs=1e-5)
    branches = {name: Branch(tmp_path / "bundle", [name], provider="cpu") for name in ("expert", "judge")}
    with Front.connect(tmp_path / "bundle", {name: Here(branch) for name, branch in branches.items()}) as front:
        spread = front.ask([*talk, {"role": "user", "content": "and 4"}], seed=4)
    for branch in branches.values():
        branch.close()
    assert [each.value for each in spread.candidates] == pytest.approx(expected, abs=1e-5)


def test_padding_at_the_end_is_not_read_as_transformers_does_not(tmp_path: Path) -> None:
    """A decoder's score is that of the last token that is no padding, be it the text's own end."""
    judge = save_judge(tmp_path / "judge", "gpt2", pad_token_id=2)
    result = asked(tmp_path, judge, "5:")
    expected = original_scores(judge, [(f"5:{each.text}",) for each in result.candidates])
    assert [each.value for each in result.candidates] == pytest.approx(expected, abs=1e-5)


def test_a_tokenizer_in_an_older_form_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    judge = save_judge(tmp_path / "judge", "bert", pad_token_id=0)
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (judge / name).unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS.replace(" ", ""), "##a", "##b"]
    (judge / "vocab.txt").write_text("\n".join(words))
    (judge / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    result = asked(tmp_path, judge, "12 + 7:")
    expected = original_scores(judge, [("12 + 7:", each.text) for each in result.candidates])
    assert [each.value for each in result.candidates] == pytest.approx(expected, abs=1e-5)


def test_a_way_of_reading_that_it_cannot_have_is_refused(tmp_path: Path) -> None:
    judge, expert = save_judge(tmp_path / "judge", "roberta"), save_model(tmp_path / "expert", 3)
    with pytest.raises(ConfigError, match=r"value_reads tokens: .* keeps no cache of them"):
        export_bundle([expert], tmp_path / "bundle", value=judge, value_reads="tokens")
    with pytest.raises(ConfigError, match=r"value_reads chat: .* put one into chat_template\.jinja"):
        export_bundle([expert], tmp_path / "bundle", value=judge, value_reads="chat")


def test_of_a_pair_the_first_is_cut_and_the_second_never(tmp_path: Path) -> None:
    folder = save_judge(tmp_path / "judge", "bert")
    vocabulary = Vocabulary(folder)
    vocabulary.cut(6, pair=True)
    assert vocabulary.read("abcdef", "12").ids[1] == vocabulary.read("f", "12").ids[1]
    with pytest.raises(Exception, match=r"[Tt]runcat"):
        vocabulary.read("ab", "123456")
