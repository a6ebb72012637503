"""Word lists, random draws, essays and sentences."""

import json
import uuid
from pathlib import Path
from random import Random

import numpy as np
import pytest

from lampe_eval.errors import UserError
from lampe_eval.ruler import frequent_words, seeded_random, shared_corpora, word_lists
from lampe_eval.texts.sentence_ends import sentence_starts
from tests.lampe_eval.ruler import ruler_examples


def test_word_pools_have_the_sizes_of_ruler() -> None:
    assert len(word_lists.word_pool()) == 8169
    assert len(word_lists.adjectives()) * len(word_lists.nouns()) == 6_175_260
    assert list(word_lists.word_pool()) == sorted(set(word_lists.word_pool()))
    assert all(word == word.strip() for word in word_lists.word_pool())


def test_compound_words_are_new_and_always_the_same() -> None:
    words = word_lists.compound_words(3000)
    assert len(set(words)) == 3000
    assert not set(words) & set(word_lists.word_pool())
    assert words[:100] == word_lists.compound_words(100)
    assert all(word.isalpha() for word in words)


@pytest.mark.parametrize("data", [{"1": "b", "2": "a", "3": "b"}, ["b", "a"]])
def test_english_words(tmp_path: Path, data: object) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert word_lists.english_words(path) == ("a", "b")


@pytest.mark.parametrize("data", ["[1, 2]", "{", "[]", '"word"', "3"])
def test_a_file_without_english_words_is_refused(tmp_path: Path, data: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(data, encoding="utf-8")
    with pytest.raises(UserError, match=str(path)):
        word_lists.english_words(path)


def test_draws_are_pinned() -> None:
    """Fail if draws change: that changes all samples, so every task needs a new version."""
    random = seeded_random.seeded_rng("pin", 1)
    assert seeded_random.permutation(random, 8).tolist() == [7, 5, 0, 6, 3, 1, 2, 4]
    assert seeded_random.distinct_values(random, "numbers", 2) == ["8550377", "4706513"]
    assert seeded_random.distinct_values(random, "words", 2) == ["lean-dependent", "luxuriant-song"]
    assert [
        uuid.UUID(code).version for code in seeded_random.distinct_values(random, "uuids", 3)
    ] == [
        4,
        4,
        4,
    ]


def test_permutations_are_permutations() -> None:
    assert sorted(seeded_random.permutation(Random(0), 1000).tolist()) == list(range(1000))
    assert seeded_random.permutation(Random(0), 0).tolist() == []
    first = np.mean([seeded_random.permutation(Random(i), 10)[0] for i in range(2000)])
    assert 4.2 < first < 4.8


def test_zeta() -> None:
    assert frequent_words.zeta(2.0) == pytest.approx(np.pi**2 / 6, abs=1e-14)
    assert frequent_words.zeta(4.0) == pytest.approx(np.pi**4 / 90, abs=1e-14)
    assert frequent_words.zeta(1.5) == pytest.approx(2.612375348685488, abs=1e-9)


def test_sentences_end_with_a_mark_that_ends_a_word() -> None:
    text = 'He said "No." Then he left! Was it 3.5 or (so it seems.) four? Yes'
    words = text.split()
    starts = sentence_starts(words)
    assert np.diff([*starts, len(words)]).tolist() == [3, 3, 7, 1, 1]


def test_a_sentence_may_end_within_a_word() -> None:
    tokenizer = ruler_examples.shared_corpora().tokenizer
    essays = shared_corpora.Essays.from_words(
        tokenizer, ["One", "two.[1]", "Three"], ["One two.", "[1] Three"]
    )
    assert essays.table.text(essays.pieces) == " One two. [1] Three"
    assert essays.piece_counts.tolist() == [0, 1, 3, 4]
    assert essays.sentence_starts.tolist() == [0, 2]
    tokens = tokenizer.count_tokens(" One", " two.", " [1]", " Three")
    assert essays.token_counts[-1] == tokens


def test_punkt_parameters_come_from_its_tables() -> None:
    tables = {
        "collocations.tab": ["mr\tx"],
        "sent_starters.txt": ["the"],
        "abbrev_types.txt": ["mr", "e.g"],
    }
    tables["ortho_context.tab"] = ["smith\t34", "the\t46"]
    parameters = shared_corpora.punkt_parameters(tables.__getitem__)
    assert parameters.abbrev_types == {"mr", "e.g"}
    assert parameters.collocations == {("mr", "x")}
    assert (parameters.ortho_context["smith"], parameters.ortho_context["none"]) == (34, 0)


def test_haystacks_need_words() -> None:
    tokenizer = ruler_examples.shared_corpora().tokenizer.tokenizer
    with pytest.raises(UserError, match="no texts"):
        _document_essays(shared_corpora.SharedCorpora(tokenizer), 10)
    with pytest.raises(UserError, match="no words"):
        _document_essays(shared_corpora.SharedCorpora(tokenizer, lambda count: ["", " "]), 10)


def test_a_haystack_of_documents_repeats_them() -> None:
    tokenizer = ruler_examples.shared_corpora().tokenizer.tokenizer
    corpora = shared_corpora.SharedCorpora(tokenizer, lambda count: ["One two. Three"])
    essays = _document_essays(corpora, 7)
    assert essays.table.text(essays.pieces) == " One two. Three One two. Three One"


def _document_essays(corpora: shared_corpora.SharedCorpora, words: int) -> shared_corpora.Essays:
    return corpora.essays(words, from_documents=True, repeat=True)


@pytest.mark.parametrize("data", ["{}", "[]", '{"text": 3}', "{", '{"text": " "}'])
def test_a_file_without_essays_is_refused(tmp_path: Path, data: str) -> None:
    path = tmp_path / "essays.json"
    path.write_text(data, encoding="utf-8")
    with pytest.raises(UserError, match=str(path)):
        shared_corpora.read_essay_words(path)
