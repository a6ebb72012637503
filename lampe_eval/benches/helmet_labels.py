"""HELMET's classification in context: texts with numbers for classes, and a text to label.

Which number a class has is drawn anew for each sample, so that only the examples tell it. Examples
are whole rounds of all classes, and so are the samples, where the data set has more than upstream
runs.

Source: `load_icl` in `data.py` of princeton-nlp/HELMET at 4526dfb.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, floor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from lampe_eval.benches.helmet_items import (
    SEED,
    HelmetItem,
    PromptTexts,
    shuffled,
    sound_rows,
    split_faulty,
)
from lampe_eval.errors import UserError
from lampe_eval.texts.jsonl_rows import NO_TEXT, FaultyRow, is_text, read_container

TEXTS = 500
"""Texts of a data set that upstream runs."""
TEST_SHARE = 0.1
"""Share of a data set of one split that upstream takes for the test."""


@dataclass(frozen=True)
class LabelledText:
    """Text with the number of its class."""

    text: str
    label: int


@dataclass(frozen=True)
class LabelledFiles:
    """Files of a data set for classification.

    Attributes:
        code: upstream's data.py.
        test: file of the texts to label.
        train: file of the examples; the same one for a data set of one split.
        field: name of the field with the class.
        classes: number of classes.
    """

    code: Path
    test: Path
    train: Path
    field: str
    classes: int

    def items(self, shots: int) -> Iterator[HelmetItem | FaultyRow]:
        """Yield the samples in upstream's choice, faulty rows first.

        Args:
            shots: number of examples.

        Raises:
            UserError: if a file cannot be read, or an example is faulty.
        """
        texts = PromptTexts.read(self.code, "icl")
        train = sound_rows(read_container(self.train, self._parse))
        if self.test == self.train:
            train, test = _split(train)
            if not train:
                raise UserError(f"{self.train}: has too few rows for examples and a test")
        else:
            faulty, test = split_faulty(read_container(self.test, self._parse))
            yield from faulty
        if len(test) > TEXTS:
            test = balanced(shuffled(test), TEXTS, SEED)
        for row in test:
            seed = (int(sha256(row.text.encode()).hexdigest(), 16) + SEED) % 2**31
            numbers = list(range(self.classes))
            Random(seed).shuffle(numbers)
            examples = [
                f"{example.text}\nlabel: {numbers[example.label]}"
                for example in balanced(train, shots, seed)
            ]
            references = str(numbers[row.label])
            yield texts.item(row.text, "\n\n".join(examples), references, question=row.text)

    def _parse(self, value: Mapping[str, Any]) -> LabelledText:
        """Return a row.

        Raises:
            ValueError: for a row without a text, or with a class that does not exist.
        """
        for name in ("text", self.field):
            if name not in value:
                raise ValueError(f"has no {name!r}")
        text, label = value["text"], value[self.field]
        if not isinstance(text, str):
            raise ValueError("'text': must be text")
        if not is_text(text):
            raise ValueError(NO_TEXT)
        if type(label) is not int or not 0 <= label < self.classes:
            known = f"a number from 0 to {self.classes - 1}"
            raise ValueError(f"{self.field!r}: must be {known}, not {label!r}")
        return LabelledText(text, label)


def _split(rows: Sequence[LabelledText]) -> tuple[list[LabelledText], list[LabelledText]]:
    """Return the examples and the test of a data set of one split."""
    order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
    tested, trained = ceil(TEST_SHARE * len(rows)), floor((1 - TEST_SHARE) * len(rows))
    test = [rows[place] for place in order[:tested]]
    return [rows[place] for place in order[tested : tested + trained]], test


def balanced(rows: Sequence[LabelledText], count: int, seed: int) -> list[LabelledText]:
    """Return rows in rounds of one of each class, in random order within a round.

    Args:
        rows: rows of all classes; those of small classes are repeated.
        count: number of rows to return, which may end within a round.
        seed: seed of the draws.
    """
    by_class: dict[int, list[LabelledText]] = {}
    for row in rows:
        by_class.setdefault(row.label, []).append(row)
    rng = Random(seed)
    rounds: list[list[LabelledText]] = [[] for _ in range(ceil(count / len(by_class)))]
    for members in by_class.values():
        # What is left of whole passes over a class comes first, as upstream draws it.
        places = rng.sample(range(len(members)), len(rounds) % len(members))
        while len(places) < len(rounds):
            places += rng.sample(range(len(members)), min(len(rounds) - len(places), len(members)))
        for rows_of_round, place in zip(rounds, places, strict=True):
            rows_of_round.append(members[place])
    chosen: list[LabelledText] = []
    for rows_of_round in rounds:
        rng.shuffle(rows_of_round)
        chosen += rows_of_round
    return chosen[:count]
