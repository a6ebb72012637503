"""Words and draws."""

import json
import uuid
from pathlib import Path
from random import Random

import numpy as np
import pytest

from lampe_eval.errors import UserError
from lampe_eval.ruler import frequent_words, seeded_random, shared_corpora, word_lists
from tests.lampe_eval.ruler import kit


def test_pools_are_those_of_ruler() -> None:
    assert len(word_lists.pool()) == 8169
    assert len(word_lists.adjectives()) * len(word_lists.nouns()) == 6_175_260
    assert list(word_lists.pool()) == sorted(set(word_lists.pool()))
    assert all(word == word.strip() for word in word_lists.pool())


def test_made_words_are_new_and_always_the_same() -> None:
    made = word_lists.made(3000)
    assert len(set(made)) == 3000
    assert not set(made) & set(word_lists.pool())
    assert made[:100] == word_lists.made(100)
    assert all(word.isalpha() for word in made)


@pytest.mark.parametrize("data", [{"1": "b", "2": "a", "3": "b"}, ["b", "a"]])
def test_english_words(tmp_path: Path, data: object) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert word_lists.english(path) == ("a", "b")


@pytest.mark.parametrize("data", ["[1, 2]", "{", "[]", '"word"', "3"])
def test_english_words_that_are_none(tmp_path: Path, data: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(data, encoding="utf-8")
    with pytest.raises(UserError, match=str(path)):
        word_lists.english(path)


def test_draws_are_pinned() -> None:
    """Other numbers here mean other samples everywhere: raise the version of every task."""
    random = seeded_random.seeded_rng("pin", 1)
    assert seeded_random.permutation(random, 8).tolist() == [7, 5, 0, 6, 3, 1, 2, 4]
    assert seeded_random.distinct(random, "numbers", 2) == ["8550377", "4706513"]
    assert seeded_random.distinct(random, "words", 2) == ["lean-dependent", "luxuriant-song"]
    assert [uuid.UUID(code).version for code in seeded_random.distinct(random, "uuids", 3)] == [
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


def test_sentences_begin_after_sentences() -> None:
    text = 'He said "No." Then he left! Was it 3.5 or (so it seems.) four? Yes'
    assert [len(found.split()) for found in shared_corpora.sentences(text.split())] == [
        3,
        3,
        7,
        1,
        1,
    ]


def test_a_sentence_may_end_within_a_word() -> None:
    found = shared_corpora.Essays.of(
        kit.shelf().coder, ["One", "two.[1]", "Three"], ["One two.", "[1] Three"]
    )
    assert found.table.text(found.pieces) == " One two. [1] Three"
    assert (found.ends.tolist(), found.starts.tolist()) == ([0, 1, 3, 4], [0, 2])
    assert found.costs[-1] == kit.shelf().coder.count(" One", " two.", " [1]", " Three")


def test_punkt_by_its_tables() -> None:
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
    tokenizer = kit.shelf().coder.tokenizer
    with pytest.raises(UserError, match="no texts"):
        shared_corpora.SharedCorpora(tokenizer).essays(10, own=True, old=False)
    with pytest.raises(UserError, match="no words"):
        shared_corpora.SharedCorpora(tokenizer, lambda count: ["", " "]).essays(
            10, own=True, old=False
        )
    short = shared_corpora.SharedCorpora(tokenizer, lambda count: ["One two. Three"]).essays(
        7, own=True, old=False
    )
    assert short.table.text(short.pieces) == " One two. Three One two. Three One"


@pytest.mark.parametrize("data", ["{}", "[]", '{"text": 3}', "{", '{"text": " "}'])
def test_essays_that_are_none(tmp_path: Path, data: str) -> None:
    path = tmp_path / "essays.json"
    path.write_text(data, encoding="utf-8")
    with pytest.raises(UserError, match=str(path)):
        shared_corpora.squeezed(path)
