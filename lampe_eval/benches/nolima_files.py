"""NoLiMa's own needles and books, read from a user's copy.

Their licence allows research and teaching only, so nothing of them is shipped or fetched here. A
copy has `needle_set.json` and `rand_book_1.txt` and so on of the data set amodaresi/NoLiMa, and
`run_tests.py` of adobe-research/NoLiMa (7532e4e), which holds the wording of the prompt.

Placement is that of its `data/book_haystack.py`. Names are drawn from the sample's own number;
upstream draws them by the order in which the file system lists the books.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lampe_eval import assets
from lampe_eval.assets.data_folder import list_folder
from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json
from lampe_eval.texts.jsonl_rows import FaultyRow, parse_value

NEEDLES = "needle_set.json"
SCRIPT = "run_tests.py"
BOOK = re.compile(r"rand_book_\d+\.txt")
PLACEHOLDERS = ("{haystack}", "{question}")


class _Test(BaseModel):
    model_config = ConfigDict(strict=True)

    input_args: list[str]
    gold_answers: list[str] = []


class NolimaNeedle(BaseModel):
    """Needle of a file with its questions and tests."""

    model_config = ConfigDict(strict=True)

    id: str
    system_prompt: str = ""
    needle: str
    questions: dict[str, str] = Field(min_length=1)
    tests: dict[str, _Test] = Field(min_length=1)
    character_set: list[str] = []
    task_template: str | None = None


@dataclass(frozen=True)
class NolimaTest:
    """Question of a needle with its arguments filled in.

    Attributes:
        name: the name that upstream gives it.
        needle: the sentence, with `{CHAR}` where the name goes.
        question: the question.
        golds: right answers beside the name.
        names: people that the needle can be about.
        system_prompt: system prompt.
        template: prompt with `{haystack}` and `{question}`.
    """

    name: str
    needle: str
    question: str
    golds: tuple[str, ...]
    names: tuple[str, ...]
    system_prompt: str
    template: str

    def drawn(self, rng: Random) -> tuple[str, list[str]]:
        """Return the needle about somebody, and the right answers."""
        person = rng.choice(self.names) if self.names else ""
        return self.needle.replace("{CHAR}", person), [*self.golds, *([person] if person else [])]


@dataclass(frozen=True)
class NolimaFiles:
    """Files of a copy.

    Attributes:
        needles: file with the needles.
        script: file with the wording of the prompt.
        books: the books by their names.
    """

    needles: Path
    script: Path
    books: tuple[Path, ...]

    @property
    def all(self) -> list[Path]:
        """Return all files."""
        return [self.needles, self.script, *self.books]

    def tests(self) -> list[NolimaTest]:
        """Return the tests of all needles in their order.

        Raises:
            UserError: for a file that cannot be read, or a needle without what a test needs.
        """
        value = read_json(self.needles)
        if not isinstance(value, list) or not value:
            raise UserError(f"{self.needles}: must be a JSON list of needles")
        template = _template(self.script)
        tests: list[NolimaTest] = []
        for number, row in enumerate(value, 1):
            needle = parse_value(
                row, f"{self.needles}: needle {number}", NolimaNeedle.model_validate
            )
            if isinstance(needle, FaultyRow):
                raise UserError(str(needle))
            tests += _tests(needle, needle.task_template or template)
        return tests


def find_files(data_dir: Path | None) -> NolimaFiles:
    """Return the files of a copy, wherever they lie in a folder.

    Raises:
        UserError: if some are missing; it names all of them with their sources.
    """
    folder = assets.offline_folder(data_dir)
    paths = [folder / path for path in list_folder(folder).files.paths] if folder else []
    found = {path.name: path for path in sorted(paths, reverse=True)}
    books = tuple(found[name] for name in sorted(found) if BOOK.fullmatch(name))
    missing = [name for name in (NEEDLES, SCRIPT) if name not in found]
    missing += [] if books else ["rand_book_1.txt and so on"]
    if missing:
        raise UserError(
            f"latent: the protocol official lacks {', '.join(missing)}; name a folder of your own "
            "with --data-dir, with needlesets/ and haystack/rand_shuffle/ of the data set "
            "amodaresi/NoLiMa and evaluation/run_tests.py of adobe-research/NoLiMa "
            "(for research and teaching only)"
        )
    return NolimaFiles(found[NEEDLES], found[SCRIPT], books)


def place_needle(texts: Sequence[str], needle: str, length: int, depth: float) -> str:
    """Return the first tokens of a book with a needle after a line of it.

    The needle takes the place of the first newline behind its depth, and the text begins so far in
    that as many tokens lie before the needle as its depth says. At depth 0 it comes first.

    Args:
        texts: texts of the book's tokens.
        needle: the sentence.
        length: tokens of the book that are taken.
        depth: depth of the needle as a share of the length.

    Raises:
        UserError: if the book is too short.
    """
    before = round(length * depth)
    place = next((i for i in range(before + 1, len(texts)) if "\n" in texts[i]), len(texts))
    start = place - before if before else 0
    if start + length > len(texts):
        raise UserError(
            f"at length {length}: a book of {len(texts)} tokens is too short; use shorter --lengths"
        )
    if not before:
        # Upstream takes the first token for the newline, and so loses it.
        return f" {needle}\n{''.join(texts[1:length])}"
    head, _, tail = "".join(texts[start : place + 1]).rpartition("\n")
    return f"{head} {needle}\n{tail}{''.join(texts[place + 1 : start + length])}"


def _template(script: Path) -> str:
    """Return the prompt that the script holds, the one text with all placeholders.

    Raises:
        UserError: if it has none or several.
    """
    texts = assets.all_strings(script)
    found = {text for text in texts if all(name in text for name in PLACEHOLDERS)}
    if len(found) != 1:
        raise UserError(
            f"{script}: has {len(found)} texts with {' and '.join(PLACEHOLDERS)}, expected 1; "
            "is it the file of adobe-research/NoLiMa at 7532e4e?"
        )
    return found.pop()


def _tests(needle: NolimaNeedle, template: str) -> list[NolimaTest]:
    tests = []
    for test_id, test in needle.tests.items():
        for kind, question in needle.questions.items():
            tests.append(
                NolimaTest(
                    f"{needle.id}_{test_id}_{kind}",
                    _filled(needle.needle, test.input_args),
                    _filled(question, test.input_args),
                    tuple(test.gold_answers),
                    tuple(needle.character_set),
                    needle.system_prompt,
                    template,
                )
            )
    return tests


def _filled(text: str, arguments: Sequence[Any]) -> str:
    for number, argument in enumerate(arguments, 1):
        text = text.replace(f"{{{number}}}", argument)
    return text
