"""Tokenization of whole texts, and of parts whose joined ids equal the ids of the joined text.

Text of templates and text of data are encoded differently: `<|im_end|>` ends a turn in a chat
template, but in a document it is text like any other. Data are therefore encoded with special
tokens off; for a text that holds none of them the ids are the same.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


LETTERS_PER_TOKEN = 8
"""More letters than a token of most texts has on average."""
EXTRA_LETTERS = 4096
EXTRA_TOKENS = 64
"""Tokens at the end of a part of a text that may differ from those of the whole text."""


def encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    continuation: bool = False,
    is_data: bool = False,
) -> list[int]:
    """Return the ids of a text of any length, without adding special tokens.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        continuation: whether the text follows other text. It is then encoded after a newline or
            a letter, and the ids of that are removed, so that a SentencePiece tokenizer does not
            put a space before it.
        is_data: whether the text is a benchmark's or a user's. What spells a special token is then
            encoded as the letters that it is.
    """
    if not continuation or not text:
        return list(_encode(tokenizer, text, is_data))
    # A newline before a newline may merge with it into one token; a letter does not.
    before = "a" if text.startswith("\n") else "\n"
    before_ids = _encode(tokenizer, before, is_data)
    ids = _encode(tokenizer, before + text, is_data)
    if ids[: len(before_ids)] != before_ids:
        return list(_encode(tokenizer, text, is_data))
    return list(ids[len(before_ids) :])


def encode_start(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> list[int]:
    """Return at least the first `tokens` ids of a text of data, or all that it has.

    Only the part of a long text that is needed is encoded. It is longer than needed, because the
    ids where it is cut may differ from those of the whole text.
    """
    letters = LETTERS_PER_TOKEN * tokens + EXTRA_LETTERS
    while letters < len(text):
        ids = encode(tokenizer, text[:letters], is_data=True)
        if len(ids) >= tokens + EXTRA_TOKENS:
            return ids
        letters *= 4
    return encode(tokenizer, text, is_data=True)


# Every sample encodes the user's text of megabytes again, and every question its document.
@lru_cache(maxsize=16)
def _encode(tokenizer: PreTrainedTokenizerBase, text: str, is_data: bool) -> array[int]:
    """Return the ids of a text as a compact array, from the cache where possible."""
    encoding = tokenizer(
        text, add_special_tokens=False, verbose=False, split_special_tokens=is_data
    )
    return array("i", encoding["input_ids"])


def holds_special_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Return whether a text spells one of the tokenizer's special tokens, such as `<|im_end|>`."""
    return any(token in text for token in _special_tokens(tokenizer))


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the texts of all special tokens.

    `all_special_tokens` lacks those that have no role of their own, such as Qwen's `<|im_end|>`.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple(token.content for token in added if token.special)


def encode_with_special_tokens(
    tokenizer: PreTrainedTokenizerBase, text: str, *, is_data: bool = False
) -> list[int]:
    """Return the ids of a text after the special tokens that the tokenizer puts first.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        is_data: as for `encode`.
    """
    ids = list(tokenizer(text, verbose=False, split_special_tokens=is_data)["input_ids"])
    # What it puts last, such as an EOS token, would end the prompt before its answer.
    return ids[: len(ids) - len(_added_tokens(tokenizer)[1])]


def with_bos(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Return the ids with exactly once what the tokenizer puts first, if it puts anything."""
    first = first_tokens(tokenizer)
    return ids if ids[: len(first)] == first else [*first, *ids]


def first_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that a tokenizer puts before a text: a BOS token, several, or none.

    Many tokenizers define a BOS token that they never add, and GLM's puts `[gMASK]<sop>` first.
    """
    return list(_added_tokens(tokenizer)[0])


@lru_cache(maxsize=4)
def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that a tokenizer adds before and after a text."""
    # A letter, because in an empty text the two would not be told apart.
    bare = list(tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"])
    ids = list(tokenizer("a", verbose=False)["input_ids"])
    starts = range(len(ids) - len(bare) + 1)
    start = next((start for start in starts if ids[start : start + len(bare)] == bare), 0)
    return tuple(ids[:start]), tuple(ids[start + len(bare) :])
