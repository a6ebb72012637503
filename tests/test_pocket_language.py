"""The generated English: deterministic, of closed vocabulary, with facts that come back."""

import re
from random import Random

from lampe_eval.texts import pocket_language


def test_text_depends_on_the_seed_alone() -> None:
    assert pocket_language.text(3, 500) == pocket_language.text(3, 500)
    assert pocket_language.text(3, 500) != pocket_language.text(4, 500)
    assert pocket_language.text(3, 2000).startswith(pocket_language.text(3, 500))


def test_text_has_as_many_words_as_requested() -> None:
    for words in (1, 100, 3000):
        assert words <= len(pocket_language.text(0, words).split()) < words + 300


def test_every_word_is_in_the_vocabulary() -> None:
    words = set(re.findall(r"[A-Za-z]+", pocket_language.text(1, 50_000)))
    assert words <= set(pocket_language.VOCABULARY)
    assert 400 <= len(pocket_language.VOCABULARY) <= 700


def test_text_reads_as_sentences_in_paragraphs() -> None:
    for paragraph in pocket_language.text(2, 2000).splitlines():
        assert re.fullmatch(r"([A-Z][A-Za-z, ]*[a-z]\. ?)*", paragraph), paragraph


def test_facts_recur_at_long_distance() -> None:
    text = pocket_language.text(5, 4000)
    homes = re.findall(r"(\w+) lives near the (\w+)\.", text)
    assert len(homes) > len(set(homes)), "no fact is repeated"
    assert len(dict(homes)) == len(set(homes)), "somebody lives in two places"


def test_a_story_can_be_drawn_on_its_own() -> None:
    assert pocket_language.story(Random(1)) == pocket_language.story(Random(1))
