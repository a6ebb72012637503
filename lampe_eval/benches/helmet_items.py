"""HELMET's rows as questions on a context, with its prompts, demonstrations and choice of samples.

The texts around them are read from the pinned `data.py`. Rows and demonstrations are those that
upstream's program takes when it runs one data set with its seed.

Source: `data.py` of princeton-nlp/HELMET at 4526dfb.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from lampe_eval.assets import literals, strings
from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container

Row = TypeVar("Row")

SEED = 42
SHOTS = 2
QUESTIONS = 100
"""Questions of a data set that upstream runs."""

POPULARITY_LIMIT = 3
"""Decimal logarithm of page views from which popqa leaves a question out."""

Kind = Literal["json_kv", "qa", "rerank", "needle", "needles", "icl", "novel_qa", "choice"]
FUNCTIONS: Mapping[Kind, tuple[str, int]] = {
    "json_kv": ("load_json_kv", -1),
    "qa": ("load_qa", -1),
    "rerank": ("load_msmarco_rerank", -1),
    "needles": ("load_ruler", 1),
    "needle": ("load_ruler", 2),
    "icl": ("load_icl", -1),
    "novel_qa": ("load_infbench", 0),
    "choice": ("load_infbench", 1),
}
"""Function of data.py that reads each kind of data set, and which of its templates it uses."""


class HelmetFileRow(BaseModel):
    """Row of a data file."""

    model_config = ConfigDict(frozen=True, strict=True)


class KeyValueRow(HelmetFileRow):
    """Row that asks for the value of a key in a JSON object."""

    context: str
    question: str
    answer: str
    demos: list[Annotated[list[str], Field(min_length=2, max_length=2)]]


class NeedleRow(HelmetFileRow):
    """Row that asks for the values of a key that are hidden in a text.

    Attributes:
        query: the key.
        type_needle_v: kind of the values, such as "numbers".
        answer: the values; RULER's own name of it is `outputs`.
    """

    context: str
    query: str
    type_needle_v: str
    answer: list[str] = Field(min_length=1, validation_alias=AliasChoices("answer", "outputs"))


class HelmetPassage(HelmetFileRow):
    """Passage, with its relevance where passages are ranked."""

    id: str | int = ""
    title: str | None = None
    text: str
    label: int = 0


class PassagesRow(HelmetFileRow):
    """Row with a question about passages.

    Attributes:
        ctxs: the passages.
    """

    ctxs: list[HelmetPassage] = Field(min_length=1)


class QuestionRow(PassagesRow):
    """Row whose question has an answer."""

    id: str | None = None
    question: str
    answers: list[str] = Field(min_length=1)
    s_pop: float | None = Field(None, gt=0)

    @property
    def key(self) -> str:
        """Return what tells questions apart."""
        return self.question if self.id is None else self.id

    @property
    def is_little_known(self) -> bool:
        """Return whether its subject has few page views."""
        return self.s_pop is not None and math.log10(self.s_pop) < POPULARITY_LIMIT


class QueryRow(PassagesRow):
    """Row whose passages are to be ranked."""

    qid: str
    query: str

    @property
    def key(self) -> str:
        """Return what tells queries apart."""
        return self.qid

    @property
    def ranking(self) -> str:
        """Return the ids of the passages, the most relevant first."""
        passages = sorted(self.ctxs, key=lambda passage: passage.label, reverse=True)
        return " > ".join(str(passage.id) for passage in passages)


@dataclass(frozen=True)
class HelmetItem:
    """Question on a context.

    Attributes:
        id: its id in the data.
        before: text before the context.
        context: the context, the only part that may be cut.
        after: text after it.
        cue: words with which the answer begins.
        separator: what stands before the cue.
        references: what the answer is scored against.
    """

    id: str
    before: str
    context: str
    after: str
    cue: str
    separator: str
    references: Any


@dataclass(frozen=True)
class PromptTexts:
    """Texts of a kind's prompts.

    Attributes:
        user: template of the user's part, with `{context}` and what `item` gets by name.
        cue: words with which the answer begins.
        separator: what stands before the cue.
        passages: templates of a passage, without a title and with one.
        source: file and function that they are from, for messages.
    """

    user: str
    cue: str
    separator: str
    passages: Mapping[bool, str]
    source: str

    @classmethod
    def read(cls, code: Path, kind: Kind) -> "PromptTexts":
        """Return the texts of a kind from data.py.

        Raises:
            UserError: if they are not there.
        """
        function, number = FUNCTIONS[kind]
        users = literals(code, "user_template", function)
        cues = literals(code, "system_template", function)
        passages = [text for text in strings(code, function) if "{text}" in text]
        has_passages = bool(passages) or kind not in ("qa", "rerank")
        is_complete = has_passages and min(len(users), len(cues)) > max(number, 0)
        if not is_complete or "{context}" not in users[number]:
            raise UserError(f"{code}: {function} has no templates; is it the pinned file?")
        # The only function that puts an empty line before the cue.
        separator = "\n\n" if function == "load_infbench" else "\n"
        by_title = {"{title}" in text: text for text in passages}
        return cls(users[number], cues[number], separator, by_title, f"{code}: {function}")

    @property
    def question(self) -> str:
        """Return the template of the question, which follows the context."""
        return self.user.rpartition("{context}")[2]

    def passage_list(self, passages: Sequence[HelmetPassage]) -> str:
        """Return passages as the prompt lists them."""
        some_template = next(iter(self.passages.values()))
        template = self.passages.get(passages[0].title is not None, some_template)
        return "\n\n".join(template.format(**passage.model_dump()) for passage in passages)

    def item(self, sample_id: str, context: str, references: Any, **fields: str) -> HelmetItem:
        """Return a question as an item.

        Args:
            sample_id: its id.
            context: the context.
            references: what the answer is scored against.
            fields: values of the other placeholders by name.

        Raises:
            UserError: if a template has another placeholder.
        """
        before, _, after = self.user.partition("{context}")
        try:
            texts = [part.format(**fields) for part in (before, after, self.cue)]
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(fields)
            raise UserError(
                f"{self.source} has a template with {error}; known are context, {known}; "
                "is it the pinned file?"
            ) from None
        return HelmetItem(
            sample_id, texts[0], context, texts[1], texts[2], self.separator, references
        )


def items(
    kind: Kind, code: Path, data: Path, demos: Path | None = None, *, one_split: bool = False
) -> Iterator[HelmetItem | FaultyRow]:
    """Yield the questions of a data set in upstream's choice, faulty rows first.

    Args:
        kind: kind of the data set.
        code: upstream's data.py.
        data: file of the rows.
        demos: file of the demonstrations, for a kind that has one.
        one_split: whether the data set is popqa, whose questions on little-known subjects are also
            each other's demonstrations.
    """
    texts = PromptTexts.read(code, kind)
    readers: Mapping[Kind, type[HelmetFileRow]] = {
        "json_kv": KeyValueRow,
        "needle": NeedleRow,
        "needles": NeedleRow,
        "qa": QuestionRow,
        "rerank": QueryRow,
    }
    parse: Callable[[Any], Any] = readers[kind].model_validate
    faulty, sound = split_faulty(read_container(data, parse))
    yield from faulty
    if demos is None:
        yield from (_key_value_items if kind == "json_kv" else _needle_items)(texts, sound)
        return
    examples = sound_rows(read_container(demos, parse))
    if one_split:
        sound = [row for row in sound if row.is_little_known]
        examples = [row for row in examples if row.is_little_known]
    make = _question_items if kind == "qa" else _query_items
    yield from make(texts, sound, examples)


def split_faulty(rows: Iterable[Row | FaultyRow]) -> tuple[list[FaultyRow], list[Row]]:
    """Return the faulty rows and the others, each in their order."""
    faulty: list[FaultyRow] = []
    sound: list[Row] = []
    for row in rows:
        if isinstance(row, FaultyRow):
            faulty.append(row)
        else:
            sound.append(row)
    return faulty, sound


def sound_rows(rows: Iterable[Row | FaultyRow]) -> list[Row]:
    """Return the rows of demonstrations, of which none may be faulty: every prompt has some.

    Raises:
        UserError: with the first faulty one.
    """
    faulty, sound = split_faulty(rows)
    if faulty:
        raise UserError(f"{faulty[0]}; it is a demonstration in other prompts")
    return sound


def shuffled(rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order in which upstream's library shuffles them by its seed."""
    return [rows[place] for place in np.random.default_rng(SEED).permutation(len(rows)).tolist()]


