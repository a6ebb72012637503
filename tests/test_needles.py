"""Needle prompts: exact length, needles at their depths, independent draws."""

from pathlib import Path
from random import Random

import pytest
import yaml

from lampe_eval.benches.needles import (
    ONE_CODE,
    SEVERAL_CODES,
    SEVERAL_KEYS,
    NeedleSpec,
    NeedleWording,
    assemble_prompt,
    draw_question,
    random_question,
    split_keys,
)
from lampe_eval.texts import pocket_language

TASKS = Path(__file__).parents[1] / "tasks" / "niah"
SPECS = [
    NeedleSpec(),
    NeedleSpec(ONE_CODE, keys=4),
    NeedleSpec(SEVERAL_CODES, values=3),
    NeedleSpec(SEVERAL_KEYS, keys=4, queries=3),
]


def encode(text: str) -> list[int]:
    """Return one token ID for each character."""
    return [ord(character) for character in text]


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


HAYSTACK = encode(pocket_language.text(1, 2000))
STOP = {ord(".")}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("length", [501, 1000, 4099])
@pytest.mark.parametrize("bos", [None, 1])
def test_prompt_has_exactly_the_length(spec: NeedleSpec, length: int, bos: int | None) -> None:
    case = draw_question(spec, seed=0, index=7, depth=50)
    prompt = assemble_prompt(case, HAYSTACK, encode, length, STOP, [] if bos is None else [bos])
    assert len(prompt) == length
    assert (prompt[0] == bos) is (bos is not None)
    for needle in case.needles:
        assert decode(prompt).count(needle.sentence) == 1
    assert decode(prompt).endswith(case.prompt_end)


@pytest.mark.parametrize("depth", [0, 25, 50, 75, 100])
def test_needle_lies_at_the_last_boundary_before_its_depth(depth: float) -> None:
    case = draw_question(NeedleSpec(), seed=0, index=0, depth=depth)
    text = decode(assemble_prompt(case, HAYSTACK, encode, 2000, STOP))
    needle = " " + case.needles[0].sentence
    before, after = text.removesuffix(case.prompt_end).split(needle)
    target = (len(before) + len(after)) * depth / 100
    assert before == "" or before.endswith(".")
    assert len(before) <= target < len(before) + len(after.partition(".")[0]) + 2


def test_only_the_needles_are_not_haystack() -> None:
    case = draw_question(NeedleSpec(keys=6), seed=0, index=0, depth=30)
    text = decode(assemble_prompt(case, HAYSTACK, encode, 2000, STOP)).removesuffix(case.prompt_end)
    for needle in case.needles:
        text = text.replace(" " + needle.sentence, "")
    assert decode(HAYSTACK).startswith(text)


def test_too_short_a_prompt_says_what_is_needed() -> None:
    case = draw_question(NeedleSpec(keys=3), seed=0, index=0, depth=50)
    least = len(case.prompt_end) + sum(len(needle.sentence) + 1 for needle in case.needles)
    assert len(assemble_prompt(case, HAYSTACK, encode, least, STOP)) == least
    with pytest.raises(ValueError, match=f"{least} needed"):
        assemble_prompt(case, HAYSTACK, encode, least - 1, STOP)


def test_too_short_a_haystack_is_an_error() -> None:
    with pytest.raises(ValueError, match="tokens of haystack, got 10"):
        assemble_prompt(draw_question(NeedleSpec(), 0, 0, 50), HAYSTACK[:10], encode, 1000, STOP)


def test_a_draw_is_independent_of_other_draws() -> None:
    alone = draw_question(NeedleSpec(keys=4), seed=0, index=5, depth=50)
    assert alone == [draw_question(NeedleSpec(keys=4), 0, index, 50) for index in range(10)][5]
    assert alone != draw_question(NeedleSpec(keys=4), seed=1, index=5, depth=50)
    assert alone != draw_question(NeedleSpec(keys=4), seed=0, index=6, depth=50)


def test_question_and_answer_of_several_codes() -> None:
    case = draw_question(NeedleSpec(SEVERAL_CODES, values=3), seed=0, index=0, depth=50)
    (key,) = case.queried_keys
    first, second, third = case.values
    assert case.prompt_end == f"\nWhat are the 3 codes of {key}? The 3 codes of {key} are"
    assert case.answer == f" {first}, {second}, {third}."


def test_question_and_answer_of_several_keys() -> None:
    case = draw_question(NeedleSpec(SEVERAL_KEYS, keys=4, queries=3), seed=0, index=0, depth=50)
    a, b, c = case.queried_keys
    assert case.prompt_end == f"\nWhat are the codes of {a}, {b} and {c}? The code of {a} is"
    assert case.answer.startswith(
        f" {case.values[0]}. The code of {b} is {case.values[1]}. The code of {c} is"
    )
    assert len(case.needles) == 4


def test_training_and_evaluation_share_no_key() -> None:
    train, evaluation = set(split_keys("train")), set(split_keys("evaluation"))
    assert not train & evaluation
    training_words = set(" ".join(train).split())
    assert set(" ".join(evaluation).split()) <= training_words
    spec = NeedleSpec(keys=8)
    assert set(draw_question(spec, 0, 0, 50).codes) <= evaluation
    assert set(random_question(Random(0), spec, 50, "train").codes) <= train


@pytest.mark.parametrize("wrong", [{"queries": 2}, {"keys": 0}, {"digits": 0}, {"values": 0}])
def test_impossible_specs_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NeedleSpec(**wrong)


@pytest.mark.parametrize(
    ("task", "wording"),
    [
        ("single", ONE_CODE),
        ("multikey", ONE_CODE),
        ("multivalue", SEVERAL_CODES),
        ("multiquery", SEVERAL_KEYS),
    ],
)
def test_cards_say_what_the_pocket_model_was_trained_on(task: str, wording: NeedleWording) -> None:
    card = yaml.safe_load((TASKS / "tasks.yaml").read_text())[task]
    assert NeedleWording(card["needle"], card["question"], card["answer"]) == wording
    NeedleSpec(wording, card["keys"], card["values"], card["queries"], card["digits"])
