"""Word lists of wonderwords 2.2.0, as RULER uses them, and compound words that extend them.

RULER (``scripts/data/synthetic/{niah,common_words_extraction}.py`` of NVIDIA/RULER at c3f5e3b)
draws from the 8,169 different words for lists, and from all 6,175,260 pairs of adjective and noun
for the keys of needles. Where a list needs more words, the official wording takes them from the
asset ``ruler/english_words.json``. Our own wording joins an adjective and a noun instead, which
needs no download.
"""

from functools import cache, lru_cache
from importlib.metadata import distribution
from pathlib import Path
from random import Random

from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json


@cache
def adjectives() -> tuple[str, ...]:
    """Return the different adjectives in alphabetical order."""
    return tuple(sorted(_words_of_kind("adjective")))


@cache
def nouns() -> tuple[str, ...]:
    """Return the different nouns in alphabetical order."""
    return tuple(sorted(_words_of_kind("noun")))


@cache
def word_pool() -> tuple[str, ...]:
    """Return the different nouns, adjectives and verbs in alphabetical order."""
    words = _words_of_kind("noun") | _words_of_kind("adjective") | _words_of_kind("verb")
    return tuple(sorted(words))


@lru_cache(maxsize=4)
def compound_words(count: int) -> tuple[str, ...]:
    """Return ``count`` words made of an adjective and a noun, none of them in the pool."""
    # The order is random but always the same, so a longer list begins with the shorter one.
    rng = Random("ruler words")
    pool = set(word_pool())
    first_parts = [word for word in adjectives() if word.isalpha()]
    second_parts = [word for word in nouns() if word.isalpha()]
    words: dict[str, None] = {}
    while len(words) < count:
        word = rng.choice(first_parts) + rng.choice(second_parts)
        if word not in pool:
            words[word] = None
    return tuple(words)


@lru_cache(maxsize=1)
def english_words(path: Path) -> tuple[str, ...]:
    """Return the different words of ``english_words.json``: a list, or a mapping to words.

    Raises:
        UserError: if the file is neither.
    """
    data = read_json(path)
    words = list(data.values()) if isinstance(data, dict) else data
    if not isinstance(words, list) or not words or not all(map(_is_word, words)):
        raise UserError(
            f"{path}: must be a list of words, or a mapping to words; is it the official file?"
        )
    return tuple(sorted(set(words)))


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _words_of_kind(kind: str) -> set[str]:
    """Return the words in one of the files that wonderwords installs."""
    # The version is pinned: 3.0.1 has 8,166 different words, which would change every sample.
    path = distribution("wonderwords").locate_file(f"wonderwords/assets/{kind}list.txt")
    return {line.rstrip() for line in Path(str(path)).read_text(encoding="utf-8").splitlines()}
