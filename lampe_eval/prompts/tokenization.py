"""Text to token ids: of whole texts, and of parts so that joined ids are those of the joined text."""

from array import array
from functools import lru_cache

from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, inside: bool = False) -> list[int]:
    """Ids of a text without special tokens, however long it is.

    Args:
        inside: whether the text stands after other text. It is then encoded behind a newline or a letter, whose ids are
            taken off again, so that a sentencepiece tokenizer puts no space before it.
    """
    if not inside or not text:
        return list(_encode(tokenizer, text))
    before = "a" if text.startswith("\n") else "\n"
    stem, ids = _encode(tokenizer, before), _encode(tokenizer, before + text)
    return list(ids[len(stem) :] if ids[: len(stem)] == stem else _encode(tokenizer, text))


@lru_cache(maxsize=16)
def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> "array[int]":
    """A user's text of megabytes is asked for by every sample, and a document by each of its questions."""
    return array("i", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_with_special_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text with the special tokens that the tokenizer adds."""
    return list(tokenizer(text, verbose=False)["input_ids"])


def with_bos(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """The ids with the token that this tokenizer begins a text with, once."""
    first = bos_token(tokenizer)
    return ids if first is None or ids[:1] == [first] else [first, *ids]


def bos_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that this tokenizer begins a text with, if it does."""
    begun: list[int] = tokenizer("", verbose=False)["input_ids"]
    token = tokenizer.bos_token_id
    return token if isinstance(token, int) and begun[:1] == [token] else None
