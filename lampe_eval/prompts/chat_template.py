"""Chat: what a tokenizer's template puts before and after what the user says."""

from dataclasses import dataclass
from typing import Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lampe_eval.errors import UserError

SAID = "what-the-user-says"

Family = Literal["llama2", "llama3", "mistral", "other", "none"]


@dataclass(frozen=True)
class Message:
    """What is said to a model.

    Attributes:
        user: the prompt; the only part that may be cut.
        system: what comes first in its own turn, where a template has one.
        lead: the beginning of the answer, put into the model's mouth.
    """

    user: str
    system: str = ""
    lead: str = ""


def template_affixes(tokenizer: PreTrainedTokenizerBase, system: str) -> tuple[str, str]:
    """Text before and after the user's by the tokenizer's template; the system's text alone where it has none.

    A template that knows no system turn gets its text before the user's.

    Raises:
        UserError: for a template that does not say what the user says.
    """
    said = f"{system}\n\n{SAID}" if system else SAID
    if not getattr(tokenizer, "chat_template", None):
        before, _, after = said.partition(SAID)
        return before, after
    turns = [{"role": "system", "content": system}] if system else []
    text = _rendered(tokenizer, [*turns, {"role": "user", "content": SAID}])
    if text is None or (system and system.strip() not in text):
        text = _rendered(tokenizer, [{"role": "user", "content": said}])
    if text is None or text.count(SAID) != 1:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} cannot be used; try --protocol fair:chat=none"
        )
    before, _, after = text.partition(SAID)
    return before, after


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]]) -> str | None:
    """The turns and the beginning of an answer; None for turns that the template refuses."""
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError):
        return None


def chat_family(tokenizer: PreTrainedTokenizerBase) -> Family:
    """Whose turns a tokenizer's template writes, by their marks; benchmarks' own code treats some by name."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return "none"
    text = str(template)
    if "<|start_header_id|>" in text:
        return "llama3"
    if "[INST]" in text:
        return "llama2" if "<<SYS>>" in text else "mistral"
    return "other"
