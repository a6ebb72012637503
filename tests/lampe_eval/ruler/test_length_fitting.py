"""Prompts have exactly the tokens of their length, with every kind of tokenizer."""

import re
from collections.abc import Sequence
from itertools import takewhile

import pytest

from lampe_eval.errors import UserError
from lampe_eval.ruler import RulerSample, SampleSpec, build_sample
from tests.lampe_eval.ruler.ruler_examples import CARDS, TOKENIZERS, shared_corpora


def total_tokens(sample: RulerSample, task: str) -> int:
    assert sample.ids is not None
    prompt_tokens = len(sample.before) + len(sample.ids) + len(sample.after)
    return prompt_tokens + CARDS[task].max_new_tokens


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@pytest.mark.parametrize("task", CARDS)
@pytest.mark.parametrize(
    ("name", "length"), [("gpt2", 4096), ("metaspace", 4096), ("llama3", 4096), ("pocket", 8192)]
)
def test_a_prompt_fills_its_length_with_the_tokens_of_its_text(
    name: str, length: int, task: str
) -> None:
    corpora = shared_corpora(name)
    tokenizer = corpora.tokenizer.tokenizer
    for index in range(3):
        sample = build_sample(task, CARDS[task], SampleSpec(corpora, length), index)
        assert total_tokens(sample, task) == length
        assert sample.ids is not None
        joined = sample.ids.tolist()
        whole = tokenizer(tokenizer.decode(joined), add_special_tokens=False)["input_ids"]
        same = common_prefix(joined, whole)
        same += common_prefix(joined[same:][::-1], whole[same:][::-1])
        # where the last unit is cut, its last word has tokens of its own
        assert same >= len(joined) - 6


@pytest.mark.parametrize("length", [32_768, 131_072])
@pytest.mark.parametrize("task", CARDS)
def test_long_prompts_are_exact(task: str, length: int) -> None:
    for index in (0, 499):
        sample = build_sample(task, CARDS[task], SampleSpec(shared_corpora(), length), index)
        assert total_tokens(sample, task) == length


@pytest.mark.parametrize("task", CARDS)
def test_tokens_that_the_caller_adds_are_counted(task: str) -> None:
    def affixes(answer_prefix: str) -> tuple[list[int], list[int]]:
        return [7] * 30, [8] * (10 + len(answer_prefix))

    spec = SampleSpec(shared_corpora(), 4096, overhead=5, affixes=affixes)
    sample = build_sample(task, CARDS[task], spec, 0)
    assert total_tokens(sample, task) == 4096 - 5
    assert (len(sample.before), len(sample.after)) == (30, 10 + len(sample.answer_prefix))


@pytest.mark.parametrize("task", CARDS)
@pytest.mark.parametrize("length", [0, 300, 1500])
@pytest.mark.parametrize("exact", [True, False])
def test_a_length_that_is_too_short_is_refused_with_one_that_is_enough(
    task: str, length: int, exact: bool
) -> None:
    def build(length: int) -> RulerSample:
        spec = SampleSpec(shared_corpora(), length, exact=exact)
        return build_sample(task, CARDS[task], spec, 3)

    try:
        build(length)
    except UserError as error:
        message = re.fullmatch(rf"a length of {length} is too short, \D*(\d+) tokens", str(error))
        assert message
        assert int(message[1]) > length
        build(int(message[1]))
        with pytest.raises(UserError):
            build(length // 2)
    else:
        assert length >= 300


@pytest.mark.parametrize("task", CARDS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_of_whole_units_stays_within_its_length(name: str, task: str) -> None:
    corpora = shared_corpora(name)

    def tokens_and_units(length: int) -> tuple[int, int]:
        sample = build_sample(task, CARDS[task], SampleSpec(corpora, length, exact=False), 1)
        assert sample.ids is None
        assert sample.text is not None
        text = sample.text + sample.answer_prefix
        whole = corpora.tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(whole) + CARDS[task].max_new_tokens, sample.units

    tokens, units = tokens_and_units(8000)
    assert 8000 - 250 < tokens <= 8000
    assert units - tokens_and_units(tokens)[1] <= 2  # as many units as fit
