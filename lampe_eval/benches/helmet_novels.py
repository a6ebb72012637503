"""HELMET's questions on novels: those of InfiniteBench with an answer or with options.

Novels are cut in Llama-2's tokens, so that every model reads the same. Two other questions of the
data set stand before a novel as demonstrations, without their texts.

Source: `load_infbench` and `truncate_llama2` in `data.py` of princeton-nlp/HELMET at 4526dfb.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lampe_eval.assets import all_strings, literals, strings
from lampe_eval.benches.helmet_items import (
    QUESTIONS,
    SHOTS,
    HelmetFileRow,
    HelmetItem,
    PromptTexts,
    shuffled,
    sound_rows,
)
from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LETTERS = "ABCD"
LLAMA2_TOKENS = 32_000
NovelKind = Literal["novel_qa", "choice"]


class NovelRow(HelmetFileRow):
    """Row of InfiniteBench: a question on a novel.

    Attributes:
        input: the question.
        answer: right answers; of a choice, the text of the right option.
        options: options of a choice.
    """

    id: int
    context: str
    input: str
    answer: list[str | int | float] = Field(min_length=1)
    options: list[str] = Field(default_factory=list)

    @property
    def option_list(self) -> str:
        """Return the options with their letters, one a line."""
        pairs = zip(LETTERS, self.options, strict=False)
        return "\n".join(f"{letter}. {option}" for letter, option in pairs)

    @property
    def references(self) -> list[str]:
        """Return what an answer is scored against; for a choice its letter, then with its text."""
        if not self.options:
            return [str(answer) for answer in self.answer]
        option = str(self.answer[0])
        letter = LETTERS[self.options.index(option)]
        return [letter, f"{letter}. {option}"]


@dataclass(frozen=True)
class NovelTexts:
    """Texts around questions on novels.

    Attributes:
        demo: template of a demonstration.
        before_demos: text before the demonstrations.
        after_demos: text after them.
        omitted: text in place of what is cut.
    """

    demo: str
    before_demos: str
    after_demos: str
    omitted: str

    def demonstration(self, row: NovelRow) -> str:
        """Return a question with its answer, without its text."""
        return self.demo.format(question=row.input, options=row.option_list, answer=row.references)

    @classmethod
    def read(cls, code: Path, kind: NovelKind) -> NovelTexts:
        """Return the texts of a kind from data.py.

        Raises:
            UserError: if they are not there.
        """
        demos = literals(code, "temp", "add_demos")
        omitted = [text for text in all_strings(code) if text.startswith(" ... [")]
        around = strings(code, "add_demos")[-2:]
        if len(demos) != 2 or len(omitted) != 1 or len(around) != 2:
            raise UserError(f"{code}: add_demos has no templates; is it the pinned file?")
        return cls(demos[kind == "choice"], around[0], around[1], omitted[0])


@dataclass(frozen=True)
class NovelFiles:
    """Files of questions on novels.

    Attributes:
        kind: whether questions have options.
        code: upstream's data.py.
        data: file of the rows.
        tokenizer: Llama-2's tokenizer.json.
    """

    kind: NovelKind
    code: Path
    data: Path
    tokenizer: Path

    def items(self, context_tokens: int) -> Iterator[HelmetItem | FaultyRow]:
        """Yield the questions in upstream's choice.

        Args:
            context_tokens: tokens to which novels are cut.

        Raises:
            UserError: if a file cannot be read, or a row is faulty.
        """
        texts, around = (
            PromptTexts.read(self.code, self.kind),
            NovelTexts.read(self.code, self.kind),
        )
        rows = sound_rows(read_container(self.data, self._parse))
        for row in shuffled(rows)[:QUESTIONS]:
            others = shuffled([other for other in rows if other.id != row.id])[:SHOTS]
            demos = "\n\n".join(around.demonstration(other) for other in others)
            yield texts.item(
                str(row.id),
                cut_context(self.tokenizer, row.context, context_tokens, around.omitted),
                row.references,
                question=row.input,
                options=row.option_list,
                demo=f"{around.before_demos}{demos}{around.after_demos}",
            )

    def _parse(self, value: Any) -> NovelRow:
        """Return a row.

        Raises:
            ValueError: for a row that lacks what its kind needs.
        """
        row = NovelRow.model_validate(value)
        if self.kind == "novel_qa":
            return row.model_copy(update={"options": []})
        if len(row.options) != len(LETTERS):
            raise ValueError(f"'options': {len(row.options)} of them, expected {len(LETTERS)}")
        if row.answer[0] not in row.options:
            raise ValueError(f"'answer': {row.answer[0]!r} is none of the options")
        return row


@lru_cache(maxsize=128)
def cut_context(path: Path, text: str, tokens: int, omitted: str) -> str:
    """Return a text cut at its end to a number of tokens, those of what replaces the end included.

    Args:
        path: Llama-2's tokenizer.json.
        text: the text.
        tokens: number of tokens, BOS tokens included as upstream counts them.
        omitted: what replaces the end.

    Raises:
        UserError: if the tokenizer is another one.
    """
    tokenizer = _llama2_tokenizer(path)
    encoding = tokenizer.encode(text)
    if len(encoding.ids) <= tokens:
        return text
    last = tokens - len(tokenizer.encode(omitted).ids)
    return text[: encoding.offsets[last][1]] + omitted


@lru_cache(maxsize=1)
def _llama2_tokenizer(path: Path) -> Tokenizer:
    # Here, since other benches need no tokenizer of their own.
    from tokenizers import Tokenizer

    # The package raises a bare Exception for a file that it cannot read.
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise UserError(f"{path}: is no tokenizer.json ({error})") from None
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    if size != LLAMA2_TOKENS:
        raise UserError(f"{path}: has {size} tokens; Llama-2's tokenizer has {LLAMA2_TOKENS}")
    return tokenizer
