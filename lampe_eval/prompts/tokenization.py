"""Tokenization of whole texts, and of parts whose joined ids equal the ids of the joined text."""

from array import array
from functools import lru_cache

from transformers import PreTrainedTokenizerBase


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, continuation: bool = False
) -> list[int]:
    """Return the ids of a text of any length, without special tokens.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        continuation: whether the text follows other text. It is then encoded after a newline or
            a letter, and the ids of that are removed, so that a SentencePiece tokenizer does not
            put a space before it.
    """
    if not continuation or not text:
        return list(_encode(tokenizer, text))
    # A newline before a newline may merge with it into one token; a letter does not.
    before = "a" if text.startswith("\n") else "\n"
    before_ids = _encode(tokenizer, before)
    ids = _encode(tokenizer, before + text)
    if ids[: len(before_ids)] != before_ids:
        return list(_encode(tokenizer, text))
    return list(ids[len(before_ids) :])


# Every sample encodes the user's text of megabytes again, and every question its document.
@lru_cache(maxsize=16)
def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> "array[int]":
    """Return the ids of a text as a compact array, from the cache where possible."""
    return array("i", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_with_special_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text with the special tokens that the tokenizer adds."""
    return list(tokenizer(text, verbose=False)["input_ids"])


def with_bos(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Return the ids with exactly one BOS token at the start, if the tokenizer adds one at all."""
    bos = bos_token(tokenizer)
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def bos_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the BOS token that the tokenizer adds to a text, or None if it adds none."""
    # Many tokenizers define a BOS token that they never add, so an empty text is encoded to see.
    ids_of_empty_text: list[int] = tokenizer("", verbose=False)["input_ids"]
    token = tokenizer.bos_token_id
    return token if isinstance(token, int) and ids_of_empty_text[:1] == [token] else None
