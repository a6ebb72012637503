"""Fitting prompts to a length: truncation of token ids, or of text as upstream's scripts do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, message_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import (
    encode,
    encode_with_special_tokens,
    first_tokens,
    holds_special_token,
    with_bos,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FittedPrompt:
    """Prompt as token ids, after truncation.

    Attributes:
        ids: the token ids.
        cut_tokens: tokens that were removed.
        skip: whether the prompt is too long and the protocol leaves such samples out.
    """

    ids: list[int]
    cut_tokens: int = 0
    skip: bool = False


def fit_prompt(
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    message: Message,
    *,
    length: int,
    answer_tokens: int,
    chat: bool = True,
) -> FittedPrompt:
    """Return a message as token ids, truncated so that prompt and answer fit into a length.

    Only the user's part is truncated, as token ids: chat template, system prompt and answer prefix
    stay whole.

    Args:
        tokenizer: the tokenizer of the model under test.
        protocol: says which part to remove and whether a chat template is used.
        message: the message.
        length: tokens of prompt and answer together.
        answer_tokens: tokens to leave for the answer.
        chat: whether this task uses the chat template at all.

    Raises:
        UserError: for a length that leaves no token for the prompt.
    """
    limit = protocol.prompt_limit(length, answer_tokens)
    before, after = message_affixes(tokenizer, protocol, message, chat=chat)
    # Encoded as one text first: parts that are joined may have other tokens at their edges.
    whole = encode_prompt(tokenizer, protocol, before, message.user, after)
    if len(whole) <= limit or protocol.truncation == "none":
        return FittedPrompt(whole)
    if protocol.truncation == "skip":
        return FittedPrompt(whole, skip=True)
    prefix, suffix = _encode_affixes(tokenizer, before, after)
    affix_tokens = len(prefix) + len(suffix)
    body = encode(tokenizer, message.user, continuation=bool(before), is_data=True)
    body_limit = limit - affix_tokens
    if body_limit < 1:
        raise UserError(
            f"length {length} leaves no token for a prompt: system prompt and chat template take "
            f"{affix_tokens} tokens, the answer {answer_tokens}; use longer --lengths"
        )
    excess = len(body) - body_limit
    if excess <= 0:  # the parts can have fewer tokens than the whole
        return FittedPrompt(prefix + body + suffix)
    body = truncate_ids(body, body_limit, protocol.truncation)
    return FittedPrompt(prefix + body + suffix, cut_tokens=excess)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, before: str, user: str, after: str
) -> list[int]:
    """Return the ids of a prompt that is not truncated, or was truncated as text.

    It is encoded in one go, as a model's own chat template is, and as the benchmarks' scripts do.
    Only where the user's part spells a special token, that part is encoded alone, so that the token
    stays text.

    Args:
        tokenizer: the tokenizer of the model under test.
        protocol: says whether a BOS token is added to one that the prompt begins with.
        before: text before the user's part, in which special tokens are such.
        user: the user's part, which is data.
        after: text after it, like that before it.
    """
    if holds_special_token(tokenizer, user):
        ids = encode(tokenizer, before)
        ids += encode(tokenizer, user, continuation=bool(before), is_data=True)
        ids += encode(tokenizer, after, continuation=True)
    else:
        ids = encode(tokenizer, before + user + after)
    return [*first_tokens(tokenizer), *ids] if protocol.bos == "added" else with_bos(tokenizer, ids)


def prompt_affixes(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, message: Message
) -> tuple[list[int], list[int]]:
    """Return the ids before and after the user's part: BOS, chat template, answer prefix.

    An answer prefix begins with the white space that separates it from the user's text; it is
    removed where a chat template stands between the two.
    """
    return _encode_affixes(tokenizer, *message_affixes(tokenizer, protocol, message, chat=True))


def _encode_affixes(
    tokenizer: PreTrainedTokenizerBase, before: str, after: str
) -> tuple[list[int], list[int]]:
    return with_bos(tokenizer, encode(tokenizer, before)), encode(
        tokenizer, after, continuation=True
    )


def truncate_ids(ids: list[int], limit: int, side: str) -> list[int]:
    """Return `limit` ids: the last ("left"), the first ("right"), or both ends ("middle").

    The name of the side is that of the part which is removed. Of an odd limit the first half has
    one id more.
    """
    match side:
        case "left":
            return ids[-limit:]
        case "right":
            return ids[:limit]
    # Not ``ids[-(limit // 2):]``, which is all of them where the half is 0.
    return ids[: limit - limit // 2] + ids[len(ids) - limit // 2 :]


def truncate_middle_as_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    limit: int,
    *,
    is_data: bool = True,
    keep_special_tokens: bool = False,
) -> tuple[str, int]:
    """Return a text without its middle, as LongBench's script truncates.

    The first and the last `limit // 2` tokens are decoded separately and joined. The text is
    encoded again later, which may give a few tokens more or fewer (source: pred.py of
    THUDM/LongBench at 2e00731).

    Args:
        tokenizer: the tokenizer of the model under test.
        text: the text.
        limit: tokens that a text may have, special ones included, before it is truncated.
        is_data: whether what spells a special token is text, as in `encode`.
        keep_special_tokens: whether special tokens are decoded too.

    Returns:
        The text, and how many tokens were removed.
    """
    ids = encode_with_special_tokens(tokenizer, text, is_data=is_data)
    if len(ids) <= limit:
        return text, 0
    half = limit // 2
    skip_special_tokens = not keep_special_tokens
    first = str(tokenizer.decode(ids[:half], skip_special_tokens=skip_special_tokens))
    last = str(tokenizer.decode(ids[len(ids) - half :], skip_special_tokens=skip_special_tokens))
    return first + last, len(ids) - 2 * half
