"""Dates in chat templates: frozen, with no other trace in what a template renders."""

import datetime

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.prompts.chat_template import freeze_date

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]
DATE = datetime.date(2024, 7, 3)
MESSAGES = [{"role": "user", "content": "hello"}]
LLAMA_3 = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n"
    "    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n'
    "    {%- else %}\n"
    '        {%- set date_string = "26 Jul 2024" %}\n'
    "    {%- endif %}\n{%- endif %}\nToday Date: {{ date_string }}\n\n"
)


def _rendered(tokenizer: PreTrainedTokenizerBase, template: str | dict[str, str]) -> str:
    tokenizer.chat_template = template
    try:
        freeze_date(tokenizer, DATE)
        return str(tokenizer.apply_chat_template(MESSAGES, tokenize=False))
    finally:
        tokenizer.chat_template = None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-03"),
        ("{{ strftime_now('%B %d, %Y') }}", "July 03, 2024"),
        ("{{ strftime_now('%A, %-d %b %y %H:%M:%S') }}", "Wednesday, 3 Jul 24 00:00:00"),
        ("{% set format = '%F' %}{{ strftime_now(format) }}", "2024-07-03"),
        ("{% macro today() %}{{ strftime_now('%d') }}{% endmacro %}{{ today() }}", "03"),
        ("{% for m in messages %}{{ strftime_now('%j') ~ m['role'] }}{% endfor %}", "185user"),
        ("\n\n  {{ strftime_now('%Y') }} x", "\n\n  2024 x"),
        ("   {% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}\n\nx", "2024\nx"),
        ({"default": "{{ strftime_now('%m') }}"}, "07"),
        ("{% set year = strftime_now('%Y') | int %}{{ year + 1 }}", "2025"),
        (LLAMA_3, "Today Date: 03 Jul 2024\n"),
    ],
)
def test_a_template_writes_the_frozen_date(
    pocket: Pocket, template: str | dict[str, str], text: str
) -> None:
    assert _rendered(pocket[1], template) == text


def test_a_template_without_a_date_stays_as_it_is(pocket: Pocket) -> None:
    tokenizer = pocket[1]
    for template in (None, "{{ date_string or '26 Jul 2024' }}"):
        tokenizer.chat_template = template
        freeze_date(tokenizer, DATE)
        assert tokenizer.chat_template == template
    tokenizer.chat_template = None
