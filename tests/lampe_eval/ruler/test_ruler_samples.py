"""Contents of samples in our own wording."""

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
from tests.lampe_eval.ruler.ruler_examples import (
    CARDS,
    ESSAY_TASKS,
    decode_prompt,
    documents,
    shared_corpora,
)

LENGTH = 6000
NIAH = [name for name in CARDS if name.startswith("niah")]


def build(task: str, index: int = 0, length: int = LENGTH, seed: int = 0) -> RulerSample:
    return build_sample(task, CARDS[task], SampleSpec(shared_corpora(), length, seed), index)


def text_of(sample: RulerSample) -> str:
    return decode_prompt(shared_corpora(), sample)


@pytest.mark.parametrize("task", CARDS)
def test_a_sample_does_not_depend_on_samples_built_before(task: str) -> None:
    fresh = SharedCorpora(shared_corpora().tokenizer.tokenizer, documents)
    for index in (2, 0):
        sample = build_sample(task, CARDS[task], SampleSpec(fresh, LENGTH), index)
        other = build(task, index)
        assert (sample.outputs, sample.answer_prefix) == (other.outputs, other.answer_prefix)
        assert (sample.units, sample.meta) == (other.units, other.meta)
        assert sample.ids is not None
        assert other.ids is not None
        assert sample.ids.tolist() == other.ids.tolist()


@pytest.mark.parametrize("task", CARDS)
def test_samples_differ_by_index_seed_and_version(task: str) -> None:
    newer = CARDS[task].model_copy(update={"version": 2})
    of_version = build_sample(task, newer, SampleSpec(shared_corpora(), LENGTH), 0)
    samples = [build(task), build(task, 1), build(task, seed=1), of_version]
    assert len({text_of(sample) for sample in samples}) == 4


@pytest.mark.parametrize("task", CARDS)
def test_question_and_answer_are_the_same_at_every_length(task: str) -> None:
    assert build(task).outputs == build(task, length=9000).outputs


@pytest.mark.parametrize("task", NIAH)
@pytest.mark.parametrize("index", range(3))
def test_needles_and_question_agree(task: str, index: int) -> None:
    sample, parameters = build(task, index), CARDS[task].parameters
    assert isinstance(parameters, NiahParameters)
    text = text_of(sample)
    kind = parameters.values.removesuffix("s")
    needles = re.findall(rf"The {kind} listed under (\S+) is (\S+)\.", text)
    keys = max(parameters.num_keys, parameters.num_queries)
    if parameters.haystack == "needle":
        # one more may have been cut in its last word
        assert len(needles) in (sample.units + 1, sample.units + 2)
        assert len({key for key, _ in needles[: sample.units + 1]}) == sample.units + 1
    else:
        assert len(needles) == keys * parameters.num_values
        assert len({key for key, _ in needles}) == keys
    question = text.rpartition("\n")[2]
    queried = [key for key, _ in needles if f" {key}" in question]
    assert sorted(sample.outputs) == sorted(value for key, value in needles if key in queried)
    assert len(sample.outputs) == parameters.num_queries * parameters.num_values
    assert question.endswith(sample.answer_prefix)
    assert ("numbers" in question or "uuids" in question) == (len(sample.outputs) > 1)


def test_depths_are_those_of_ruler() -> None:
    assert len(ruler_needles.DEPTHS) == 40
    assert (ruler_needles.DEPTHS[:3], ruler_needles.DEPTHS[-1]) == ((0, 3, 5), 100)


@pytest.mark.parametrize("task", ESSAY_TASKS)
def test_needles_in_essays_lie_at_one_of_forty_depths_between_sentences(task: str) -> None:
    depths = set()
    needle = r"The \w+ listed under \S+ is \S+\."
    for index in range(12):
        sample = build(task, index)
        depth = sample.meta["depth"]
        assert depth in ruler_needles.DEPTHS
        depths.add(depth)
        context = text_of(sample).rpartition("\n")[0]
        # at depth 100 a needle follows half a sentence
        inside = re.sub(rf"\S+( {needle})+[^.]*$", "", context)
        words_before = re.findall(rf"(\S+)[ \n]+{needle}", inside)
        assert all(word[-1] in ".?!\"'" for word in words_before)
    assert len(depths) > 4


def test_any_needle_may_be_the_first_that_is_queried() -> None:
    parameters = CARDS["niah_multikey_1"].parameters
    assert isinstance(parameters, NiahParameters)
    places = set()
    for index in range(30):
        draw = SampleDraw(SampleSpec(shared_corpora(), LENGTH), "niah_multikey_1", 128, index)
        places.add(ruler_needles.draw_needles(parameters, draw).first_queried)
    assert places == {0, 1, 2, 3}


def test_no_distractor_has_a_key_of_the_sample() -> None:
    parameters = CARDS["niah_multikey_2"].parameters
    assert isinstance(parameters, NiahParameters)
    draw = SampleDraw(SampleSpec(shared_corpora(), LENGTH), "niah_multikey_2", 128, 0)
    needles = ruler_needles.draw_needles(parameters, draw)
    table, order = ruler_needles._distractors(parameters, needles, draw)
    key = table.texts[order[5]].split()[4]
    _, fewer = ruler_needles._distractors(parameters, replace(needles, keys=(key,)), draw)
    assert fewer.tolist() == [*order[:5].tolist(), *order[6:].tolist()]


@pytest.mark.parametrize(
    ("keys", "phrase"), [("a", "a"), ("ab", "a, and b"), ("abc", "a, b, and c")]
)
def test_queried_keys_are_joined_to_a_phrase(keys: str, phrase: str) -> None:
    assert ruler_needles.join_keys(keys) == phrase


