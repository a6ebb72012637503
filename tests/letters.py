"""Tokenizer of one token per letter, and chat templates like those of well-known models."""

from typing import Any

LLAMA2 = "{% for m in messages %}[INST] <<SYS>>{{ m['content'] }} [/INST]{% endfor %}"
LLAMA3 = (
    "{% for m in messages %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


class Letters:
    """Tokenizer of one token per letter, with a BOS token that is its only special token."""

    bos_token_id = 0x110000 - 1
    name_or_path = "letters"

    def __init__(self, chat_template: str | None = None) -> None:
        self.chat_template = chat_template

    def __call__(
        self, text: str, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        return {"input_ids": [self.bos_token_id] * add_special_tokens + [ord(c) for c in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        shown = [i for i in ids if not (skip_special_tokens and i == self.bos_token_id)]
        return "".join("<s>" if i == self.bos_token_id else chr(i) for i in shown)

    def apply_chat_template(self, turns: list[dict[str, str]], **options: Any) -> str:
        from jinja2 import Template

        assert self.chat_template
        return Template(self.chat_template).render(messages=turns, add_generation_prompt=True)
