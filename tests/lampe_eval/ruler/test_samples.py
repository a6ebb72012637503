"""What samples are made of, in our own wording."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from lampe_eval.ruler import (
    RulerSample,
    SampleSpec,
    SharedCorpora,
    build_sample,
    ruler_needles,
    word_lists,
)
from lampe_eval.ruler.ruler_cards import CweParameters, NiahParameters
from lampe_eval.ruler.sample_spec import SampleDraw
from tests.lampe_eval.ruler.kit import CARDS, ESSAY_TASKS, documents, shelf, text

LENGTH = 6000
NIAH = [name for name in CARDS if name.startswith("niah")]


def sample(task: str, index: int = 0, length: int = LENGTH, seed: int = 0) -> RulerSample:
    return build_sample(task, CARDS[task], SampleSpec(shelf(), length, seed), index)


def prompt(task: str, index: int = 0) -> str:
    return text(shelf(), sample(task, index))


@pytest.mark.parametrize("task", CARDS)
def test_a_sample_depends_on_nothing_that_was_made_before(task: str) -> None:
    fresh = SharedCorpora(shelf().coder.tokenizer, documents)
    later = [build_sample(task, CARDS[task], SampleSpec(fresh, LENGTH), index) for index in (2, 0)]
    for built, index in zip(later, (2, 0), strict=True):
        again = sample(task, index)
        assert (built.outputs, built.answer_prefix, built.units, built.meta) == (
            again.outputs,
            again.answer_prefix,
            again.units,
            again.meta,
        )
        assert built.ids is not None
        assert again.ids is not None
        assert built.ids.tolist() == again.ids.tolist()


@pytest.mark.parametrize("task", CARDS)
def test_samples_and_seeds_differ_and_versions_too(task: str) -> None:
    newer = CARDS[task].model_copy(update={"version": 2})
    prompts = [prompt(task), prompt(task, 1), text(shelf(), sample(task, seed=1))]
    prompts.append(text(shelf(), build_sample(task, newer, SampleSpec(shelf(), LENGTH), 0)))
    assert len(set(prompts)) == 4


@pytest.mark.parametrize("task", CARDS)
def test_what_is_asked_is_the_same_at_every_length(task: str) -> None:
    assert sample(task).outputs == sample(task, length=9000).outputs


@pytest.mark.parametrize("task", NIAH)
@pytest.mark.parametrize("index", range(3))
def test_needles(task: str, index: int) -> None:
    built, parameters = sample(task, index), CARDS[task].parameters
    assert isinstance(parameters, NiahParameters)
    body = prompt(task, index)
    kind = parameters.values.removesuffix("s")
    needles = re.findall(rf"The {kind} listed under (\S+) is (\S+)\.", body)
    keys = max(parameters.num_keys, parameters.num_queries)
    if parameters.haystack == "needle":
        assert len(needles) in (
            built.units + 1,
            built.units + 2,
        )  # one more may have been cut in its last word
        assert len({key for key, _ in needles[: built.units + 1]}) == built.units + 1
    else:
        assert len(needles) == keys * parameters.num_values
        assert len({key for key, _ in needles}) == keys
    question = body.rpartition("\n")[2]
    queried = [key for key, _ in needles if f" {key}" in question]
    assert sorted(built.outputs) == sorted(value for key, value in needles if key in queried)
    assert len(built.outputs) == parameters.num_queries * parameters.num_values
    assert question.endswith(built.answer_prefix)
    assert ("numbers" in question or "uuids" in question) == (len(built.outputs) > 1)


@pytest.mark.parametrize("task", ESSAY_TASKS)
def test_needles_in_essays_lie_at_one_of_forty_depths_between_sentences(task: str) -> None:
    assert (len(ruler_needles.DEPTHS), ruler_needles.DEPTHS[:3], ruler_needles.DEPTHS[-1]) == (
        40,
        (0, 3, 5),
        100,
    )
    seen = set()
    for index in range(12):
        depth = sample(task, index).meta["depth"]
        assert depth in ruler_needles.DEPTHS
        seen.add(depth)
        context = prompt(task, index).rpartition("\n")[0]
        needle = r"The \w+ listed under \S+ is \S+\."
        inside = re.sub(
            rf"\S+( {needle})+[^.]*$", "", context
        )  # at depth 100 it follows half a sentence
        before = re.findall(rf"(\S+)[ \n]+{needle}", inside)
        assert all(word[-1] in ".?!\"'" for word in before)
    assert len(seen) > 4


def test_the_needle_asked_for_may_be_any_of_them() -> None:
    parameters = CARDS["niah_multikey_1"].parameters
    assert isinstance(parameters, NiahParameters)
    drawn = [
        SampleDraw(SampleSpec(shelf(), LENGTH), "niah_multikey_1", 128, index)
        for index in range(30)
    ]
    assert {ruler_needles.riddle(parameters, draw).asked for draw in drawn} == {0, 1, 2, 3}


def test_no_other_needle_has_a_key_that_is_asked_for() -> None:
    parameters = CARDS["niah_multikey_2"].parameters
    assert isinstance(parameters, NiahParameters)
    draw = SampleDraw(SampleSpec(shelf(), LENGTH), "niah_multikey_2", 128, 0)
    hidden = ruler_needles.riddle(parameters, draw)
    table, order = ruler_needles._distractors(parameters, hidden, draw)
    key = table.texts[order[5]].split()[4]
    _, fewer = ruler_needles._distractors(parameters, replace(hidden, keys=(key,)), draw)
    assert fewer.tolist() == [*order[:5].tolist(), *order[6:].tolist()]


def test_queries_are_listed() -> None:
    assert [ruler_needles.listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a, and b", "a, b, and c"]


def test_chains_of_variables_are_solved_first_and_asked_then() -> None:
    built, body = sample("vt"), prompt("vt")
    lines = re.findall(r"^SET ([A-Z]+) TO ([A-Z0-9]+)\.$", body, re.MULTILINE)
    example, chain = lines[:5], lines[5:]
    assert [name for name, _ in chain] == list(built.outputs)
    for names in (example, chain):
        assert names[0][1].isdigit()
        assert len(names[0][1]) == 5
        assert [value for _, value in names[1:]] == [name for name, _ in names[:-1]]
    assert {len(name) for name, _ in example} == {3}
    assert {len(name) for name, _ in chain} == {5}
    assert f"{' '.join(name for name, _ in example)}\n" in body
    assert body.endswith(f"{chain[0][1]}:")


def test_the_example_of_variables_is_new_in_every_sample_and_as_long() -> None:
    examples = [prompt("vt", index).partition("variables hold")[0] for index in range(3)]
    assert len(set(examples)) == 3
    assert len({example.count("Rain falls on") for example in examples}) == 1


@pytest.mark.parametrize(
    ("length", "often", "seldom", "demo"), [(6000, 30, 3, (10, 3)), (3000, 6, 1, (3, 1))]
)
def test_words_stand_in_the_list_as_often_as_they_should(
    length: int, often: int, seldom: int, demo: tuple[int, int]
) -> None:
    built = sample("cwe", length=length)
    body = text(shelf(), built)
    lists = [
        re.findall(r"(\d+)\. (\D+)(?= |$)", line)
        for line in body.split("\n")
        if line.startswith("1. ")
    ]
    example, asked = lists
    times = Counter(word for _, word in asked[:-1])  # the last entry may be cut
    assert all(times[word] in (often, often - 1) for word in built.outputs)
    assert set(times.values()) <= {seldom, seldom + 1, often, often - 1}
    assert len(times) - len(built.outputs) in range(built.units - 11, built.units - 8)
    assert [int(number) for number, _ in asked] == list(range(1, len(asked) + 1))
    assert set(Counter(word for _, word in example).values()) == set(demo)


def test_a_long_list_goes_on_with_made_words() -> None:
    card, pool = CARDS["cwe"], set(word_lists.pool())
    assert isinstance(card.parameters, CweParameters)
    once = card.parameters.long.model_copy(update={"seldom": 1})
    longer = card.model_copy(
        update={"parameters": card.parameters.model_copy(update={"long": once})}
    )
    built = build_sample("cwe", longer, SampleSpec(shelf(), 75_000), 0)
    assert built.units > len(pool)
    asked = text(shelf(), built).split("\n")[-2]
    listed = set(re.findall(r"\d+\. (\D+)(?= )", asked))
    assert pool < listed
    assert len(listed) in range(built.units - 1, built.units + 2)
    assert set(built.outputs) <= pool


def test_invented_words_fall_in_frequency() -> None:
    built, body = sample("fwe"), prompt("fwe")
    found = body.split("\n")[1].split()
    times = Counter(word for word in found if "." not in word)
    ranked = [word for word, _ in times.most_common()]
    assert tuple(ranked[:3]) == built.outputs
    assert all(re.fullmatch("[a-z]{6}", word) for word in ranked)
    expected = [
        int(built.units * rank**-2 / 1.6449340668482264) for rank in range(1, len(ranked) + 2)
    ]
    assert [times[word] for word in ranked] == expected[1:]
    assert found.count("...") in range(expected[0], expected[0] + 9)
    assert len(set(times.values())) > 4


@pytest.mark.parametrize("task", ["qa_1", "qa_2"])
def test_documents_that_answer_are_always_there(task: str) -> None:
    for index in range(7):
        for length in (2000, 12_000):  # some documents, and all of them more than once
            built = sample(task, index, length)
            body = text(shelf(), built)
            at = f"At 0-{index}" if task == "qa_1" else f"Title {index % 6}-"
            assert (
                body.count(
                    f"{at} is {built.outputs[0]}." if task == "qa_1" and index < 4 else "Passage"
                )
                >= 1
            )
            if task == "qa_2":
                assert all(f"{at}{i}\n" in body for i in range(5))
            passages = re.findall(r"^Passage (\d+)$", body, re.MULTILINE)
            assert [int(number) for number in passages[: built.units]] == list(
                range(1, built.units + 1)
            )


def test_questions_come_in_their_order_with_all_answers() -> None:
    assert [sample("qa_1", index).outputs for index in (0, 5, 24)] == [
        ("code00", "the code00"),
        ("code11", "the code11"),
        ("code00", "the code00"),
    ]
    assert sample("qa_2", 4).outputs == ("tag4",)
    assert "Which hill is 4?" in prompt("qa_2", 4)


def test_documents_of_the_same_article_come_first() -> None:
    body = text(shelf(), sample("qa_1", 9, 800))
    articles = re.findall(r"At (\d)-\d is code\d\d\.", body)
    assert Counter(articles)["2"] == min(4, len(articles))
