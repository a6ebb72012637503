"""Wordings: our own sentences, and RULER's, which are read from its pinned source when needed and never kept.

"official" is NVIDIA/RULER at c3f5e3b, "2024" has the templates of hsiehjackson/RULER at e40fae1, with which STRING and
LaMPE were measured. A prompt is a template with instruction, ``{context}`` and question, and the start of the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lampe_eval.assets import literal, literals, path_of
from lampe_eval.errors import UserError

Name = Literal["own", "official", "2024"]

ASSETS: Mapping[Name, tuple[str, ...]] = {
    "own": (),
    "official": ("ruler/constants.py", "ruler/niah.py", "ruler/qa.py"),
    "2024": ("ruler/constants-2024.py", "ruler/niah.py", "ruler/qa.py"),
}
"""Files that a wording is read from."""

UPSTREAM = {
    "niah": "niah",
    "vt": "variable_tracking",
    "cwe": "common_words_extraction",
    "fwe": "freq_words_extraction",
    "qa": "qa",
}
"""What ``TASKS`` of upstream's constants.py calls a kind of task."""

SINGULAR = (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer"))
"""What upstream replaces in a template, in this order, where a single value is asked for."""


@dataclass(frozen=True)
class QuestionTemplate:
    """Instruction before the context, question after it, start of the answer."""

    head: str
    tail: str
    prefix: str

    def filled(self, **slots: object) -> "QuestionTemplate":
        """With values for ``{slots}``."""
        return QuestionTemplate(
            *(fill_slots(text, **slots) for text in (self.head, self.tail, self.prefix))
        )


@dataclass(frozen=True)
class RulerWording:
    """All sentences of a wording.

    Attributes:
        templates: of each kind of task; "niah" asks for several values, "niah_one" for one.
        needle: ``{type_needle_v}``, ``{key}`` and ``{value}``.
        filler: a line of noise.
        assign: line that gives a variable a number: ``{name}`` and ``{value}``.
        copy: line that gives a variable what another holds.
        document: ``{i}`` and ``{document}``.
        own: whether these are our own sentences.
        old: whether samples are as in 2024: haystacks end with the essays and with the words, the example of variable
            tracking is always the same, and its lines are joined by spaces.
    """

    templates: Mapping[str, QuestionTemplate]
    needle: str
    filler: str
    assign: str
    copy: str
    document: str
    own: bool = False
    old: bool = False


OWN = RulerWording(
    templates={
        "niah": QuestionTemplate(
            "The text below mentions several {type_needle_v} on its way, each listed under a name. Read it with care; "
            "a question about them comes at the end.\n",
            "\nWhich {type_needle_v} does the text list under {query}?",
            " Under {query} the text lists:",
        ),
        "niah_one": QuestionTemplate(
            "The text below mentions a {type_needle_v} on its way, listed under a name. Read it with care; "
            "a question about it comes at the end.\n",
            "\nWhich {type_needle_v} does the text list under {query}?",
            " Under {query} the text lists:",
        ),
        "vt": QuestionTemplate(
            "Between the lines of the text below, variables are set: one to a number, others to what an earlier one "
            "holds. Follow who holds what.\n",
            "\nWhich variables end up holding {query}?",
            " These {num_v} variables hold {query}:",
        ),
        "cwe": QuestionTemplate(
            "A few words of the numbered list below occur far more often than all others. Count along.\n",
            "\nWhich {count} words does the list repeat most?",
            " The {count} words repeated most are:",
        ),
        "fwe": QuestionTemplate(
            "The line below is made of invented words, with dots as padding between them. Count each word.\n",
            "\nLeave the dots aside. Which {count} invented words occur most?",
            " The {count} invented words that occur most are:",
        ),
        "qa": QuestionTemplate(
            "Read the passages below; one question on them follows.\n\n",
            "\n\nReply with nothing but the answer, in as few words as it takes.\n{query}",
            " Short answer:",
        ),
    },
    needle="The {type_needle_v} listed under {key} is {value}.",
    filler="Rain falls on the hills. A river runs to the sea. Clouds rise from it. On they drift. Rain falls again.",
    assign="SET {name} TO {value}.",
    copy="SET {name} TO {value}.",
    document="Passage {i}\n{document}",
    own=True,
)


def fill_slots(text: str, **slots: object) -> str:
    """A text with values for its ``{slots}``; other braces stay as they are."""
    for name, value in slots.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


@lru_cache(maxsize=8)
def load_wording(name: Name, data_dir: Path | None = None) -> RulerWording:
    """A wording by name.

    Raises:
        UserError: for upstream's files that are missing or not as they should be; it names file and key.
    """
    if name == "own":
        return OWN
    constants, niah, qa = (path_of(asset, data_dir) for asset in ASSETS[name])
    return upstream(constants, niah, qa, old=name == "2024")


def upstream(constants: Path, niah: Path, qa: Path, *, old: bool) -> RulerWording:
    """Upstream's wording from its constants.py, niah.py and qa.py.

    Raises:
        UserError: where one of them lacks something; it names file and key.
    """
    tasks = literal(constants, "TASKS")
    templates = {kind: _template(constants, tasks, key) for kind, key in UPSTREAM.items()}
    return RulerWording(
        templates={**templates, "niah_one": singular(templates["niah"])},
        needle=_text(niah, "needle", "{key}", "{value}"),
        filler=_text(niah, "haystack"),
        assign="VAR {name} = {value}",
        copy="VAR {name} = VAR {value} ",
        document=_text(qa, "DOCUMENT_PROMPT", "{document}"),
        old=old,
    )


def singular(template: QuestionTemplate) -> QuestionTemplate:
    """The template for a single value, by upstream's replacements (niah.py)."""
    return QuestionTemplate(
        *(_singular(text) for text in (template.head, template.tail, template.prefix))
    )


def _singular(text: str) -> str:
    for many, one in SINGULAR:
        text = text.replace(many, one)
    return text


def _template(path: Path, tasks: Any, key: str) -> QuestionTemplate:
    task = tasks.get(key) if isinstance(tasks, dict) else None
    fields = task if isinstance(task, dict) else {}
    text, prefix = fields.get("template"), fields.get("answer_prefix")
    if not (isinstance(text, str) and isinstance(prefix, str) and text.count("{context}") == 1):
        raise UserError(
            f"{path}: TASKS has no template and answer_prefix for {key!r}; is it the pinned file?"
        )
    head, _, tail = text.partition("{context}")
    return QuestionTemplate(head, tail, prefix)


def _text(path: Path, name: str, *slots: str) -> str:
    """The one text that a file assigns to a name and that has the slots."""
    found = [
        value
        for value in literals(path, name)
        if isinstance(value, str) and all(slot in value for slot in slots)
    ]
    if len(set(found)) != 1:
        raise UserError(
            f"{path}: {name!r} is {len(set(found))} texts that fit, expected 1; is it the pinned file?"
        )
    return str(found[0])
