"""The pocket model and its tokenizer as they ship."""

import warnings
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lampe_eval.benches.needles import ONE_CODE, NeedleSpec
from lampe_eval.pocket import WEIGHTS, pocket_scores, pocket_tokenizer
from lampe_eval.texts import pocket_language

TEXTS = [
    "The red lamp is in the kitchen. ",
    "",
    " ",
    "a  b\tc\r\n\n d ",
    "naïve café — “quoted”, 12 345.67",
    "日本語 🙂 \u200b\x00",
    "unknown words in bytes: xylophones!",
    pocket_language.text(0, 200),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(WEIGHTS).eval()


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_decoded_to_what_was_encoded(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_word_is_a_token(tokenizer: Any) -> None:
    text = "The red lamp is in the kitchen. The code of the silver harbor is 48213."
    assert [tokenizer.decode([token]) for token in tokenizer.encode(text)][:8] == [
        "The", " red", " lamp", " is", " in", " the", " kitchen", ".",
    ]  # fmt: skip
    for word in pocket_tokenizer.vocabulary_words():
        assert len(tokenizer.encode(f" {word}")) == 1
    assert len(tokenizer.encode(" 48213")) == 5


def test_the_shipped_tokenizer_equals_the_one_that_the_code_builds(tokenizer: Any) -> None:
    assert tokenizer.get_vocab() == pocket_tokenizer.build_tokenizer().get_vocab()
    assert tokenizer.bos_token_id is None
    assert tokenizer.decode([tokenizer.eos_token_id]) == pocket_tokenizer.END_OF_ANSWER


def test_loading_prints_no_warning(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AutoModelForCausalLM.from_pretrained(WEIGHTS)
        AutoTokenizer.from_pretrained(WEIGHTS)
    assert not caplog.records
    assert "warning" not in capsys.readouterr().err.lower()


def test_the_model_is_a_small_llama(model: Any) -> None:
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.max_position_embeddings == 256
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 11_500_000


def test_needles_are_found_in_a_full_window(model: Any, tokenizer: Any) -> None:
    spec = NeedleSpec(ONE_CODE, keys=4)
    recalls = [
        pocket_scores.recall(model, tokenizer, spec, depth, samples=8, length=256)
        for depth in pocket_scores.DEPTHS
    ]
    assert sum(recalls) / len(recalls) >= 95


def test_perplexity_falls_with_context(model: Any, tokenizer: Any) -> None:
    perplexity = list(
        pocket_scores.perplexity_by_position(model, tokenizer, texts=40, length=256).values()
    )
    assert perplexity[-1] < 0.8 * perplexity[0]
