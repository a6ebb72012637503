"""Special tokens that tokenizers add, and answers that begin as chat templates begin them."""

import copy
from pathlib import Path

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import SampleRequest
from lampe_eval.benches.ppl import Ppl
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, template_affixes
from lampe_eval.prompts.prompt_fitting import fit_prompt
from lampe_eval.prompts.tokenization import (
    encode,
    encode_with_special_tokens,
    first_tokens,
    with_bos,
)

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]
PROTOCOL = BENCHES["longbench"].protocol("fair")
TEXT = "the old garden by the river"

ADDED = {
    "nothing": ("$A", 0),
    "BOS": ("<s> $A", 1),
    "BOS and EOS": ("<s> $A </s>", 1),
    "EOS": ("$A </s>", 0),
    "two EOS": ("$A </s> </s>", 0),
    "GLM": ("[gMASK] <sop> $A", 2),
    "BERT": ("[CLS] $A [SEP]", 1),
}


@pytest.fixture
def tokenizer(pocket: Pocket) -> PreTrainedTokenizerBase:
    return copy.deepcopy(pocket[1])


@pytest.fixture
def adding(tokenizer: PreTrainedTokenizerBase, kind: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer that adds the special tokens of a kind."""
    template = ADDED[kind][0]
    names = list(dict.fromkeys(template.replace("$A", "").split()))
    tokenizer.add_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template,
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in names],
    )
    return tokenizer


def _expected_first(tokenizer: PreTrainedTokenizerBase, kind: str) -> list[int]:
    template, count = ADDED[kind]
    return [tokenizer.convert_tokens_to_ids(name) for name in template.split()[:count]]


@pytest.mark.parametrize("kind", ADDED)
def test_a_prompt_begins_with_all_that_the_tokenizer_puts_first_and_has_nothing_after_it(
    adding: PreTrainedTokenizerBase, kind: str
) -> None:
    first = _expected_first(adding, kind)
    bare = encode(adding, TEXT)
    assert first_tokens(adding) == first
    assert encode_with_special_tokens(adding, TEXT) == [*first, *bare]
    assert with_bos(adding, with_bos(adding, bare)) == [*first, *bare]
    whole = fit_prompt(adding, PROTOCOL, Message(TEXT), length=64, answer_tokens=8)
    assert whole.ids == [*first, *bare]
    cut = fit_prompt(adding, PROTOCOL, Message(40 * TEXT), length=64, answer_tokens=8)
    assert cut.ids[: len(first)] == first
    assert len(cut.ids) == 56 and cut.cut_tokens
    assert not set(cut.ids[len(first) :]) & set(adding.all_special_ids)


@pytest.mark.parametrize("protocol", ["exact", "stride"])
@pytest.mark.parametrize("kind", ADDED)
def test_every_window_of_perplexity_begins_with_them_and_does_not_score_them(
    adding: PreTrainedTokenizerBase, kind: str, protocol: str, tmp_path: Path
) -> None:
    source = tmp_path / "text.txt"
    source.write_text(100 * f"{TEXT} ")
    (task,) = find_tasks((f"ppl/{protocol}",))
    request = SampleRequest(adding, 32, 3, Ppl().protocol("fair"), source=source)
    first = _expected_first(adding, kind)
    for passage in Ppl().samples(task, request):
        assert list(passage.ids[: len(first)]) == first
        assert passage.scored_tokens <= len(passage.ids) - max(1, len(first))


# Templates after those of well-known families, in words of our own.
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content.strip() }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content.strip() }} </s>"
    "{% else %}{{ raise_exception('no role ' ~ m.role) }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
# An answer after the last question carries a block of thoughts, even an empty one.
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The generation prompt opens a block of thoughts, which a given answer does not have.
REASONING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
TEMPLATES = {
    "llama-2": LLAMA_2,
    "llama-3": LLAMA_3,
    "chatml": CHATML,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "phi": PHI,
    "qwen-3": QWEN_3,
    "reasoning": REASONING,
}


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("answer_prefix", ["\n\nThe garden", " The garden", "The garden"])
@pytest.mark.parametrize("family", TEMPLATES)
def test_an_answer_begins_as_the_template_begins_it(
    tokenizer: PreTrainedTokenizerBase, family: str, answer_prefix: str, system: str
) -> None:
    tokenizer.chat_template = TEMPLATES[family]
    before, after = template_affixes(tokenizer, system, answer_prefix)
    prompt = f"{before}{TEXT}{after}"
    has_system_role = family not in ("llama-2", "gemma", "mistral")
    question = TEXT if has_system_role or not system else f"{system}\n\n{TEXT}"
    messages = [{"role": "system", "content": system}] if system and has_system_role else []
    messages += [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "The garden by the river"},
    ]
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    assert rendered.startswith(prompt) and prompt.endswith("The garden")
    ids = encode(tokenizer, prompt)
    assert encode(tokenizer, rendered)[: len(ids)] == ids


@pytest.mark.parametrize("family", TEMPLATES)
def test_without_a_given_answer_the_generation_prompt_is_last(
    tokenizer: PreTrainedTokenizerBase, family: str
) -> None:
    tokenizer.chat_template = TEMPLATES[family]
    before, after = template_affixes(tokenizer, "", "")
    messages = [{"role": "user", "content": TEXT}]
    assert before + TEXT + after == tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )


def test_a_template_without_answers_gets_the_answer_after_its_generation_prompt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = (
        "{% if messages|length > 1 %}{{ raise_exception('one message') }}{% endif %}"
        "<user>{{ messages[0].content }}<model>"
    )
    assert template_affixes(tokenizer, "", "\nThe garden") == ("<user>", "<model>The garden")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('turns must\nalternate') }}", "turns must"),
        ("{{ messages[0].content.nothing() }}", "nothing"),
        ("{% for %}", "Expected"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "range"),
        ("nobody says anything", "once"),
        ("{{ messages[0].content }} and {{ messages[0].content }}", "once"),
        ("{{ messages[0].content.upper() }}", "once"),
    ],
)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_template_that_cannot_be_used_says_why_in_one_line(
    tokenizer: PreTrainedTokenizerBase, template: str, reason: str, system: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=reason) as caught:
        template_affixes(tokenizer, system, "The garden")
    assert "\n" not in str(caught.value)
    assert "chat=none" in str(caught.value)