def _needle_items(texts: PromptTexts, rows: Sequence[NeedleRow]) -> Iterator[HelmetItem]:
    for row in shuffled(rows)[:QUESTIONS]:
        fields = {"query": row.query, "type_needle_v": row.type_needle_v}
        yield texts.item(row.query, row.context, row.answer, **fields)


def _key_value_items(texts: PromptTexts, rows: Sequence[KeyValueRow]) -> Iterator[HelmetItem]:
    for row in shuffled(rows)[:QUESTIONS]:
        demos = ""
        for key, value in row.demos[:SHOTS]:
            demos += f"{_asked(texts, key)} {value}\n\n"
        yield texts.item(row.question, row.context, row.answer, question=row.question, demos=demos)


def _asked(texts: PromptTexts, question: str) -> str:
    """Return a question with the cue of its answer, as it ends a prompt."""
    last = texts.question.rpartition("{demos}")[2].strip("\n")
    return f"{last.replace('{question}', question)}\n{texts.cue}"


def _question_items(
    texts: PromptTexts, rows: Sequence[QuestionRow], demos: Sequence[QuestionRow]
) -> Iterator[HelmetItem]:
    for row in _chosen(rows):
        # Splits share no question, but where there is one split a question could be its own.
        others = [demo for demo in demos if demo.key != row.key]
        examples = ""
        for demo in _drawn_demos(others, row.key):
            examples += f"{texts.passage_list(demo.ctxs)}\n\n"
            examples += f"{_asked(texts, demo.question)} {demo.answers[0]}\n\n"
        context = texts.passage_list(row.ctxs)
        yield texts.item(row.key, context, row.answers, question=row.question, demos=examples)