def test_chains_of_variables_follow_a_solved_example() -> None:
    sample = build("vt")
    text = text_of(sample)
    lines = re.findall(r"^SET ([A-Z]+) TO ([A-Z0-9]+)\.$", text, re.MULTILINE)
    example, chain = lines[:5], lines[5:]
    assert [name for name, _ in chain] == list(sample.outputs)
    for assignments in (example, chain):
        assert assignments[0][1].isdigit()
        assert len(assignments[0][1]) == 5
        values = [value for _, value in assignments[1:]]
        assert values == [name for name, _ in assignments[:-1]]
    assert {len(name) for name, _ in example} == {3}
    assert {len(name) for name, _ in chain} == {5}
    assert f"{' '.join(name for name, _ in example)}\n" in text
    assert text.endswith(f"{chain[0][1]}:")


def test_the_example_of_variables_is_new_in_every_sample_and_equally_long() -> None:
    texts = [text_of(build("vt", index)) for index in range(3)]
    examples = [text.partition("variables hold")[0] for text in texts]
    assert len(set(examples)) == 3
    assert len({example.count("Rain falls on") for example in examples}) == 1


@pytest.mark.parametrize(
    ("length", "often", "seldom", "demo"), [(6000, 30, 3, (10, 3)), (3000, 6, 1, (3, 1))]
)
def test_words_have_as_many_entries_as_their_frequencies(
    length: int, often: int, seldom: int, demo: tuple[int, int]
) -> None:
    sample = build("cwe", length=length)
    lists = [line for line in text_of(sample).split("\n") if line.startswith("1. ")]
    example, entries = (re.findall(r"(\d+)\. (\D+)(?= |$)", line) for line in lists)
    times = Counter(word for _, word in entries[:-1])  # the last entry may be cut
    assert all(times[word] in (often, often - 1) for word in sample.outputs)
    assert set(times.values()) <= {seldom, seldom + 1, often, often - 1}
    assert len(times) - len(sample.outputs) in range(sample.units - 11, sample.units - 8)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    assert set(Counter(word for _, word in example).values()) == set(demo)


def test_a_long_list_continues_with_compound_words() -> None:
    card, pool = CARDS["cwe"], set(word_lists.word_pool())
    assert isinstance(card.parameters, CweParameters)
    frequencies = card.parameters.long.model_copy(update={"seldom": 1})
    parameters = card.parameters.model_copy(update={"long": frequencies})
    card = card.model_copy(update={"parameters": parameters})
    sample = build_sample("cwe", card, SampleSpec(shared_corpora(), 75_000), 0)
    assert sample.units > len(pool)
    entries = text_of(sample).split("\n")[-2]
    listed = set(re.findall(r"\d+\. (\D+)(?= )", entries))
    assert pool < listed
    assert len(listed) in range(sample.units - 1, sample.units + 2)
    assert set(sample.outputs) <= pool


def test_the_frequency_of_invented_words_falls_with_their_rank() -> None:
    sample = build("fwe")
    words = text_of(sample).split("\n")[1].split()
    times = Counter(word for word in words if "." not in word)
    ranked = [word for word, _ in times.most_common()]
    assert tuple(ranked[:3]) == sample.outputs
    assert all(re.fullmatch("[a-z]{6}", word) for word in ranked)
    zeta_of_two = 1.6449340668482264
    ranks = range(1, len(ranked) + 2)
    expected = [int(sample.units * rank**-2 / zeta_of_two) for rank in ranks]
    assert [times[word] for word in ranked] == expected[1:]
    assert words.count("...") in range(expected[0], expected[0] + 9)
    assert len(set(times.values())) > 4


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("length", [2000, 12_000])  # some documents, and all of them repeatedly
def test_documents_that_answer_a_question_of_squad_are_always_there(
    length: int, index: int
) -> None:
    sample = build("qa_1", index, length)
    text = text_of(sample)
    # the first four questions are those of the first article
    assert (f"At 0-{index} is {sample.outputs[0]}." if index < 4 else "Passage") in text
    assert_passages_are_numbered(text, sample.units)


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("length", [2000, 12_000])
def test_documents_that_answer_a_question_of_hotpotqa_are_always_there(
    length: int, index: int
) -> None:
    sample = build("qa_2", index, length)
    text = text_of(sample)
    assert all(f"Title {index % 6}-{passage}\n" in text for passage in range(5))
    assert_passages_are_numbered(text, sample.units)


def assert_passages_are_numbered(text: str, units: int) -> None:
    numbers = re.findall(r"^Passage (\d+)$", text, re.MULTILINE)
    assert [int(number) for number in numbers[:units]] == list(range(1, units + 1))


def test_questions_come_in_their_order_with_all_answers() -> None:
    assert [build("qa_1", index).outputs for index in (0, 5, 24)] == [
        ("code00", "the code00"),
        ("code11", "the code11"),
        ("code00", "the code00"),
    ]
    assert build("qa_2", 4).outputs == ("tag4",)
    assert "Which hill is 4?" in text_of(build("qa_2", 4))


def test_documents_of_the_same_article_come_first() -> None:
    articles = re.findall(r"At (\d)-\d is code\d\d\.", text_of(build("qa_1", 9, 800)))
    assert Counter(articles)["2"] == min(4, len(articles))


def test_questions_about_the_same_documents_share_their_hash() -> None:
    """Ask the first of the 24 questions of SQuAD, the second, and the first again."""
    first, second, again = (build("qa_1", index).document_sha256 for index in (0, 1, 24))
    assert first == again != second
    assert build("niah_single_1", 0).document_sha256 == ""


def test_samples_in_the_same_essays_share_their_hash() -> None:
    hashes = {build(task, index).document_sha256 for task in ESSAY_TASKS for index in range(3)}
    assert len(hashes) == 1
    assert hashes != {""}
