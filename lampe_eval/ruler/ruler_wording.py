"""Wordings of RULER's prompts: our own sentences, and upstream's.

Upstream's sentences are read from its pinned source when they are needed, and never stored here.
"official" is NVIDIA/RULER at c3f5e3b; "2024" has the templates of hsiehjackson/RULER at e40fae1,
with which STRING and LaMPE were measured. A prompt consists of an instruction, a context and a
question, and the start of the answer follows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lampe_eval.assets import literal, literals, path_of
from lampe_eval.errors import UserError

WordingName = Literal["own", "official", "2024"]

ASSETS: Mapping[WordingName, tuple[str, ...]] = {
    "own": (),
    "official": ("ruler/constants.py", "ruler/niah.py", "ruler/qa.py"),
    "2024": ("ruler/constants-2024.py", "ruler/niah.py", "ruler/qa.py"),
}
"""Files that a wording is read from."""

UPSTREAM_TASKS = {
    "niah": "niah",
    "vt": "variable_tracking",
    "cwe": "common_words_extraction",
    "fwe": "freq_words_extraction",
    "qa": "qa",
}
"""Names in ``TASKS`` of upstream's constants.py, by our kinds of task."""

SINGULAR_FORMS = (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer"))
"""Replacements that upstream makes, in this order, in a template that asks for a single value."""


@dataclass(frozen=True)
class QuestionTemplate:
    """Texts around the context of a prompt.

    Attributes:
        instruction: text before the context.
        question: text after the context.
        answer_prefix: start of the answer.
    """

    instruction: str
    question: str
    answer_prefix: str

    def fill(self, **slots: object) -> "QuestionTemplate":
        """Return the template with values for its ``{slots}``."""
        return QuestionTemplate(
            fill_slots(self.instruction, **slots),
            fill_slots(self.question, **slots),
            fill_slots(self.answer_prefix, **slots),
        )


@dataclass(frozen=True)
class RulerWording:
    """Sentences of a wording.

    Attributes:
        templates: template of each kind of task; "niah" asks for several values, "niah_one" for
            one.
        needle: sentence with ``{type_needle_v}``, ``{key}`` and ``{value}``.
        filler: line of noise.
        assign: line that assigns a number to a variable, with ``{name}`` and ``{value}``.
        copy: line that assigns the value of another variable, with ``{name}`` and ``{value}``.
        document: heading and text of a document, with ``{i}`` and ``{document}``.
        is_own: whether these are our own sentences.
        is_2024: whether samples are as in 2024: haystacks end with the essays and with the words,
            the example of variable tracking is always the same, and its lines are joined by spaces.
    """

    templates: Mapping[str, QuestionTemplate]
    needle: str
    filler: str
    assign: str
    copy: str
    document: str
    is_own: bool = False
    is_2024: bool = False


OWN = RulerWording(
    templates={
        "niah": QuestionTemplate(
            "The text below mentions several {type_needle_v} on its way, each listed under a name. "
            "Read it with care; a question about them comes at the end.\n",
            "\nWhich {type_needle_v} does the text list under {query}?",
            " Under {query} the text lists:",
        ),
        "niah_one": QuestionTemplate(
            "The text below mentions a {type_needle_v} on its way, listed under a name. "
            "Read it with care; a question about it comes at the end.\n",
            "\nWhich {type_needle_v} does the text list under {query}?",
            " Under {query} the text lists:",
        ),
        "vt": QuestionTemplate(
            "Between the lines of the text below, variables are set: one to a number, others to "
            "what an earlier one holds. Follow who holds what.\n",
            "\nWhich variables end up holding {query}?",
            " These {num_v} variables hold {query}:",
        ),
        "cwe": QuestionTemplate(
            "A few words of the numbered list below occur far more often than all others. "
            "Count along.\n",
            "\nWhich {count} words does the list repeat most?",
            " The {count} words repeated most are:",
        ),
        "fwe": QuestionTemplate(
            "The line below is made of invented words, with dots as padding between them. "
            "Count each word.\n",
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
    filler="Rain falls on the hills. A river runs to the sea. Clouds rise from it. On they drift. "
    "Rain falls again.",
    assign="SET {name} TO {value}.",
    copy="SET {name} TO {value}.",
    document="Passage {i}\n{document}",
    is_own=True,
)


def fill_slots(text: str, **slots: object) -> str:
    """Return a text with values for its ``{slots}``; other braces stay as they are."""
    # `str.format` would refuse the braces that upstream's texts may have.
    for name, value in slots.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


@lru_cache(maxsize=8)
def load_wording(name: WordingName, data_dir: Path | None = None) -> RulerWording:
    """Return a wording by name.

    Args:
        name: "own", "official" or "2024".
        data_dir: folder with upstream's files, read before the cache of downloads.

    Raises:
        UserError: if upstream's files are missing or differ from what is expected; the message
            names file and key.
    """
    if name == "own":
        return OWN
    # The templates of 2024 differ from today's; needle, filler and document texts do not.
    constants, niah, qa = (path_of(asset, data_dir) for asset in ASSETS[name])
    return read_upstream_wording(constants, niah, qa, is_2024=name == "2024")


def read_upstream_wording(constants: Path, niah: Path, qa: Path, *, is_2024: bool) -> RulerWording:
    """Return upstream's wording from its constants.py, niah.py and qa.py.

    Raises:
        UserError: if one of them lacks something; the message names file and key.
    """
    tasks = literal(constants, "TASKS")
    templates = {
        kind: _read_template(constants, tasks, key) for kind, key in UPSTREAM_TASKS.items()
    }
    return RulerWording(
        templates={**templates, "niah_one": to_singular(templates["niah"])},
        needle=_read_text(niah, "needle", "{key}", "{value}"),
        filler=_read_text(niah, "haystack"),
        # upstream builds these lines in code; the space at the end of a copy is upstream's
        assign="VAR {name} = {value}",
        copy="VAR {name} = VAR {value} ",
        document=_read_text(qa, "DOCUMENT_PROMPT", "{document}"),
        is_2024=is_2024,
    )


def to_singular(template: QuestionTemplate) -> QuestionTemplate:
    """Return the template for a single value, by upstream's replacements (niah.py)."""
    return QuestionTemplate(
        _text_to_singular(template.instruction),
        _text_to_singular(template.question),
        _text_to_singular(template.answer_prefix),
    )


def _text_to_singular(text: str) -> str:
    # Plain replacements as upstream's, which change these letters inside of words as well.
    for plural, singular in SINGULAR_FORMS:
        text = text.replace(plural, singular)
    return text


def _read_template(path: Path, tasks: Any, key: str) -> QuestionTemplate:
    task = tasks.get(key) if isinstance(tasks, dict) else None
    fields = task if isinstance(task, dict) else {}
    text, prefix = fields.get("template"), fields.get("answer_prefix")
    if not (isinstance(text, str) and isinstance(prefix, str) and text.count("{context}") == 1):
        raise UserError(
            f"{path}: TASKS has no template and answer_prefix for {key!r}; is it the pinned file?"
        )
    instruction, _, question = text.partition("{context}")
    return QuestionTemplate(instruction, question, prefix)


def _read_text(path: Path, name: str, *slots: str) -> str:
    """Return the one text that a file assigns to a name and that has the slots."""
    # Upstream assigns some names several times, to texts and to other values.
    texts: set[str] = set()
    for value in literals(path, name):
        if isinstance(value, str) and all(slot in value for slot in slots):
            texts.add(value)
    if len(texts) != 1:
        raise UserError(
            f"{path}: {name!r} is {len(texts)} texts that fit, expected 1; is it the pinned file?"
        )
    return texts.pop()