def _query_items(
    texts: PromptTexts, rows: Sequence[QueryRow], demos: Sequence[QueryRow]
) -> Iterator[HelmetItem]:
    rows = _chosen(rows)
    if len(demos) > 2 * len(rows):
        queries = {row.key for row in rows}
        demos = [demo for demo in demos if demo.key not in queries]
    for row in rows:
        others = [demo for demo in demos if demo.key != row.key]
        examples = ""
        for demo in _drawn_demos(others, row.key):
            examples += f"{texts.passage_list(demo.ctxs)}\n\n"
            examples += f"{_asked(texts, demo.query)} {demo.ranking}\n\n"
        relevance = {str(passage.id): passage.label for passage in row.ctxs}
        context = texts.passage_list(row.ctxs)
        yield texts.item(row.key, context, relevance, question=row.query, demos=examples)


def _chosen(rows: Sequence[Any]) -> list[Any]:
    """Return the rows, in their order, of the questions that upstream runs."""
    keys = sorted({row.key for row in rows})
    chosen = {*Random(SEED).sample(keys, min(QUESTIONS, len(keys)))}
    return [row for row in rows if row.key in chosen]


def _drawn_demos(demos: Sequence[Any], key: str) -> list[Any]:
    """Return the first different demonstrations in an order that depends on a question."""
    seed = int(sha256(key.encode()).hexdigest(), 16) % 2**31
    by_key: dict[str, Any] = {}
    for place in np.random.default_rng(seed).permutation(len(demos)).tolist():
        by_key.setdefault(demos[place].key, demos[place])
    return list(by_key.values())[:SHOTS]
