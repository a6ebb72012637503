"""Texts of prompts: where two of them differ, and what they show of unstated settings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lampe_eval.errors import one_line

BEGIN_OF_TEXT = ("<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>", "<｜begin▁of▁sentence｜>")
CHAT_MARKERS = (
    "<|im_start|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "[INST]",
    "<|user|>",
    "<|im_user|>",
    "<｜User｜>",
    "<|start|>",
)
"""Special tokens by which the chat templates of common models open a turn."""
SHOWN = 40
"""Characters that are shown on each side of a difference."""


@dataclass(frozen=True)
class PromptText:
    """Text of a prompt as far as it is stored.

    Attributes:
        start: the beginning.
        end: the end.
        whole: whether both are the whole text.
        has_special_tokens: whether the begin-of-text token would be part of it.
    """

    start: str
    end: str
    whole: bool
    has_special_tokens: bool

    @classmethod
    def of_text(cls, text: str) -> "PromptText":
        """Return a whole prompt, as other programs store it before they encode it."""
        return cls(text, text, whole=True, has_special_tokens=False)

    def without_begin_of_text(self) -> "PromptText":
        """Return the prompt without tokens that a tokenizer puts first."""
        # The stored end of a short prompt is all of it.
        start, end = _begin(self.start)[1], _begin(self.end)[1]
        return PromptText(start, end, self.whole, self.has_special_tokens)


@dataclass(frozen=True)
class TextDifference:
    """First place where two prompts differ.

    Attributes:
        where: place in words.
        first: the first prompt around it, with line breaks and controls as escapes.
        second: the second prompt around it.
        column: characters before the difference in both.
    """

    where: str
    first: str
    second: str
    column: int


def text_difference(first: PromptText, second: PromptText) -> TextDifference | None:
    """Return the first stored place where two prompts differ; None if none is known."""
    if first.has_special_tokens != second.has_special_tokens:
        # Other programs store texts that their tokenizer begins later.
        first, second = first.without_begin_of_text(), second.without_begin_of_text()
    same = len(_shared_start([first.start, second.start]))
    if _differs_at(same, first, second, first.start, second.start):
        return _shown(first.start, second.start, same, f"at character {same + 1}")
    ends = first.end[::-1], second.end[::-1]
    same = len(_shared_start(ends))
    if _differs_at(same, first, second, *ends):
        begins = len(first.end) - same, len(second.end) - same
        where = f"{same + 1} characters before the end"
        return _shown_before(first.end, second.end, begins, where)
    return None


def _shared_start(texts: Sequence[str]) -> str:
    """Return the longest text that all texts begin with."""
    shortest = min(texts, key=len)
    # Halved rather than compared one by one: prompts have millions of characters.
    same, end = 0, len(shortest)
    while same < end:
        middle = (same + end + 1) // 2
        if all(text[same:middle] == shortest[same:middle] for text in texts):
            same = middle
        else:
            end = middle - 1
    return shortest[:same]


def _differs_at(index: int, first: PromptText, second: PromptText, a: str, b: str) -> bool:
    """Return whether texts that agree up to an index differ there, as far as is stored."""
    if index < len(a) and index < len(b):
        return True
    # A text that ends here goes on only where it is not whole.
    return (index < len(a) and second.whole) or (index < len(b) and first.whole)


def _shown(first: str, second: str, index: int, where: str) -> TextDifference:
    begin = max(0, index - SHOWN)
    before = escaped(first[begin:index])
    after = [escaped(text[index : index + SHOWN]) for text in (first, second)]
    return TextDifference(where, before + after[0], before + after[1], len(before))


def _shown_before(first: str, second: str, ends: tuple[int, int], where: str) -> TextDifference:
    """Return the difference of texts that agree from two places on, with what is before these."""
    shown = []
    for text, end in zip((first, second), ends, strict=True):
        shown.append(escaped(text[max(0, end - SHOWN) : end]) + escaped(text[end : end + SHOWN]))
    return TextDifference(where, shown[0], shown[1], len(_shared_start(shown)))


def escaped(text: str) -> str:
    """Return a text with visible line breaks; a backslash of its own is doubled."""
    return one_line(text.replace("\\", "\\\\"))


def begin_of_text(prompts: Sequence[PromptText]) -> str:
    """Return how often prompts begin with a begin-of-text token; empty if they cannot say it."""
    seen: list[str] = []
    for prompt in prompts:
        tokens, _ = _begin(prompt.start)
        if tokens:
            times = "once" if len(tokens) == 1 else f"{len(tokens)} times"
            seen.append(f"{tokens[0]} {times}")
        elif prompt.has_special_tokens:
            seen.append("none")
    return "; ".join(dict.fromkeys(seen))


def _begin(text: str) -> tuple[list[str], str]:
    """Return the begin-of-text tokens that a text begins with, and the rest."""
    tokens: list[str] = []
    while text.startswith(BEGIN_OF_TEXT):
        token = next(token for token in BEGIN_OF_TEXT if text.startswith(token))
        tokens.append(token)
        text = text.removeprefix(token).removeprefix(" ")
    return tokens, text


def chat_markers(prompts: Sequence[PromptText]) -> str:
    """Return the chat markers in prompts, "none" if there are none; empty without prompts."""
    seen: list[str] = []
    for prompt in prompts:
        texts = prompt.start + prompt.end
        found = [marker for marker in CHAT_MARKERS if marker in texts]
        seen.append(", ".join(found) if found else "none")
    return "; ".join(dict.fromkeys(seen))


def line_breaks(prompts: Sequence[PromptText]) -> str:
    """Return whether prompts have line breaks, or a backslash and an n in their place."""
    texts = [prompt.start + prompt.end for prompt in prompts]
    if any(r"\n" in text for text in texts):
        return "escaped: a backslash and the letter n"
    return "as such" if any("\n" in text for text in texts) else ""


def wording(prompts: Sequence[PromptText]) -> str:
    """Return the words that all prompts of a task begin and end with; empty for fewer than two."""
    if len(prompts) < 2:
        return ""
    plain = [prompt.without_begin_of_text() for prompt in prompts]
    head = _shared_start([prompt.start for prompt in plain])
    tail = _shared_start([prompt.end[::-1] for prompt in plain])[::-1]
    parts = []
    if head.strip():
        parts.append(f"begins {escaped(head[:SHOWN])!r}")
    if tail.strip():
        parts.append(f"ends {escaped(tail[-SHOWN:])!r}")
    return ", ".join(parts)


def removed_part(shorter: PromptText, longer: PromptText) -> str:
    """Return the part that a prompt lacks of another whole prompt: left, right or middle.

    Empty if it is not the other one with a single part removed.
    """
    if not (shorter.whole and longer.whole):
        return ""
    a, b = shorter.without_begin_of_text().start, longer.without_begin_of_text().start
    if not a.strip() or len(a) >= len(b):
        return ""
    if b.endswith(a):
        return "left"
    if b.startswith(a):
        return "right"
    prefix = len(_shared_start([a, b]))
    suffix = len(_shared_start([a[::-1], b[::-1]]))
    return "middle" if prefix + suffix >= len(a) else ""


def normalized(text: str) -> str:
    """Return a text without differences in white space."""
    return re.sub(r"\s+", " ", text).strip()
