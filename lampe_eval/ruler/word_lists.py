"""Words: the lists of wonderwords 2.2.0, as RULER takes them, and words made of two where a list needs more.

RULER (``scripts/data/synthetic/{niah,common_words_extraction}.py`` of NVIDIA/RULER at c3f5e3b) draws from the 8,169
different words for lists, and from all 6,175,260 pairs of adjective and noun for the keys of needles. A list of more
words comes from the asset ``ruler/english_words.json`` in the official wording; in our own it goes on with words made
of an adjective and a noun joined, which takes no download.
"""

import json
from functools import cache, lru_cache
from importlib.metadata import distribution
from pathlib import Path
from random import Random

from lampe_eval.errors import UserError


@cache
def adjectives() -> tuple[str, ...]:
    """Different adjectives in the order of the alphabet."""
    return tuple(sorted(_words("adjective")))


@cache
def nouns() -> tuple[str, ...]:
    """Different nouns in the order of the alphabet."""
    return tuple(sorted(_words("noun")))


@cache
def pool() -> tuple[str, ...]:
    """Different nouns, adjectives and verbs in the order of the alphabet."""
    return tuple(sorted(_words("noun") | _words("adjective") | _words("verb")))


@lru_cache(maxsize=4)
def made(count: int) -> tuple[str, ...]:
    """So many further words of an adjective and a noun, none of them in the pool; always the same, in random order."""
    rng, known = Random("ruler words"), set(pool())
    found: dict[str, None] = {}
    first, second = (
        [word for word in words if word.isalpha()] for words in (adjectives(), nouns())
    )
    while len(found) < count:
        word = rng.choice(first) + rng.choice(second)
        if word not in known:
            found[word] = None
    return tuple(found)


@lru_cache(maxsize=1)
def english(path: Path) -> tuple[str, ...]:
    """The different words of ``english_words.json``: a list, or a mapping to words.

    Raises:
        UserError: for a file that is neither.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
    words = list(data.values()) if isinstance(data, dict) else data
    if (
        not isinstance(words, list)
        or not all(isinstance(word, str) and word.strip() for word in words)
        or not words
    ):
        raise UserError(
            f"{path}: must be a list of words, or a mapping to words; is it the official file?"
        )
    return tuple(sorted(set(words)))


def _words(kind: str) -> set[str]:
    path = distribution("wonderwords").locate_file(f"wonderwords/assets/{kind}list.txt")
    return {line.rstrip() for line in Path(str(path)).read_text(encoding="utf-8").splitlines()}
