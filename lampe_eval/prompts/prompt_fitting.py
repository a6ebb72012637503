"""From what is said to token ids that fit: as ids, or as upstream's scripts do it, decoded and encoded again."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, template_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens, with_bos


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt's tokens.

    Attributes:
        cut: tokens that were taken out.
        skip: whether it is too long and the protocol leaves such samples out.
    """

    ids: list[int]
    cut: int = 0
    skip: bool = False


def fit_prompt(
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    message: Message,
    *,
    length: int,
    answer: int,
    chat: bool = True,
) -> FittedPrompt:
    """Tokens of a message of which the user's part is cut as ids, so that prompt and answer fit into a length.

    Args:
        answer: tokens that the answer may have.
        chat: whether this task is put in the chat template at all.

    Raises:
        UserError: for a length that leaves nothing for the prompt.
    """
    limit = protocol.limit(length, answer)
    before, after = _text_affixes(tokenizer, protocol, message, chat=chat)
    whole = with_bos(tokenizer, encode(tokenizer, before + message.user + after))
    if len(whole) <= limit or protocol.truncation == "none":
        return FittedPrompt(whole)
    if protocol.truncation == "skip":
        return FittedPrompt(whole, skip=True)
    head, tail = _with_affixes(tokenizer, before, after)
    body, room = encode(tokenizer, message.user, inside=bool(before)), limit - len(head) - len(tail)
    if room < 1:
        raise UserError(
            f"length {length} leaves no token for a prompt: its frame takes {len(head) + len(tail)} tokens, "
            f"the answer {answer}; use longer --lengths"
        )
    over = len(body) - room
    if over <= 0:  # parts can have fewer tokens than the whole
        return FittedPrompt(head + body + tail)
    return FittedPrompt(head + truncate_ids(body, room, protocol.truncation) + tail, cut=over)


def prompt_affixes(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, message: Message
) -> tuple[list[int], list[int]]:
    """Ids before and after the user's part: begin of text, chat template, lead of the answer.

    A lead begins with the white space that parts it from the user's text; after a template's turn it needs none.
    """
    return _with_affixes(tokenizer, *_text_affixes(tokenizer, protocol, message, chat=True))


def _with_affixes(
    tokenizer: PreTrainedTokenizerBase, before: str, after: str
) -> tuple[list[int], list[int]]:
    return with_bos(tokenizer, encode(tokenizer, before)), encode(tokenizer, after, inside=True)


def _text_affixes(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, message: Message, *, chat: bool
) -> tuple[str, str]:
    """Text before and after the user's part."""
    if chat and protocol.chat == "template":
        before, after = template_affixes(tokenizer, message.system)
    else:
        before, after = f"{message.system}\n\n" if message.system else "", ""
    return before, after + (message.lead.lstrip() if after else message.lead)


def truncate_ids(ids: list[int], room: int, side: str) -> list[int]:
    """The first and last halves of the room where the middle goes, else its last or first ids."""
    match side:
        case "left":
            return ids[-room:]
        case "right":
            return ids[:room]
    return ids[: room - room // 2] + ids[len(ids) - room // 2 :]


def truncate_middle_as_text(
    tokenizer: PreTrainedTokenizerBase, text: str, limit: int, *, specials: bool = False
) -> tuple[str, int]:
    """A text of which the first and last ``limit // 2`` tokens are decoded one after the other, as upstream cuts.

    Args:
        limit: tokens that a text may have uncut, special ones counted.
        specials: whether special tokens survive.

    Returns:
        the text, and how many tokens were taken out of it.
    """
    ids = encode_with_special_tokens(tokenizer, text)
    if len(ids) <= limit:
        return text, 0
    half = limit // 2
    parts = (ids[:half], ids[len(ids) - half :])
    kept = [str(tokenizer.decode(part, skip_special_tokens=not specials)) for part in parts]
    return "".join(kept), len(ids) - 2 * half
