"""Chat templates: the text around a user's message, by the tokenizer's template or without one."""

from __future__ import annotations

import datetime
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lampe.errors import first_line
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = "what-the-user-says"
"""Text that is rendered in place of the user's message, to find where a template puts it."""

DATE_DIRECTIVES = tuple(
    "%-d %-m %-y %-j %-H %-I %-M %-S %a %A %b %B %c %d %D %e %f %F %G %h %H %I %j %m %M %p %P %R "
    "%S %T %u %U %V %w %W %x %X %y %Y %z %Z %%".split()
)
"""Directives of `strftime`; the last one is that of a percent sign."""

ANSWER_PLACEHOLDER = "what-the-assistant-says"
"""Text that is rendered in place of an answer, to find where a template puts it."""

ChatFamily = Literal["llama2", "llama3", "mistral", "other", "none"]


@dataclass(frozen=True)
class Message:
    """Message to a model.

    Attributes:
        user: the prompt; the only part that may be truncated.
        system: the system prompt.
        answer_prefix: the beginning of the assistant's answer, which the model continues. It
            includes the white space that separates it from the user's text.
    """

    user: str
    system: str = ""
    answer_prefix: str = ""


def message_affixes(
    tokenizer: PreTrainedTokenizerBase, protocol: Protocol, message: Message, *, chat: bool
) -> tuple[str, str]:
    """Return the text before and after the user's part of a prompt, as a protocol wants it.

    Args:
        tokenizer: the tokenizer of the model under test.
        protocol: says whether the chat template is used.
        message: the message.
        chat: whether this task uses a chat template at all; few-shot and code tasks do not.

    Raises:
        UserError: for a chat template that cannot be used.
    """
    if chat and protocol.chat == "template":
        return template_affixes(tokenizer, message.system, message.answer_prefix)
    return f"{message.system}\n\n" if message.system else "", message.answer_prefix


def template_affixes(
    tokenizer: PreTrainedTokenizerBase, system: str, answer_prefix: str = ""
) -> tuple[str, str]:
    """Return the text that a chat template puts before and after the user's message.

    An answer prefix follows as the template begins an assistant's turn, so without the white space
    that would separate it from the user's text.

    Without a chat template this is the system prompt and nothing. A template that refuses or
    drops the system role gets the system prompt at the beginning of the user's message.

    Raises:
        UserError: for a template that fails, or does not contain the user's message exactly once.
    """
    user = f"{system}\n\n{PLACEHOLDER}" if system else PLACEHOLDER
    if not getattr(tokenizer, "chat_template", None):
        before, _, after = user.partition(PLACEHOLDER)
        return before, after + answer_prefix
    messages, text = _render_message(tokenizer, system, user)
    if text.count(PLACEHOLDER) != 1:
        raise _unusable(tokenizer, "it does not write a user's message once and unchanged")
    before, _, after = text.partition(PLACEHOLDER)
    if not answer_prefix.strip():
        return before, after
    return before, _answer_beginning(tokenizer, messages, after) + answer_prefix.lstrip()


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """Return messages with the start of an answer, by the template or as a transcript without one.

    Raises:
        UserError: for a template that fails or refuses the messages.
    """
    has_template = getattr(tokenizer, "chat_template", None)
    return _render(tokenizer, messages) if has_template else transcript(messages)


def transcript(messages: list[dict[str, str]]) -> str:
    """Return messages as paragraphs that begin with their roles, and the start of an answer."""
    paragraphs = [f"{message['role']}: {message['content']}\n\n" for message in messages]
    return "".join(paragraphs) + "assistant: "


def freeze_date(tokenizer: PreTrainedTokenizerBase, date: datetime.date) -> None:
    """Make a tokenizer's chat templates write this date for today's; its time is midnight.

    transformers gives templates the function `strftime_now`. A macro of that name in front of the
    template takes its place; other templates stay as they are.
    """
    templates = getattr(tokenizer, "chat_template", None)
    if isinstance(templates, dict):
        frozen = {name: _with_date(text, date) for name, text in templates.items()}
        tokenizer.chat_template = frozen
    elif templates:
        tokenizer.chat_template = _with_date(str(templates), date)


def _with_date(template: str, date: datetime.date) -> str:
    """Return a template in which `strftime_now` writes a date."""
    if "strftime_now" not in template:
        return template
    midnight = datetime.datetime.combine(date, datetime.time())
    written = "format"
    for directive in DATE_DIRECTIVES:
        written += f"|replace({directive!r}, {midnight.strftime(directive)!r})"
    # transformers' templates drop the line break after a block, so that this line leaves no trace.
    macro = "{%- macro strftime_now(format) -%}{{ " + written + " }}{%- endmacro %}"
    return f"{macro}\n{template}"


def _render_message(
    tokenizer: PreTrainedTokenizerBase, system: str, user: str
) -> tuple[list[dict[str, str]], str]:
    """Return the messages of a system prompt and the placeholder, and their rendered text.

    Args:
        tokenizer: the tokenizer with the template.
        system: the system prompt, or an empty text.
        user: the user's message with the system prompt at its beginning, for templates that refuse
            or drop the system role.

    Raises:
        UserError: for a template that fails.
    """
    if system:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": PLACEHOLDER}]
        # Some templates raise for a system role, others leave it out silently.
        with suppress(UserError):
            text = _render(tokenizer, messages)
            if system.strip() in text:
                return messages, text
    messages = [{"role": "user", "content": user}]
    return messages, _render(tokenizer, messages)


def _answer_beginning(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], generation_prompt: str
) -> str:
    """Return the text between the user's message and an answer, as the template renders both.

    The generation prompt may lack what follows it: Llama-2's ends with `[/INST]`, and the answer
    begins with a space. It is returned only where the template refuses or changes an answer.
    """
    answer = {"role": "assistant", "content": ANSWER_PLACEHOLDER}
    text = ""
    with suppress(UserError):
        text = _render(tokenizer, [*messages, answer], add_generation_prompt=False)
    between, found, _ = text.partition(PLACEHOLDER)[2].partition(ANSWER_PLACEHOLDER)
    return between if found else generation_prompt


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Render messages.

    Raises:
        UserError: with the template's own words, if it fails or refuses the messages.
    """
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )
    # A template is a program of the model's folder, which can fail in any way.
    except Exception as error:
        raise _unusable(tokenizer, first_line(error)) from None


def _unusable(tokenizer: PreTrainedTokenizerBase, reason: str) -> UserError:
    """Return the error for a chat template that cannot be used."""
    return UserError(
        f"the chat template of {tokenizer.name_or_path} cannot be used ({reason}); "
        "try --protocol fair:chat=none"
    )


def chat_family(tokenizer: PreTrainedTokenizerBase) -> ChatFamily:
    """Return the model family whose chat markers a tokenizer's template writes."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return "none"
    # The benchmarks' own scripts type the markers of some families by hand and choose them by model
    # name; here the template's markers decide.
    text = str(template)
    if "<|start_header_id|>" in text:
        return "llama3"
    # Mistral's template has the same markers, but no system prompt of its own.
    if "[INST]" in text:
        return "llama2" if "<<SYS>>" in text else "mistral"
    return "other"
