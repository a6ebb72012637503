"""Every prompt has exactly the tokens it may have, with every kind of tokenizer, or says what it takes."""

import re
from itertools import takewhile

import pytest

from lampe_eval.errors import UserError
from lampe_eval.ruler import RulerSample, SampleSpec, build_sample
from tests.lampe_eval.ruler.kit import CARDS, TOKENIZERS, shelf


def size(built: RulerSample, task: str) -> int:
    assert built.ids is not None
    return len(built.before) + len(built.ids) + len(built.after) + CARDS[task].max_new_tokens


@pytest.mark.parametrize("task", CARDS)
@pytest.mark.parametrize(
    ("name", "length"), [("gpt2", 4096), ("metaspace", 4096), ("llama3", 4096), ("pocket", 8192)]
)
def test_a_prompt_fills_its_length_with_the_tokens_of_its_text(
    name: str, length: int, task: str
) -> None:
    tokenizer = shelf(name).coder.tokenizer
    for index in range(3):
        built = build_sample(task, CARDS[task], SampleSpec(shelf(name), length), index)
        assert size(built, task) == length
        assert built.ids is not None
        pieces = built.ids.tolist()
        text = tokenizer.decode(pieces)
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        same = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(pieces, whole, strict=False))
        )
        rest = zip(reversed(pieces[same:]), reversed(whole[same:]), strict=False)
        same += sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], rest))
        assert (
            same >= len(pieces) - 6
        )  # where the last unit is cut, its last word has tokens of its own


@pytest.mark.parametrize("length", [32_768, 131_072])
@pytest.mark.parametrize("task", CARDS)
def test_long_prompts_are_exact(task: str, length: int) -> None:
    for index in (0, 499):
        assert (
            size(build_sample(task, CARDS[task], SampleSpec(shelf(), length), index), task)
            == length
        )


@pytest.mark.parametrize("task", CARDS)
def test_what_the_caller_adds_counts(task: str) -> None:
    def frame(prefix: str) -> tuple[list[int], list[int]]:
        return [7] * 30, [8] * (10 + len(prefix))

    built = build_sample(task, CARDS[task], SampleSpec(shelf(), 4096, overhead=5, frame=frame), 0)
    assert size(built, task) == 4096 - 5
    assert (len(built.before), len(built.after)) == (30, 10 + len(built.answer_prefix))


@pytest.mark.parametrize("task", CARDS)
@pytest.mark.parametrize("length", [0, 300, 1500])
@pytest.mark.parametrize("exact", [True, False])
def test_a_length_that_is_too_short_says_how_much_it_takes(
    task: str, length: int, exact: bool
) -> None:
    def recipe(length: int) -> SampleSpec:
        return SampleSpec(shelf(), length, exact=exact)

    try:
        build_sample(task, CARDS[task], recipe(length), 3)
    except UserError as error:
        told = re.fullmatch(
            rf"a length of {length} is too short, it takes at least (\d+) tokens", str(error)
        )
        assert told
        assert int(told[1]) > length
        build_sample(task, CARDS[task], recipe(int(told[1])), 3)
        with pytest.raises(UserError):
            build_sample(task, CARDS[task], recipe(length // 2), 3)
    else:
        assert length >= 300


@pytest.mark.parametrize("task", CARDS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_of_whole_units_stays_within_its_length(name: str, task: str) -> None:
    def tokens(length: int) -> tuple[int, int]:
        built = build_sample(task, CARDS[task], SampleSpec(shelf(name), length, exact=False), 1)
        assert built.ids is None
        assert built.text is not None
        whole = shelf(name).coder.tokenizer(
            built.text + built.answer_prefix, add_special_tokens=False
        )["input_ids"]
        return len(whole) + CARDS[task].max_new_tokens, built.units

    size, units = tokens(8000)
    assert 8000 - 250 < size <= 8000
    assert units - tokens(size)[1] <= 2  # as many units as fit
